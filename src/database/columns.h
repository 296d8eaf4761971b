/*-------------------------------------------------------------------------
 *
 * columns.h
 *	  Columns of the application's tables, and the parts of statements that
 *	  are made from them.
 *
 * Expressions are palloc'd.  Every operator, function, type and collation in
 * them is PostgreSQL's own, whatever others there are on the search path.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_COLUMNS_H
#define SENDCAMPAIGN_COLUMNS_H

#include "nodes/parsenodes.h"

extern bool has_column(Oid table, const char *column);

/* Its type, that of its domain where it has one; invalid for no column. */
extern Oid column_type(Oid table, const char *column);

/* The column of that name, or of its snake_case form; NULL for none. */
extern const char *column_for(Oid table, const char *key);

/* The column that has sentCount; NULL where it is a key of data. */
extern const char *count_column(Oid table);

/* As quote_qualified_identifier has it; and as people write it. */
extern char *table_name(Oid table);
extern char *table_title(Oid table);

/*
 * The text of one of the application's values: a column of that name, else a
 * key of data.
 */
extern char *value_expression(Oid table, const char *alias, const char *key);

/* As value_expression, for people to read. */
extern char *text_expression(Oid table, const char *alias, const char *key);

/*
 * All of it, in up to four bytes for each of so many characters; where it has
 * more bytes, words for that, in one more character than there may be.
 */
extern char *value_or_too_long(const char *value, int most);

/*
 * Is this, of type json, what ->> does not throw for?  "json" takes escapes
 * that stand for no character.
 */
extern char *readable_json(const char *json);

/* The text that a key of a json or jsonb expression has. */
extern char *json_value(const char *json, const char *key);

/* Is the row marked as deleted? */
extern char *deleted_expression(Oid table, const char *alias);

/* The columns that deleted_expression reads, as a List of char *. */
extern List *deleted_columns(Oid table);

/* The group's configuration, a jsonb. */
extern char *configuration_expression(Oid groups, const char *alias);

/* May the current role use it? */
extern bool may_use_column(Oid table, const char *column, AclMode mode);

/* Is it a list user of the list that the parameter names? */
extern char *in_list_condition(Oid list_users, const char *alias, int parameter);

/*
 * Is it the list user that the list had by this id?  One that is in another
 * list by now is, if no other can have its id.
 */
extern char *same_user_condition(Oid list_users, const char *alias, int parameter);

/* What SET does to count one more message; the row is u. */
extern char *count_clause(Oid list_users);

/* ", data = ..." with the counts of a parameter merged in; the row is j. */
extern char *data_clause(Oid jobs, int parameter);

/* ", updated_at = now()" where there is such a column and a right to it. */
extern char *touch_clause(Oid table);

/* The columns that say when a row was made or changed, as char *. */
extern List *time_columns(Oid table, bool created);

#endif /* SENDCAMPAIGN_COLUMNS_H */
