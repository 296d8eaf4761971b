/*-------------------------------------------------------------------------
 *
 * new_rows.h
 *	  Rows that calls insert into the application's tables: lists, their users,
 *	  campaigns.
 *
 * A value is written where it is read: into the column of its name or of its
 * snake_case form, or else into that key of "data" (see columns.h).  Times that
 * Sequelize sets itself are set here, too.  SPI must be connected, and all
 * functions run with the rights of the current role, and throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_NEW_ROWS_H
#define SENDCAMPAIGN_NEW_ROWS_H

#include "database/app_tables.h"
#include "lib/stringinfo.h"

/* The most parameters of such a statement. */
#define MAX_NEW_VALUES 12

/* A row in the making; or many, if a value is an expression over what they are made from. */
typedef struct NewRow
{
	Oid			   table;
	List		  *set; /* char *, the columns that have a value */
	StringInfoData columns;
	StringInfoData values;
	StringInfoData data; /* jsonb expressions for "data", merged in their order */
	int			   num_params;
	Oid			   types[MAX_NEW_VALUES];
	Datum		   params[MAX_NEW_VALUES];
} NewRow;

/* Further columns that a caller has given, as a jsonb; or none. */
typedef struct FurtherColumns
{
	bool  given;
	Datum columns;
	List *names;	/* char *, its keys */
	List *used;		/* char *, those that some table had */
	bool  for_some; /* true if each is only meant for the tables that have it */
} FurtherColumns;

/* Begins a row of this table. */
extern void new_row_begin(NewRow *row, Oid table);

/* Adds a parameter of the statement, and returns its number. */
extern int new_row_param(NewRow *row, Oid type, Datum value);

/* Sets a value to an SQL expression of a type that casts to that of its column. */
extern void new_row_set(NewRow *row, const char *key, const char *expression);

/* Does the same with a parameter; does nothing for NULL. */
extern void new_row_set_text(NewRow *row, const char *key, const char *value);
extern void new_row_set_int64(NewRow *row, const char *key, int64 value);

/* Sets a column to a value of a JSON object (an SQL expression), cast to its type. */
extern void new_row_set_from_json(NewRow *row, const char *column, const char *json,
								  const char *key);

/* Tells whether the row has a value for this column. */
extern bool new_row_has(const NewRow *row, const char *column);

/* Checks what the caller has given, and finds its keys. */
extern void further_columns_read(FurtherColumns *further);

/* Sets them; throws if the table does not have one of them, unless "for_some" is set. */
extern void new_row_set_further(NewRow *row, FurtherColumns *further);

/* If "for_some" is set, throws if no table has had one of them. */
extern void further_columns_check_used(const FurtherColumns *further);

/*
 * Inserts the row, and returns its id, having checked that there is such a row
 * and that its reference (a column) leads where it should.
 */
extern int64 new_row_insert(const AppTables *tables, NewRow *row, const char *reference,
							int64 target);

/* Inserts a row for each of those that "from" (SQL) gives; returns their number. */
extern uint64 new_rows_insert(const AppTables *tables, NewRow *row, const char *from);

/* Throws if the current role can see no such group. */
extern void check_group(const AppTables *tables, int64 group_id);

/* Does the same for a list, or if it is deleted. */
extern void check_list(const AppTables *tables, int64 list_id);

/* Keeps others that do the same from adding users to the list, to the end of the transaction. */
extern void lock_list(const AppTables *tables, int64 list_id);

#endif /* SENDCAMPAIGN_NEW_ROWS_H */
