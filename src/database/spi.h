/*-------------------------------------------------------------------------
 *
 * spi.h
 *	  Calls of SPI: errors are thrown, and memory contexts stay the caller's.
 *
 * SPI's own functions leave their caller in SPI's memory context.  These go
 * back to the one that they were called in, so results that are read after
 * them are palloc'd where the caller wants them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SPI_H
#define SENDCAMPAIGN_SPI_H

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "utils/array.h"

/* A statement and what it is called with. */
typedef struct SpiCall
{
	int			nargs;
	Oid		   *types;
	Datum	   *values;
	const char *nulls;	   /* as for SPI_execute_plan, or NULL */
	bool		read_only; /* takes the active snapshot, instead of a new one */
	long		limit;	   /* of rows; 0: none */
} SpiCall;

/*
 * These return the number of rows, which are in SPI_tuptable until the next
 * call, and throw.  SPI must be connected.
 */
extern uint64 spi_query(const char *sql, const SpiCall *call);
extern uint64 spi_execute(SPIPlanPtr plan, Datum *values, const char *nulls, long limit);
extern uint64 spi_fetch(Portal portal, int most);

/* A plan that is kept, of a statement planned once for all values.  Throws. */
extern SPIPlanPtr spi_prepare(const char *sql, int nargs, Oid *types);

/* A cursor over the rows that the active snapshot sees. */
extern Portal spi_open(const char *sql, int nargs, Oid *types, Datum *values);

/* SPI_connect() and SPI_finish(), which throw; the first one changes the memory context. */
extern void spi_connect(void);
extern void spi_finish(void);

/*
 * Columns of SPI_tuptable, counted from 1, for whoever has made the call: what
 * other functions need is given to them as a value.  NULL or 0 for an SQL null.
 */
extern char		  *spi_string(uint64 row, int column);
extern int64	   spi_int64(uint64 row, int column);
extern int32	   spi_int32(uint64 row, int column);
extern TimestampTz spi_timestamptz(uint64 row, int column);
extern bool		   spi_bool(uint64 row, int column);
extern bool		   spi_isnull(uint64 row, int column);

/* Likewise of arrays: a palloc'd copy, and the texts in one. */
extern ArrayType *spi_array(uint64 row, int column);
extern char		**spi_strings(uint64 row, int column, int *count);			/* nulls left out */
extern char		**spi_nullable_strings(uint64 row, int column, int *count); /* with NULL for them */

/* A one-dimensional array of int4, int8, bool, oid or text; nulls may be NULL. */
extern Datum make_array(Datum *values, bool *nulls, int count, Oid type);
extern Datum make_text_array(char *const *values, int count);

/* The elements of a bigint[] without nulls, palloc'd. */
extern Datum *ids_of_array(ArrayType *array, int *count);

/* For qsort and bsearch, of such elements. */
extern int compare_ids(const void *a, const void *b);

/* A text, or the Datum that stands for a null where there is none. */
extern Datum optional_text(const char *value);

/* Throws where an SPI call did not give what it should. */
extern void spi_check(int result, int expected, const char *what);

#endif /* SENDCAMPAIGN_SPI_H */
