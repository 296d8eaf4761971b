/*-------------------------------------------------------------------------
 *
 * list_query.c
 *	  A query that selects recipients.
 *
 * Somebody has written it, and it runs as the role that sends, in a process of
 * ours.  So it must be one SELECT, the transaction is read-only meanwhile,
 * whatever the functions do that it calls, and the search path is fixed: names
 * in the query mean the same whoever calls, and nobody can put another function
 * in front of the one that is meant.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/list_query.h"
#include "database/spi.h"
#include "database/time_limit.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

/* Rows fetched at once. */
#define FETCH_SIZE 1000

struct ListQuery
{
	SPIPlanPtr plan;
	Oid		   type; /* of the first column, one of the integers */
};

/* What is different while code of the query runs. */
typedef struct QueryScope
{
	bool read_only;
	bool limits_time; /* false if a query around this one has a limit already */
	Oid	 user;
	int	 security;
	int	 guc_level;
} QueryScope;

/*
 * After an error, the abort of the (sub)transaction restores what this changes.
 * The role's own code cannot leave the restrictions: in a transaction that has
 * a snapshot, nothing makes it writable again.
 */
static void
enter(QueryScope *scope)
{
	scope->read_only = XactReadOnly;
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&scope->user, &scope->security);
	SetUserIdAndSecContext(scope->user, scope->security | SECURITY_LOCAL_USERID_CHANGE |
											SECURITY_RESTRICTED_OPERATION);
	XactReadOnly = true;
	scope->limits_time = time_limit_start((int64) (sendcampaign_query_timeout * 1000));
}

static void
leave(const QueryScope *scope)
{
	if (scope->limits_time)
		time_limit_end();
	AtEOXact_GUC(false, scope->guc_level);
	XactReadOnly = scope->read_only;
	SetUserIdAndSecContext(scope->user, scope->security);
}

/*
 * Codes by which others would take the error for one that passes are replaced:
 * a query that wants to write will always want to.
 */
static int
code_of(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_READ_ONLY_SQL_TRANSACTION ? ERRCODE_INVALID_PARAMETER_VALUE
																  : error->sqlerrcode;
}

static const char *
hint_of(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_OBJECT:
			return "Names in the query need their schema, unless they are PostgreSQL's own, as in"
				   " public.ac_list_users.";
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			return "The query, and the functions that it calls, may only read.";
		default:
			return error->hint;
	}
}

pg_noreturn static void throw_error(ErrorData *error);

static void
throw_error(ErrorData *error)
{
	bool is_cancelled = error->sqlerrcode == ERRCODE_QUERY_CANCELED;

	if (time_limit_was_reached() && is_cancelled)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the query that selects the recipients took longer than %g s",
						sendcampaign_query_timeout),
				 errhint("Make it faster, or raise \"sendcampaign.query_timeout\".")));
	if (is_cancelled)
		ReThrowError(error);
	ereport(ERROR,
			(errcode(code_of(error)),
			 errmsg("could not select the recipients: %s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 hint_of(error) ? errhint("%s", hint_of(error)) : 0));
}

/* Calls a function that runs code of the query. */
static void
in_scope(void (*function)(void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	QueryScope	  scope;

	enter(&scope);
	PG_TRY();
	{
		function(arg);
	}
	PG_CATCH();
	{
		ErrorData *error;

		if (scope.limits_time)
			time_limit_end();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		throw_error(error);
	}
	PG_END_TRY();
	leave(&scope);
	MemoryContextSwitchTo(context); /* SPI leaves us in its own */
}

pg_noreturn static void fail_no_select(void);

static void
fail_no_select(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("recipients must be one SELECT statement that only reads"),
			 errhint("Write a query whose first column has ids of list users, such as SELECT u.id"
					 " FROM public.ac_list_users u WHERE ...")));
}

static void
check_length(const char *sql)
{
	if (strlen(sql) > MAX_LIST_QUERY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the query in recipients has more than %d bytes", MAX_LIST_QUERY),
				 errhint("Put the query into a view, and select from that.")));
}

/* What prepare() gets, and makes. */
typedef struct Preparing
{
	const char *sql;
	SPIPlanPtr	plan;
	bool		is_select;
} Preparing;

static bool
is_one_select(const char *sql)
{
	List *statements = raw_parser(sql, RAW_PARSE_DEFAULT);

	return list_length(statements) == 1 &&
		   IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt);
}

/* Neither INTO, nor FOR UPDATE, nor WITH that writes. */
static bool
only_reads(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	Query			 *query = linitial_node(Query, source->query_list);

	return list_length(source->query_list) == 1 && query->commandType == CMD_SELECT &&
		   !query->hasModifyingCTE && query->rowMarks == NIL;
}

/* Making the plan locks what it uses. */
static void
prepare(void *arg)
{
	Preparing *preparing = arg;

	if (!is_one_select(preparing->sql))
		return;
	preparing->plan = SPI_prepare_cursor(preparing->sql, 0, NULL, CURSOR_OPT_NO_SCROLL);
	if (preparing->plan == NULL)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	preparing->is_select = SPI_is_cursor_plan(preparing->plan) && only_reads(preparing->plan);
	if (preparing->is_select)
		ReleaseCachedPlan(SPI_plan_get_cached_plan(preparing->plan), NULL);
}

/* Returns the type of the first column. */
static Oid
check_first_column(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	TupleDesc		  columns = source->resultDesc;
	Oid				  type = InvalidOid;

	if (columns && columns->natts > 0)
		type = getBaseType(TupleDescAttr(columns, 0)->atttypid);
	if (type != INT2OID && type != INT4OID && type != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the first column of recipients is no integer"),
				 errdetail("It must have ids of list users."),
				 errhint("Select the ids first, and cast them to bigint if they have another"
						 " type.")));
	return type;
}

ListQuery *
list_query_prepare(const char *sql)
{
	ListQuery *query = palloc0(sizeof(ListQuery));
	Preparing  preparing = {sql};

	check_length(sql);
	in_scope(prepare, &preparing);
	if (!preparing.is_select)
		fail_no_select();
	query->plan = preparing.plan;
	query->type = check_first_column(preparing.plan);
	return query;
}

/* That a cursor opens shows that the role may read what the query reads. */
static void
open_and_close(void *arg)
{
	ListQuery *query = arg;

	SPI_cursor_close(SPI_cursor_open(NULL, query->plan, NULL, NULL, true));
}

void
list_query_check(const char *sql)
{
	in_scope(open_and_close, list_query_prepare(sql));
}

static int64
integer_of(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

/* What read_all() gets. */
typedef struct Reading
{
	const ListQuery	 *query;
	ListQueryFunction function;
	void			 *arg;
} Reading;

static void
pass_on_rows(const Reading *reading, uint64 count)
{
	for (uint64 i = 0; i < count; i++)
	{
		bool  isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			reading->function(reading->arg, integer_of(value, reading->query->type));
	}
}

static void
read_all(void *arg)
{
	const Reading *reading = arg;
	Portal		   portal = SPI_cursor_open(NULL, reading->query->plan, NULL, NULL, true);
	uint64		   count;

	do
	{
		count = spi_fetch(portal, FETCH_SIZE);
		pass_on_rows(reading, count);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	} while (count > 0);
	SPI_cursor_close(portal);
}

void
list_query_read(ListQuery *query, ListQueryFunction function, void *arg)
{
	Reading reading = {query, function, arg};

	in_scope(read_all, &reading);
}
