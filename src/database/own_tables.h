/*-------------------------------------------------------------------------
 *
 * own_tables.h
 *	  The extension and its own tables.
 *
 * The role a process works for has no rights on them; statements on them,
 * and nothing else, run as the extension's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_OWN_TABLES_H
#define SENDCAMPAIGN_OWN_TABLES_H

#include "database/spi.h"

#define OWN_MAX_ARGS 12

/* A statement with its plan, which is made at the first use and kept. */
typedef struct OwnStatement
{
	const char *sql; /* names qualified, parameters $1... */
	int			nargs;
	Oid			types[OWN_MAX_ARGS];
	SPIPlanPtr	plan;
} OwnStatement;

/*
 * Runs a statement on the extension's tables as its owner, with a safe
 * search_path.  SPI must be connected; results are in SPI_tuptable.  nulls
 * as for SPI_execute_plan, or NULL.  Returns the number of rows; throws.
 */
extern uint64 own_execute(OwnStatement *statement, Datum *values, const char *nulls);

/* As own_execute, for a statement used once in a while: no plan is kept. */
extern uint64 own_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);

/* As own_query, for a statement whose one parameter is an id, bigint. */
extern uint64 own_query_by_id(const char *sql, int64 id);

/*
 * To the end of the current nest level of settings, plans use an index where
 * there is one: a plan that is kept must not read a whole table each time,
 * only as that was small when it was made.
 */
extern void plan_by_index(void);

/*
 * Locks the extension against being dropped or altered, to the end of the
 * transaction; returns its OID, invalid where it does not exist.
 */
extern Oid own_lock_extension(void);

#endif /* SENDCAMPAIGN_OWN_TABLES_H */
