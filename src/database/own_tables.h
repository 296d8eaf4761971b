/*-------------------------------------------------------------------------
 *
 * own_tables.h
 *	  The extension and its own tables.
 *
 * The role that a process works for has no rights on them.  Statements on
 * them, and nothing else, run as the extension's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_OWN_TABLES_H
#define SENDCAMPAIGN_OWN_TABLES_H

#include "database/spi.h"

#define OWN_MAX_ARGS 15

/*
 * SQL: a join of a table with what is looked up in it, by an index on the column.
 * With "=", a plan that was made while the table was empty may go through the
 * whole table and look for each row among what is looked up.
 */
#define IS_ROW_OF(column, value) column " = ANY (ARRAY[" value "])"

/* A statement and its plan, which is made at first use and kept. */
typedef struct OwnStatement
{
	const char *sql; /* names are qualified; parameters are $1... */
	int			nargs;
	Oid			types[OWN_MAX_ARGS];
	SPIPlanPtr	plan;
} OwnStatement;

/*
 * Runs a statement on the extension's tables as its owner, with a safe
 * search_path.  SPI must be connected; results are in SPI_tuptable.  nulls is
 * as for SPI_execute_plan(), or NULL.  Returns the number of rows; throws.
 */
extern uint64 own_execute(OwnStatement *statement, Datum *values, const char *nulls);

/* Does the same for a statement that is used rarely: no plan is kept. */
extern uint64 own_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);

/* Like own_query(), for a statement that only reads, and sees what the calling statement sees. */
extern uint64 own_read(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);

/* Like own_query(), for a statement whose only parameter is an id (bigint). */
extern uint64 own_query_by_id(const char *sql, int64 id);

/*
 * Makes plans use an index if there is one, to the end of the current nest
 * level of settings.  A kept plan must not read a whole table each time only
 * because that was small when the plan was made.
 */
extern void plan_by_index(void);

/*
 * Locks the extension against being dropped or altered, to the end of the
 * transaction.  Returns its OID, or InvalidOid if it does not exist.
 */
extern Oid own_lock_extension(void);

#endif /* SENDCAMPAIGN_OWN_TABLES_H */
