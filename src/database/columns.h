/*-------------------------------------------------------------------------
 *
 * columns.h
 *	  Columns of the application's tables, and the parts of statements that are
 *	  made from them.
 *
 * Expressions are palloc'd.  Every operator, function, type and collation in
 * them is PostgreSQL's own, whatever else the search path contains.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_COLUMNS_H
#define SENDCAMPAIGN_COLUMNS_H

#include "nodes/parsenodes.h"

/* Tells whether the table has the column; system columns do not count. */
extern bool has_column(Oid table, const char *column);

/*
 * Returns the column's type, or the base type of its domain; InvalidOid if
 * there is no such column.
 */
extern Oid column_type(Oid table, const char *column);

/* Returns the column with this name or its snake_case form, or NULL. */
extern const char *column_for(Oid table, const char *key);

/* Returns the column that holds sentCount; NULL if it is a key of data. */
extern const char *count_column(Oid table);

/*
 * Return the table's qualified name, for SQL (quoted) and for people.  Both
 * throw if the table has been dropped.
 */
extern char *table_name(Oid table);
extern char *table_title(Oid table);

/*
 * Returns the text of one of the application's values: of the column with that
 * name, or else of that key of data.
 */
extern char *value_expression(Oid table, const char *alias, const char *key);

/*
 * Returns the same as jsonb, whatever the column's type is: a text that is not
 * JSON becomes a string, and an array an array.
 */
extern char *json_expression(Oid table, const char *alias, const char *key);

/* Does the same for a value that is shown to people: arrays, objects and rows are null. */
extern char *text_expression(Oid table, const char *alias, const char *key);

/*
 * Returns the whole value if it has at most 4 * most bytes; otherwise a text
 * that says so, of most + 1 characters, which is more than allowed.
 */
extern char *value_or_too_long(const char *value, int most);

/*
 * Tells whether ->> can read this value of type json without an error.  The
 * type accepts escapes that stand for no character.
 */
extern char *readable_json(const char *json);

/* Returns the text of a key of a json or jsonb expression. */
extern char *json_value(const char *json, const char *key);

/* Tells whether the row is marked as deleted. */
extern char *deleted_expression(Oid table, const char *alias);

/* Returns the columns that deleted_expression() reads, as a List of char *. */
extern List *deleted_columns(Oid table);

/* Returns the group's configuration, a jsonb. */
extern char *configuration_expression(Oid groups, const char *alias);

/* Tells whether the current role has this privilege on the table or the column. */
extern bool may_use_column(Oid table, const char *column, AclMode mode);

/*
 * Tells whether an INSERT or UPDATE may name the column: in a view, an
 * expression is not updatable, and a generated column nowhere.
 */
extern bool can_write_column(Oid table, const char *column, CmdType command);

/* Tells whether the row is a list user of this list (an SQL expression). */
extern char *in_list_condition(Oid list_users, const char *alias, const char *list);

/*
 * Tells whether the row is the user that the list had under this id.  A user
 * who has moved to another list qualifies only if the id is known to be
 * unique.
 */
extern char *same_user_condition(Oid list_users, const char *alias, const char *list);

/* Tells whether at most one row of this table, which is no view, has a given id. */
extern bool id_is_unique(Oid table);

/*
 * Returns the part of SET that adds one to a count, such as "sentCount"; the row's
 * alias is u.
 */
extern char *count_clause(Oid list_users, const char *count);

/*
 * Returns "column = ..." with more (an SQL expression, jsonb) merged into a
 * column of type json or jsonb, and less (the rest of one) taken off before; the
 * row's alias is j.  What is no object is replaced, but json that cannot be read
 * is left alone.
 */
extern char *merge_clause(Oid table, const char *column, const char *less, const char *more);

/* Returns ", data = ..." with counts (an SQL expression) merged in; the row's alias is j. */
extern char *data_clause(Oid jobs, const char *counts);

/*
 * Returns an SQL condition: the row's data do not say all that the clause above
 * would write.  Of data of type json, that is not known.
 */
extern char *data_lack(Oid jobs, const char *alias, const char *counts);

/* Returns ", updated_at = now()" if the column exists and may be written. */
extern char *touch_clause(Oid table);

/*
 * Returns the columns that say when a row was created or updated, as char *;
 * without those that such a command cannot write.
 */
extern List *time_columns(Oid table, bool created, CmdType command);

#endif /* SENDCAMPAIGN_COLUMNS_H */
