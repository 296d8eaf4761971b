/*-------------------------------------------------------------------------
 *
 * spi.h
 *	  Calls of SPI: errors are thrown, and the memory context stays the
 *	  caller's.
 *
 * SPI's own functions leave their caller in SPI's memory context.  These
 * switch back to the one in which they were called, so that results that are
 * read afterwards are palloc'd where the caller wants them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SPI_H
#define SENDCAMPAIGN_SPI_H

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "utils/array.h"

/* A statement and its arguments. */
typedef struct SpiCall
{
	int			nargs;
	Oid		   *types;
	Datum	   *values;
	const char *nulls;	   /* as for SPI_execute_plan(), or NULL */
	bool		read_only; /* uses the active snapshot instead of a new one */
	long		limit;	   /* in rows; 0: none */
} SpiCall;

/*
 * These return the number of rows, which are in SPI_tuptable until the next
 * call, and throw.  SPI must be connected.
 */
extern uint64 spi_query(const char *sql, const SpiCall *call);
extern uint64 spi_execute(SPIPlanPtr plan, Datum *values, const char *nulls, long limit);
extern uint64 spi_execute_read_only(SPIPlanPtr plan, Datum *values,
									long limit); /* uses the active snapshot */
extern uint64 spi_fetch(Portal portal, int most);

/* Prepares a statement, and keeps its plan, which is the same for all values.  Throws. */
extern SPIPlanPtr spi_prepare(const char *sql, int nargs, Oid *types);

/* Opens a cursor over the rows that the active snapshot sees.  Throws. */
extern Portal spi_open(const char *sql, int nargs, Oid *types, Datum *values);

/* Returns the cost of executing it, as estimated by the planner. */
extern double spi_portal_cost(Portal portal);

/*
 * SPI_connect() and SPI_finish(), but throwing errors.  The first one changes
 * the memory context, and the second one restores it.
 */
extern void spi_connect(void);
extern void spi_finish(void);

/*
 * Columns of SPI_tuptable, counted from 1; rows are counted from 0.  Only for
 * the function that made the call, which passes values on to others.  NULL or
 * 0 for an SQL null.
 */
extern char		  *spi_string(uint64 row, int column);
extern int64	   spi_int64(uint64 row, int column);
extern int32	   spi_int32(uint64 row, int column);
extern TimestampTz spi_timestamptz(uint64 row, int column);
extern bool		   spi_bool(uint64 row, int column);
extern bool		   spi_isnull(uint64 row, int column);

/* The same for arrays: return a palloc'd copy, or its texts, palloc'd. */
extern ArrayType *spi_array(uint64 row, int column);
extern char		**spi_strings(uint64 row, int column, int *count);			/* without nulls */
extern char		**spi_nullable_strings(uint64 row, int column, int *count); /* nulls are NULL */

/* Make a one-dimensional array of int4, int8, bool, oid or text, palloc'd; nulls may be NULL. */
extern Datum make_array(Datum *values, bool *nulls, int count, Oid type);
extern Datum make_text_array(char *const *values, int count);

/* Returns a bigint[], palloc'd. */
extern Datum array_of_ids(const int64 *ids, int count);

/* Returns the elements of a bigint[] without nulls, palloc'd. */
extern Datum *ids_of_array(ArrayType *array, int *count);

/* For qsort() and bsearch() on such elements. */
extern int compare_ids(const void *a, const void *b);

/* Returns the value as a text; for NULL, a Datum of 0, to be marked as null. */
extern Datum optional_text(const char *value);

/* Throws unless an SPI call returned what is expected. */
extern void spi_check(int result, int expected, const char *what);

#endif /* SENDCAMPAIGN_SPI_H */
