/*-------------------------------------------------------------------------
 *
 * spi.c
 *	  Calls of SPI: errors are thrown, and the memory context stays the
 *	  caller's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/spi.h"
#include "nodes/plannodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

static uint64
check_result(int result)
{
	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	return SPI_processed;
}

uint64
spi_query(const char *sql, const SpiCall *call)
{
	MemoryContext context = CurrentMemoryContext;
	int result = SPI_execute_with_args(sql, call->nargs, call->types, call->values, call->nulls,
									   call->read_only, call->limit);

	MemoryContextSwitchTo(context);
	return check_result(result);
}

uint64
spi_execute(SPIPlanPtr plan, Datum *values, const char *nulls, long limit)
{
	MemoryContext context = CurrentMemoryContext;
	int			  result = SPI_execute_plan(plan, values, nulls, false, limit);

	MemoryContextSwitchTo(context);
	return check_result(result);
}

uint64
spi_execute_read_only(SPIPlanPtr plan, Datum *values, long limit)
{
	MemoryContext context = CurrentMemoryContext;
	int			  result = SPI_execute_plan(plan, values, NULL, true, limit);

	MemoryContextSwitchTo(context);
	return check_result(result);
}

uint64
spi_fetch(Portal portal, int most)
{
	MemoryContext context = CurrentMemoryContext;

	SPI_cursor_fetch(portal, true, most);
	MemoryContextSwitchTo(context);
	return SPI_processed;
}

SPIPlanPtr
spi_prepare(const char *sql, int nargs, Oid *types)
{
	MemoryContext context = CurrentMemoryContext;
	SPIPlanPtr	  plan = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	MemoryContextSwitchTo(context);
	return plan;
}

Portal
spi_open(const char *sql, int nargs, Oid *types, Datum *values)
{
	MemoryContext context = CurrentMemoryContext;
	Portal		  portal = SPI_cursor_open_with_args(NULL, sql, nargs, types, values, NULL, true,
													 CURSOR_OPT_NO_SCROLL);

	MemoryContextSwitchTo(context);
	return portal;
}

double
spi_portal_cost(Portal portal)
{
	return PortalGetPrimaryStmt(portal)->planTree->total_cost;
}

void
spi_connect(void)
{
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
}

void
spi_finish(void)
{
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
}

char *
spi_string(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static Datum
spi_datum(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

int64
spi_int64(uint64 row, int column)
{
	bool  isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT8OID);
	return isnull ? 0 : DatumGetInt64(value);
}

int32
spi_int32(uint64 row, int column)
{
	bool  isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT4OID);
	return isnull ? 0 : DatumGetInt32(value);
}

TimestampTz
spi_timestamptz(uint64 row, int column)
{
	bool  isnull;
	Datum value = spi_datum(row, column, &isnull);

	Assert(SPI_gettypeid(SPI_tuptable->tupdesc, column) == TIMESTAMPTZOID);
	return isnull ? 0 : DatumGetTimestampTz(value);
}

bool
spi_bool(uint64 row, int column)
{
	bool  isnull;
	Datum value = spi_datum(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

char **
spi_nullable_strings(uint64 row, int column, int *count)
{
	bool   isnull;
	Datum  array = spi_datum(row, column, &isnull);
	Datum *values;
	bool  *nulls;
	char **strings;

	*count = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls,
					  count);
	strings = palloc(Max(*count, 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
		strings[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
	return strings;
}

char **
spi_strings(uint64 row, int column, int *count)
{
	int	   all;
	char **strings = spi_nullable_strings(row, column, &all);

	*count = 0;
	for (int i = 0; i < all; i++)
	{
		if (strings[i])
			strings[(*count)++] = strings[i];
	}
	return strings;
}

ArrayType *
spi_array(uint64 row, int column)
{
	bool  isnull;
	Datum value = spi_datum(row, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

bool
spi_isnull(uint64 row, int column)
{
	bool isnull;

	(void) spi_datum(row, column, &isnull);
	return isnull;
}

Datum
make_array(Datum *values, bool *nulls, int count, Oid type)
{
	int	  lower_bound = 1;
	int16 length;
	bool  by_value;
	char  align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(
		construct_md_array(values, nulls, 1, &count, &lower_bound, type, length, by_value, align));
}

Datum
make_text_array(char *const *values, int count)
{
	Datum *texts = palloc(Max(count, 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		texts[i] = CStringGetTextDatum(values[i]);
	return make_array(texts, NULL, count, TEXTOID);
}

Datum
array_of_ids(const int64 *ids, int count)
{
	Datum *values = palloc(Max(count, 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		values[i] = Int64GetDatum(ids[i]);
	return make_array(values, NULL, count, INT8OID);
}

Datum *
ids_of_array(ArrayType *array, int *count)
{
	Datum *ids;

	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, NULL,
					  count);
	return ids;
}

int
compare_ids(const void *a, const void *b)
{
	int64 x = DatumGetInt64(*(const Datum *) a);
	int64 y = DatumGetInt64(*(const Datum *) b);

	return x < y ? -1 : x > y;
}

Datum
optional_text(const char *value)
{
	return value ? CStringGetTextDatum(value) : (Datum) 0;
}

void
spi_check(int result, int expected, const char *what)
{
	if (result != expected)
		elog(ERROR, "%s: %s", what, SPI_result_code_string(result));
}
