/*-------------------------------------------------------------------------
 *
 * own.c
 *	  The extension and its own tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "own.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* To restore what become_owner changed. */
typedef struct OwnerScope
{
	Oid user;
	int security;
	int guc_level;
} OwnerScope;

static Oid
extension_owner(void)
{
	Oid			extension = get_extension_oid("sendcampaign", false);
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"sendcampaign\" does not exist"),
						errhint("Create it with CREATE EXTENSION sendcampaign.")));
	return owner;
}

void
plan_by_index(void)
{
	static const char *const methods[] = {"enable_seqscan", "enable_hashjoin", "enable_mergejoin"};

	for (int i = 0; i < lengthof(methods); i++)
		(void) set_config_option(methods[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/* An error in between is fine: the (sub)transaction's abort undoes this. */
static void
become_owner(OwnerScope *scope)
{
	GetUserIdAndSecContext(&scope->user, &scope->security);
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(extension_owner(), scope->security | SECURITY_LOCAL_USERID_CHANGE |
												  SECURITY_RESTRICTED_OPERATION);
}

static void
become_caller(const OwnerScope *scope)
{
	SetUserIdAndSecContext(scope->user, scope->security);
	AtEOXact_GUC(true, scope->guc_level);
}

uint64
own_execute(OwnStatement *statement, Datum *values, const char *nulls)
{
	OwnerScope scope;
	int		   result;

	become_owner(&scope);
	if (statement->plan == NULL)
	{
		SPIPlanPtr plan;

		plan_by_index();
		plan = SPI_prepare_cursor(statement->sql, statement->nargs, statement->types,
								  CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		statement->plan = plan;
	}
	result = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	become_caller(&scope);
	return SPI_processed;
}

uint64
own_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	OwnerScope scope;
	int		   result;

	become_owner(&scope);
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	become_caller(&scope);
	return SPI_processed;
}

Oid
own_lock_extension(void)
{
	Oid extension = get_extension_oid("sendcampaign", true);

	if (!OidIsValid(extension))
		return InvalidOid;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	return get_extension_oid("sendcampaign", true) == extension ? extension : InvalidOid;
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
