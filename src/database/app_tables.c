/*-------------------------------------------------------------------------
 *
 * app_tables.c
 *	  The application's tables, and all SQL on them.
 *
 * Sequelize creates them, with or without separate columns for what is
 * otherwise a key of "data", so the statements are assembled from the columns
 * that exist.
 *
 * Statements that take ids are planned with sequential scans off and with
 * generic plans: a plan made while a table was small, or before its first
 * ANALYZE, must not read a million rows for each batch later on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/citus.h"
#include "database/columns.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "database/trust.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * SQL: the rest of a condition that joins a table with what is looked up in it.
 * As IS_ROW_OF() does, it keeps to the index, even in a plan that was made while
 * the table was empty.
 */
#define IS_AMONG(value) " OPERATOR(pg_catalog.=) ANY (ARRAY[" value "])"

/* The most shared tables that are kept with their plans while nobody uses them. */
#define MAX_UNUSED 16

/* Tables that are shared, or may be (see tables_share()). */
static List *shared_tables = NIL;

static Oid
find_table(const char *schema, Oid namespace, const char *name)
{
	Oid table = get_relname_relid(name, namespace);

	if (!OidIsValid(table))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.%s\" does not exist", schema, name),
				 errdetail("The setting \"sendcampaign.schema\" says where the application's"
						   " tables are."),
				 errhint("Set \"sendcampaign.schema\" to their schema, or create the tables with"
						 " SELECT sendcampaign.create_tables(%s).",
						 quote_literal_cstr(schema))));
	return table;
}

static Oid
find_schema(const char *schema)
{
	Oid namespace = get_namespace_oid(schema, true);

	if (!OidIsValid(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema \"%s\" does not exist", schema),
				 errdetail("The setting \"sendcampaign.schema\" says where the application's"
						   " tables are."),
				 errhint("Set \"sendcampaign.schema\" to their schema, or create the schema, and the"
						 " tables with sendcampaign.create_tables().")));
	return namespace;
}

AppTables *
tables_open(const char *schema)
{
	AppTables *tables = palloc0(sizeof(AppTables));
	Oid namespace = find_schema(schema);

	tables->schema = pstrdup(schema);
	tables->groups = find_table(schema, namespace, "groups");
	tables->lists = find_table(schema, namespace, "ac_lists");
	tables->campaigns = find_table(schema, namespace, "ac_campaigns");
	tables->list_users = find_table(schema, namespace, "ac_list_users");
	tables->jobs = find_table(schema, namespace, "ac_background_jobs");
	return tables;
}

static void
free_plan(SPIPlanPtr *plan)
{
	if (*plan)
		SPI_freeplan(*plan);
	*plan = NULL;
}

static void
free_recipients_plan(RecipientsPlan *plan)
{
	free_plan(&plan->plan);
	list_free_deep(plan->keys);
	plan->keys = NIL;
}

static void
free_plans(AppTables *tables)
{
	for (int i = 0; i < MAX_RECIPIENTS_PLANS; i++)
		free_recipients_plan(&tables->read_recipients[i]);
	free_plan(&tables->read_campaigns);
	free_plan(&tables->read_lists);
	free_plan(&tables->read_groups);
	free_plan(&tables->read_group_by_id);
	free_plan(&tables->count_sent);
	free_plan(&tables->lock_recipients);
	free_plan(&tables->report_progress);
	free_plan(&tables->report_end);
}

/* Keeps tables that are used, and of the others the latest. */
static void
free_unused(void)
{
	int unused = 0;

	for (int i = list_length(shared_tables) - 1; i >= 0; i--)
	{
		AppTables *tables = list_nth(shared_tables, i);

		if (tables->shares > 0 || (!tables->stale && unused++ < MAX_UNUSED))
			continue;
		shared_tables = list_delete_nth_cell(shared_tables, i);
		free_plans(tables);
		MemoryContextDelete(tables->context);
	}
}

void
tables_close(AppTables *tables)
{
	if (tables->context == NULL)
	{
		free_plans(tables);
		return;
	}
	tables->shares--;
	free_unused();
}

static void
list_tables(const AppTables *tables, Oid *oids)
{
	oids[0] = tables->groups;
	oids[1] = tables->lists;
	oids[2] = tables->campaigns;
	oids[3] = tables->list_users;
	oids[4] = tables->jobs;
}

void
tables_check_trust(const AppTables *tables, Oid role)
{
	Oid oids[NUM_TABLES];

	list_tables(tables, oids);
	check_code_is_trusted(role, oids, NUM_TABLES, tables->schema);
}

bool
tables_find_foreign_code(const AppTables *tables, Oid role, ForeignCode *found)
{
	Oid oids[NUM_TABLES];

	list_tables(tables, oids);
	return find_foreign_code(role, oids, NUM_TABLES, found);
}

Oid
tables_owner(const AppTables *tables)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(tables->list_users));
	Oid		  owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", tables->list_users);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * What the statements say depends on the tables' columns and indexes, and on the
 * role's rights on columns.
 */
static void
make_stale(Datum arg, Oid relation)
{
	ListCell *lc;

	foreach (lc, shared_tables)
	{
		AppTables *tables = lfirst(lc);

		if (!OidIsValid(relation) || relation == tables->groups || relation == tables->lists ||
			relation == tables->campaigns || relation == tables->list_users ||
			relation == tables->jobs)
			tables->stale = true;
	}
}

static void
make_all_stale(Datum arg, int cacheid, uint32 hashvalue)
{
	make_stale(arg, InvalidOid);
}

static void
watch_tables(void)
{
	static bool watched = false;

	if (watched)
		return;
	CacheRegisterRelcacheCallback(make_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, make_all_stale, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, make_all_stale, (Datum) 0);
	watched = true;
}

static bool
are_same(const AppTables *a, const AppTables *b)
{
	Oid x[NUM_TABLES];
	Oid y[NUM_TABLES];

	list_tables(a, x);
	list_tables(b, y);
	return strcmp(a->schema, b->schema) == 0 && memcmp(x, y, sizeof(x)) == 0;
}

static AppTables *
find_shared(const AppTables *tables)
{
	ListCell *lc;

	foreach (lc, shared_tables)
	{
		AppTables *shared = lfirst(lc);

		if (!shared->stale && are_same(shared, tables))
			return shared;
	}
	return NULL;
}

static AppTables *
copy_to_share(const AppTables *tables)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sendcampaign tables",
												  ALLOCSET_SMALL_SIZES);
	AppTables	 *copy = MemoryContextAllocZero(context, sizeof(AppTables));
	MemoryContext old;

	copy->schema = MemoryContextStrdup(context, tables->schema);
	copy->groups = tables->groups;
	copy->lists = tables->lists;
	copy->campaigns = tables->campaigns;
	copy->list_users = tables->list_users;
	copy->jobs = tables->jobs;
	copy->context = context;
	old = MemoryContextSwitchTo(TopMemoryContext);
	shared_tables = lappend(shared_tables, copy);
	MemoryContextSwitchTo(old);
	return copy;
}

AppTables *
tables_share(const AppTables *tables)
{
	AppTables *shared;

	watch_tables();
	shared = find_shared(tables);
	if (shared == NULL)
		shared = copy_to_share(tables);
	shared->shares++;
	return shared;
}

/*
 * Tells whether updating its rows runs no code of the application.  What a
 * trigger does for one run must not affect another one.
 */
static bool
is_plain(Oid table)
{
	Relation rel = relation_open(table, AccessShareLock);
	bool	 plain = !rel->rd_rel->relhasrules;

	for (int i = 0; plain && rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		plain = rel->trigdesc->triggers[i].tgisinternal; /* of foreign keys */
	relation_close(rel, NoLock);
	return plain && id_is_unique(table) && !has_subclass(table);
}

/* Statements that were prepared before a table changed may not say what is known of it now. */
bool
tables_allow_sets(const AppTables *tables)
{
	return !tables->stale && is_plain(tables->list_users) && is_plain(tables->jobs);
}

/* Returns the table that has the name now. */
static Oid
list_users_now(const AppTables *tables)
{
	return get_relname_relid("ac_list_users", get_namespace_oid(tables->schema, true));
}

/* Statements use names. */
bool
tables_are_current(const AppTables *tables)
{
	static const char *const names[NUM_TABLES] = {"groups", "ac_lists", "ac_campaigns",
												  "ac_list_users", "ac_background_jobs"};
	Oid						 oids[NUM_TABLES];
	Oid namespace = get_namespace_oid(tables->schema, true);

	list_tables(tables, oids);
	for (int i = 0; i < NUM_TABLES; i++)
	{
		if (get_relname_relid(names[i], namespace) != oids[i])
			return false;
	}
	return true;
}

/*
 * The role has chosen the tables, whatever code they have; but somebody else may
 * have taken the schema's name since, as statements use names.
 */
static void
check_name_is_not_taken(const AppTables *tables)
{
	if (list_users_now(tables) != tables->list_users)
		tables_check_chosen(tables_open(tables->schema), tables->list_users);
}

/*
 * Must precede the planning and execution of every statement, as planning runs
 * code, too: a superuser runs only code that belongs to a superuser.
 */
static void
check_code(const AppTables *tables)
{
	Oid oids[NUM_TABLES];

	if (!superuser())
	{
		check_name_is_not_taken(tables);
		return;
	}
	list_tables(tables, oids);
	check_code_once(oids, NUM_TABLES, tables->schema);
	if (!tables_are_current(tables))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a table of the application has been dropped or renamed"),
				 errhint("Try again. The tables are then looked up by name.")));
}

uint64
tables_query(const AppTables *tables, const char *sql, const SpiCall *call)
{
	check_code(tables);
	return spi_query(sql, call);
}

/* Runs a statement that is used once, for at most "limit" rows; returns their number. */
static uint64
query_with_nulls(const AppTables *tables, const char *sql, int nargs, Oid *types, Datum *values,
				 const char *nulls, long limit)
{
	SpiCall call = {nargs, types, values, nulls, .limit = limit};

	check_code(tables);
	return spi_query(sql, &call);
}

static uint64
query(const AppTables *tables, const char *sql, int nargs, Oid *types, Datum *values, long limit)
{
	return query_with_nulls(tables, sql, nargs, types, values, NULL, limit);
}

pg_noreturn static void fail_id_is_not_unique(Oid table, int64 id);

/* Rows are identified by their ids, which must be unique. */
static void
fail_id_is_not_unique(Oid table, int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_CARDINALITY_VIOLATION),
			 errmsg("table \"%s\" has more than one row with id %lld",
					table_title(table), (long long) id),
			 errdetail("Rows are identified by their ids, so that nobody gets a message twice."),
			 errhint("Give each row an id of its own, and create a primary key or a unique index"
					 " on \"id\".")));
}

/* Runs a statement on the row with this id; returns false if there is none. */
static bool
query_by_id(const AppTables *tables, const char *sql, Oid table, int64 id)
{
	Oid	   type = INT8OID;
	Datum  value = Int64GetDatum(id);
	uint64 count = query(tables, sql, 1, &type, &value, 2);

	if (count > 1)
		fail_id_is_not_unique(table, id);
	return count > 0;
}

/* An opt-out counts on all nodes of Citus, for the group of the schema with this name. */
static void
check_name_is_common(Oid groups, const char *schema)
{
	if (!citus_name_is_common(groups))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.groups\" is on this node of Citus alone", schema),
				 errdetail("On other nodes, the schema's name may be that of somebody else's"
						   " tables."),
				 errhint("Connect to the coordinator, which has the tables that are not"
						 " distributed, and call the function there.")));
}

void
tables_check_group(const char *schema, int64 group_id)
{
	Oid		type = INT8OID;
	Datum	value = Int64GetDatum(group_id);
	SpiCall call = {1, &type, &value, NULL, .read_only = true, .limit = 1};
	Oid		groups;
	char   *sql;

	if (superuser())
		return;
	groups = find_table(schema, find_schema(schema), "groups");
	check_name_is_common(groups, schema);
	if (schema_is_of_callers_choice())
		check_code_is_trusted(GetUserId(), &groups, 1, schema);
	sql = psprintf("SELECT FROM %s g WHERE g.id OPERATOR(pg_catalog.=) $1", table_name(groups));
	if (spi_query(sql, &call) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("group %lld does not exist", (long long) group_id),
				 errhint("Check that it is in \"%s.groups\" and that your role may see it.",
						 schema)));
}

/* Makes the plan if there is none yet, and locks what it uses, to the end of the transaction. */
static void
lock_for_plan(SPIPlanPtr plan)
{
	ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), CurrentResourceOwner);
}

/*
 * Prepares a statement, and makes its generic plan at once, with sequential
 * scans off.
 */
static SPIPlanPtr
prepare(const AppTables *tables, const char *sql, int nargs, Oid *types)
{
	int		   level;
	SPIPlanPtr plan;

	check_code(tables);
	level = NewGUCNestLevel();
	plan_by_index();
	plan = spi_prepare(sql, nargs, types);
	lock_for_plan(plan);
	AtEOXact_GUC(true, level);
	return plan;
}

static uint64
execute(const AppTables *tables, SPIPlanPtr plan, Datum *values, const char *nulls, long limit)
{
	check_code(tables);
	return spi_execute(plan, values, nulls, limit);
}

/*
 * In a result that numbers in its first column what was asked for, returns the
 * first row, counted from 0, that comes in addition; -1 if there is none.
 */
static int
find_twice(uint64 rows)
{
	for (uint64 i = 0; i < rows; i++)
	{
		if (spi_int64(i, 1) != i + 1)
			return (int) i - 1;
	}
	return -1;
}

/* Throws unless there is one row for each of the ids (bigint[]). */
static void
check_ordinals(Oid table, Datum ids, uint64 rows)
{
	int	   count;
	Datum *wanted = ids_of_array(DatumGetArrayTypeP(ids), &count);
	int	   twice = find_twice(rows);

	if (twice >= 0)
		fail_id_is_not_unique(table, DatumGetInt64(wanted[twice]));
	if (rows != count)
		elog(ERROR, "%d rows were asked for and " UINT64_FORMAT " found", count, rows);
}

/* A statement of calls, with its plan. */
typedef struct KeptPlan
{
	char	  *sql;
	SPIPlanPtr plan;
} KeptPlan;

/* Plans are kept for the session, which mostly uses the same tables. */
static KeptPlan kept_plans[16];

/* Returns the plan of a statement with at most two parameters, bigint; NULL if it is not kept. */
static SPIPlanPtr
kept_plan(const AppTables *tables, const char *sql, int nargs)
{
	Oid types[] = {INT8OID, INT8OID};

	for (int i = 0; i < lengthof(kept_plans); i++)
	{
		KeptPlan *kept = &kept_plans[i];

		if (kept->plan == NULL)
		{
			kept->plan = prepare(tables, sql, nargs, types);
			kept->sql = MemoryContextStrdup(TopMemoryContext, sql);
		}
		if (strcmp(kept->sql, sql) == 0)
			return kept->plan;
	}
	return NULL;
}

/* Runs such a statement, which each call of a session runs, for at most 2 rows. */
static uint64
query_of_calls(const AppTables *tables, const char *sql, int nargs, Datum *values)
{
	Oid		   types[] = {INT8OID, INT8OID};
	SPIPlanPtr plan = kept_plan(tables, sql, nargs);

	if (plan == NULL)
		return query(tables, sql, nargs, types, values, 2);
	return execute(tables, plan, values, NULL, 2);
}

static bool
has_row(const AppTables *tables, Oid table, int64 id)
{
	char  *sql = psprintf("SELECT FROM %s t WHERE t.id OPERATOR(pg_catalog.=) $1",
						  table_name(table));
	Datum  value = Int64GetDatum(id);
	uint64 count = query_of_calls(tables, sql, 1, &value);

	if (count > 1)
		fail_id_is_not_unique(table, id);
	return count > 0;
}

bool
tables_has_campaign(const AppTables *tables, int64 campaign_id)
{
	return has_row(tables, tables->campaigns, campaign_id);
}

bool
tables_has_job(const AppTables *tables, int64 job_id)
{
	return has_row(tables, tables->jobs, job_id);
}

static void
append_columns(StringInfo columns, StringInfo values, List *names, const char *value)
{
	ListCell *cell;

	foreach (cell, names)
	{
		appendStringInfo(columns, ", %s", quote_identifier(lfirst(cell)));
		appendStringInfo(values, ", %s", value);
	}
}

int64
tables_create_job(const AppTables *tables)
{
	StringInfoData columns;
	StringInfoData values;

	initStringInfo(&columns);
	initStringInfo(&values);
	if (can_write_column(tables->jobs, "data", CMD_INSERT))
		append_columns(&columns, &values, list_make1("data"), "'{}'");
	append_columns(&columns, &values, time_columns(tables->jobs, true, CMD_INSERT),
				   "pg_catalog.now()");
	append_columns(&columns, &values, time_columns(tables->jobs, false, CMD_INSERT),
				   "pg_catalog.now()");
	if (query_of_calls(tables,
					   psprintf("INSERT INTO %s AS j (progress%s) VALUES (5%s)"
								" RETURNING j.id::pg_catalog.int8",
								table_name(tables->jobs), columns.data, values.data),
					   0, NULL) != 1 ||
		spi_isnull(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not create a background job"),
				 errdetail("The INSERT on table \"%s\" was suppressed by a trigger or rule.",
						   get_rel_name(tables->jobs)),
				 errhint("Change the trigger or rule, or insert a background job yourself and pass"
						 " its id.")));
	return spi_int64(0, 1);
}

void
tables_reopen_job(const AppTables *tables, int64 job_id)
{
	(void) query_by_id(tables,
					   psprintf("UPDATE %s j SET error = NULL%s"
								" WHERE j.id OPERATOR(pg_catalog.=) $1",
								table_name(tables->jobs), touch_clause(tables->jobs)),
					   tables->jobs, job_id);
}

/*
 * The URLs of media: an array, or one of them; then whether the variables of a
 * content template are an object of texts, and the object.
 */
#define READ_MEDIA_AND_VARIABLES                                                                    \
	"CASE WHEN pg_catalog.jsonb_typeof(v.media) OPERATOR(pg_catalog.=) 'array'"                     \
	" THEN ARRAY(SELECT e.url FROM pg_catalog.jsonb_array_elements_text(v.media) e(url) LIMIT %d)"  \
	" WHEN pg_catalog.btrim(v.media OPERATOR(pg_catalog.#>>) '{}'::pg_catalog.text[],"              \
	"  E' \\t\\r\\n') OPERATOR(pg_catalog.<>) ''"                                                   \
	" THEN ARRAY[v.media OPERATOR(pg_catalog.#>>) '{}'::pg_catalog.text[]]"                         \
	" ELSE '{}'::pg_catalog.text[] END,"                                                            \
	" CASE WHEN pg_catalog.jsonb_typeof(v.variables) OPERATOR(pg_catalog.=) 'object' THEN"          \
	"  NOT EXISTS (SELECT FROM pg_catalog.jsonb_each(v.variables) e WHERE"                          \
	"   pg_catalog.jsonb_typeof(e.value) OPERATOR(pg_catalog.<>) 'string')"                         \
	" ELSE coalesce(pg_catalog.jsonb_typeof(v.variables) OPERATOR(pg_catalog.=) 'null', true) END," \
	" CASE WHEN pg_catalog.jsonb_typeof(v.variables) OPERATOR(pg_catalog.=) 'object'"               \
	"  THEN v.variables::pg_catalog.text END"

#define READ_CAMPAIGNS                                                                             \
	"SELECT r.n, c.id IS NOT NULL, v.message, v.base_url, c.ac_list_id::pg_catalog.int8,"          \
	" v.content_sid, " READ_MEDIA_AND_VARIABLES                                                    \
	" FROM pg_catalog.unnest($1) WITH ORDINALITY r(id, n)"                                         \
	" LEFT JOIN %s c ON c.id" IS_AMONG(                                                            \
		"r.id") " CROSS JOIN LATERAL (SELECT %s, %s, %s, %s, %s)"                                  \
				"  v(message, base_url, content_sid, media, variables) ORDER BY r.n"

static SPIPlanPtr
campaigns_plan(AppTables *tables)
{
	Oid type = INT8ARRAYOID;

	if (tables->read_campaigns == NULL)
		tables->read_campaigns = prepare(
			tables,
			psprintf(READ_CAMPAIGNS, MAX_MEDIA + 1, table_name(tables->campaigns),
					 value_expression(tables->campaigns, "c", "message"),
					 value_expression(tables->campaigns, "c", "baseUrl"),
					 value_expression(tables->campaigns, "c", "contentSid"),
					 json_expression(tables->campaigns, "c", "mediaUrl"),
					 json_expression(tables->campaigns, "c", "contentVariables")),
			1, &type);
	return tables->read_campaigns;
}

static CampaignRow
campaign_row(uint64 row)
{
	CampaignRow campaign = {.exists = spi_bool(row, 2),
							.message = spi_string(row, 3),
							.base_url = spi_string(row, 4),
							.has_list = !spi_isnull(row, 5),
							.list_id = spi_int64(row, 5),
							.content_sid = spi_string(row, 6),
							.variables_are_texts = spi_bool(row, 8),
							.content_variables = spi_string(row, 9)};

	campaign.media_urls = spi_nullable_strings(row, 7, &campaign.num_media);
	return campaign;
}

/*
 * Read-only for SPI, so that it uses the active snapshot, as the cursors over
 * the list do: all of them must see the same data.
 */
CampaignRow *
tables_read_campaigns(AppTables *tables, Datum ids, int count)
{
	SPIPlanPtr	 plan = campaigns_plan(tables);
	CampaignRow *campaigns = palloc(Max(count, 1) * sizeof(CampaignRow));
	uint64		 rows;

	check_code(tables);
	rows = spi_execute_read_only(plan, &ids, count + 1);
	check_ordinals(tables->campaigns, ids, rows);
	for (int i = 0; i < count; i++)
		campaigns[i] = campaign_row(i);
	SPI_freetuptable(SPI_tuptable);
	return campaigns;
}

#define READ_LIST_QUERY                                                                            \
	"SELECT l.id::pg_catalog.int8, %s, %s, b.id::pg_catalog.int8,"                                 \
	" coalesce(b.group_id OPERATOR(pg_catalog.=) l.group_id, false)"                               \
	" FROM %s c JOIN %s l ON l.id OPERATOR(pg_catalog.=) c.ac_list_id"                             \
	" LEFT JOIN %s b ON b.id OPERATOR(pg_catalog.<>) l.id"                                         \
	"  AND b.id::pg_catalog.text OPERATOR(pg_catalog.=) (%s)"                                      \
	" WHERE c.id OPERATOR(pg_catalog.=) $1 AND (%s) IS NOT NULL"

bool
tables_read_list_query(const AppTables *tables, int64 campaign_id, ListQueryRow *row)
{
	char *query_text = value_expression(tables->lists, "l", "query");
	char *lists = table_name(tables->lists);
	char *sql = psprintf(READ_LIST_QUERY, query_text, deleted_expression(tables->lists, "l"),
						 table_name(tables->campaigns), lists, lists,
						 value_expression(tables->lists, "l", "listId"), query_text);

	if (!query_by_id(tables, sql, tables->lists, campaign_id))
		return false;
	*row = (ListQueryRow){.list_id = spi_int64(0, 1),
						  .query = spi_string(0, 2),
						  .deleted = spi_bool(0, 3),
						  .has_base = !spi_isnull(0, 4),
						  .base_id = spi_int64(0, 4),
						  .same_group = spi_bool(0, 5)};
	return true;
}

/* SQL: a text of the configuration g.c, and an array of texts, with the comma after it. */
#define TEXT_OF(key) " g.c OPERATOR(pg_catalog.->>) '" key "'::pg_catalog.text,"
#define ARRAY_OF(key, most)                                                                        \
	" CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(g.c, '" key "'))"            \
	"  OPERATOR(pg_catalog.=) 'array' THEN ARRAY(SELECT e.n FROM"                                  \
	"   pg_catalog.jsonb_array_elements_text(pg_catalog.jsonb_extract_path(g.c, '" key "')) e(n)"  \
	"   LIMIT " most ") ELSE ARRAY[g.c OPERATOR(pg_catalog.->>) '" key "'::pg_catalog.text] END,"

/* SQL: a key of an object in the configuration, with the comma; or what is there in its place. */
#define PART_OF(object, key)                                                                       \
	" coalesce(pg_catalog.jsonb_extract_path_text(g.c, '" object "', '" key "'),"                  \
	"  CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(g.c, '" object "'))"        \
	"   OPERATOR(pg_catalog.<>) 'null' THEN g.c OPERATOR(pg_catalog.->>)"                          \
	"   '" object "'::pg_catalog.text END),"

/* In the order of GroupKey.  Credentials are values in the result, and never part of a statement. */
#define GROUP_COLUMNS                                                                                                   \
	TEXT_OF("twilioAccountSid")                                                                                         \
	TEXT_OF("twilioAuthToken")                                                                                          \
	TEXT_OF("twilioApiKeySid")                                                                                          \
	TEXT_OF("twilioApiKeySecret")                                                                                       \
	ARRAY_OF("twilioFromSmsNumber", CppAsString2(MAX_SENDERS) " OPERATOR(pg_catalog.+) 1")                              \
	TEXT_OF("twilioMessagingServiceSid")                                                                                \
	TEXT_OF("twilioSegmentsPerSecond")                                                                                  \
	PART_OF("quietHours", "from")                                                                                       \
	" pg_catalog.jsonb_extract_path_text(g.c, 'quietHours', 'to')," TEXT_OF("timeZone")                                 \
		TEXT_OF("twilioRegion") TEXT_OF("twilioEdge") TEXT_OF("twilioSmartEncoded") PART_OF(                            \
			"maxMessages",                                                                                              \
			"count") " pg_catalog.jsonb_extract_path_text(g.c, 'maxMessages', 'days')," TEXT_OF("twilioStatusCallback") \
			TEXT_OF("twilioInboundUrl") TEXT_OF("countryCode") TEXT_OF("signLinks")                                     \
				ARRAY_OF("stopWords", CppAsString2(MAX_WORDS) " OPERATOR(pg_catalog.+) 1")                              \
					ARRAY_OF("startWords", CppAsString2(MAX_WORDS) " OPERATOR(pg_catalog.+) 1")

#define READ_GROUPS                                                                                           \
	"SELECT r.n, c.id IS NOT NULL, %s, l.id IS NOT NULL, %s, g.id, g.deleted," GROUP_COLUMNS                  \
	" (%s)::pg_catalog.timestamptz"                                                                           \
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2))"                                          \
	"  WITH ORDINALITY r(campaign_id, list_id, n)"                                                            \
	" LEFT JOIN %s c ON c.id" IS_AMONG("r.campaign_id") " LEFT JOIN %s l ON l.id" IS_AMONG(                   \
		"r.list_id") " LEFT JOIN (SELECT t.id::pg_catalog.int8 AS id, t.id AS own_id, %s AS deleted, %s AS c" \
					 "  FROM %s t) g ON g.own_id" IS_AMONG("l.group_id") " ORDER BY r.n"

/* The same columns, without a campaign and its list. */
#define READ_GROUP_BY_ID                                                                           \
	"SELECT 1, NULL, NULL, NULL, NULL, g.id, g.deleted," GROUP_COLUMNS                             \
	" NULL::pg_catalog.timestamptz"                                                                \
	" FROM (SELECT t.id::pg_catalog.int8 AS id, %s AS deleted, %s AS c"                            \
	"  FROM %s t WHERE t.id OPERATOR(pg_catalog.=) $1) g"

static SPIPlanPtr
groups_plan(AppTables *tables)
{
	Oid types[] = {INT8ARRAYOID, INT8ARRAYOID};

	if (tables->read_groups == NULL)
		tables->read_groups = prepare(
			tables,
			psprintf(READ_GROUPS, deleted_expression(tables->campaigns, "c"),
					 deleted_expression(tables->lists, "l"),
					 value_expression(tables->campaigns, "c", "sendUntil"),
					 table_name(tables->campaigns), table_name(tables->lists),
					 deleted_expression(tables->groups, "t"),
					 configuration_expression(tables->groups, "t"), table_name(tables->groups)),
			2, types);
	return tables->read_groups;
}

static SPIPlanPtr
group_by_id_plan(AppTables *tables)
{
	Oid type = INT8OID;

	if (tables->read_group_by_id == NULL)
		tables->read_group_by_id = prepare(
			tables,
			psprintf(READ_GROUP_BY_ID, deleted_expression(tables->groups, "t"),
					 configuration_expression(tables->groups, "t"), table_name(tables->groups)),
			1, &type);
	return tables->read_group_by_id;
}

/* Columns of READ_GROUPS; those from GROUP_TEXTS on are in the order of GroupKey. */
enum
{
	GROUP_ORDINAL = 1,
	CAMPAIGN_EXISTS,
	CAMPAIGN_DELETED,
	LIST_EXISTS,
	LIST_DELETED,
	GROUP_ID,
	GROUP_DELETED,
	GROUP_TEXTS,
	SEND_UNTIL = GROUP_TEXTS + NUM_GROUP_KEYS
};

/* Returns a row of SPI_tuptable. */
static GroupRow
group_row(uint64 n)
{
	GroupRow row = {.campaign_exists = spi_bool(n, CAMPAIGN_EXISTS),
					.campaign_deleted = spi_bool(n, CAMPAIGN_DELETED),
					.list_exists = spi_bool(n, LIST_EXISTS),
					.list_deleted = spi_bool(n, LIST_DELETED),
					.group_exists = !spi_isnull(n, GROUP_ID),
					.group_deleted = spi_bool(n, GROUP_DELETED),
					.group_id = spi_int64(n, GROUP_ID),
					.has_end = !spi_isnull(n, SEND_UNTIL),
					.send_until = spi_timestamptz(n, SEND_UNTIL)};

	row.numbers = spi_strings(n, GROUP_TEXTS + NUMBERS, &row.num_numbers);
	row.stop_words = spi_strings(n, GROUP_TEXTS + STOP_WORDS, &row.num_stop_words);
	row.start_words = spi_strings(n, GROUP_TEXTS + START_WORDS, &row.num_start_words);
	for (int key = 0; key < NUM_GROUP_KEYS; key++)
	{
		if (key != NUMBERS && key != STOP_WORDS && key != START_WORDS)
			row.values[key] = spi_string(n, GROUP_TEXTS + key);
	}
	return row;
}

/* Finds out which of the three tables has two rows instead of one, and throws. */
static void
check_one_group_each(const AppTables *tables, Datum campaign_ids, Datum list_ids, uint64 rows)
{
	int	   count;
	Datum *campaigns = ids_of_array(DatumGetArrayTypeP(campaign_ids), &count);
	Datum *lists = ids_of_array(DatumGetArrayTypeP(list_ids), &count);
	int	   twice = find_twice(rows);
	int64  group_id;

	if (twice < 0)
		return;
	group_id = spi_int64(twice, GROUP_ID);
	(void) has_row(tables, tables->campaigns, DatumGetInt64(campaigns[twice]));
	(void) has_row(tables, tables->lists, DatumGetInt64(lists[twice]));
	fail_id_is_not_unique(tables->groups, group_id);
}

GroupRow *
tables_read_groups(AppTables *tables, Datum campaign_ids, Datum list_ids, MemoryContext *contexts,
				   int count)
{
	Datum	  values[] = {campaign_ids, list_ids};
	GroupRow *groups = palloc(Max(count, 1) * sizeof(GroupRow));
	uint64	  rows = execute(tables, groups_plan(tables), values, NULL, count + 1);

	check_one_group_each(tables, campaign_ids, list_ids, rows);
	for (int i = 0; i < count; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(contexts[i]);

		groups[i] = group_row(i);
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(SPI_tuptable);
	return groups;
}

bool
tables_read_group_by_id(AppTables *tables, int64 group_id, GroupRow *row)
{
	Datum  value = Int64GetDatum(group_id);
	uint64 count = execute(tables, group_by_id_plan(tables), &value, NULL, 2);

	if (count > 1)
		fail_id_is_not_unique(tables->groups, group_id);
	if (count == 0)
		return false;
	*row = group_row(0);
	return true;
}

char *
tables_read_country(const AppTables *tables, int64 list_id)
{
	Oid	   type = INT8OID;
	Datum  value = Int64GetDatum(list_id);
	char  *sql = psprintf("SELECT (%s) OPERATOR(pg_catalog.->>) 'countryCode'::pg_catalog.text,"
						   " g.id::pg_catalog.int8"
						   " FROM %s l LEFT JOIN %s g ON g.id OPERATOR(pg_catalog.=) l.group_id"
						   " WHERE l.id OPERATOR(pg_catalog.=) $1",
						  configuration_expression(tables->groups, "g"), table_name(tables->lists),
						  table_name(tables->groups));
	uint64 rows = query(tables, sql, 1, &type, &value, 2);

	if (rows > 1)
	{
		int64 group_id = spi_int64(0, 2);

		(void) has_row(tables, tables->lists, list_id);
		fail_id_is_not_unique(tables->groups, group_id);
	}
	return rows > 0 ? spi_string(0, 1) : NULL;
}

/* Like value_expression(), but null if it is in data that cannot be read. */
static char *
value_if_readable(Oid list_users, const char *key)
{
	char *value = value_expression(list_users, "u", key);

	if (column_for(list_users, key) || column_type(list_users, "data") != JSONOID)
		return value;
	return psprintf("CASE WHEN %s THEN %s END", readable_json("u.data"), value);
}

/* Returns the columns that tell who of list users "u" shares a phone number with others. */
static char *
id_and_phone(Oid list_users)
{
	return psprintf("u.id::pg_catalog.int8, CASE WHEN NOT %s THEN %s END",
					deleted_expression(list_users, "u"),
					value_or_too_long(value_if_readable(list_users, "sms"), MAX_PHONE));
}

Portal
tables_open_list(const AppTables *tables, int64 list_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(list_id);

	check_code(tables);
	return spi_open(psprintf("SELECT %s FROM %s u WHERE u.ac_list_id OPERATOR(pg_catalog.=) $1",
							 id_and_phone(tables->list_users), table_name(tables->list_users)),
					1, &type, &value);
}

void
tables_fail_twice(const AppTables *tables, int64 list_user_id)
{
	fail_id_is_not_unique(tables->list_users, list_user_id);
}

static SPIPlanPtr
lists_plan(AppTables *tables)
{
	Oid type = INT8ARRAYOID;

	if (tables->read_lists == NULL)
		tables->read_lists = prepare(
			tables,
			psprintf("SELECT u.ac_list_id::pg_catalog.int8, %s"
					 " FROM %s u WHERE u.ac_list_id OPERATOR(pg_catalog.=) ANY ($1)",
					 id_and_phone(tables->list_users), table_name(tables->list_users)),
			1, &type);
	return tables->read_lists;
}

ListUser *
tables_read_lists(AppTables *tables, Datum list_ids, int most, int *count)
{
	SPIPlanPtr plan = lists_plan(tables);
	ListUser  *users;

	check_code(tables);
	*count = (int) spi_execute_read_only(plan, &list_ids, most);
	users = palloc(Max(*count, 1) * sizeof(ListUser));
	for (int i = 0; i < *count; i++)
		users[i] = (ListUser){.list_id = spi_int64(i, 1),
							  .id = spi_int64(i, 2),
							  .has_id = !spi_isnull(i, 2),
							  .phone = spi_string(i, 3)};
	SPI_freetuptable(SPI_tuptable);
	return users;
}

/* Returns ARRAY[...] with the values of these keys. */
static char *
values_expression(const AppTables *tables, List *keys)
{
	StringInfoData values;
	ListCell	  *cell;

	initStringInfo(&values);
	appendStringInfoString(&values, "ARRAY[");
	foreach (cell, keys)
		appendStringInfo(
			&values, "%s%s", cell == list_head(keys) ? "" : ", ",
			value_or_too_long(text_expression(tables->list_users, "u", lfirst(cell)), MAX_VALUE));
	appendStringInfoString(&values, "]::pg_catalog.text[]");
	return values.data;
}

/* Reads whatever could not be written after the message is sent, to fail early. */
static const char *
count_check(Oid list_users)
{
	if (count_column(list_users) || column_type(list_users, "data") != JSONOID)
		return "";
	return ", u.data::pg_catalog.jsonb IS NULL";
}

static SPIPlanPtr
prepare_recipients(const AppTables *tables, List *keys)
{
	Oid	  types[] = {INT8ARRAYOID, INT8ARRAYOID};
	char *name = table_name(tables->list_users);

	return prepare(
		tables,
		psprintf("SELECT r.n, r.id, u.id IS NOT NULL,"
				 " CASE WHEN u.id IS NULL THEN EXISTS (SELECT FROM %s o"
				 "  WHERE o.id OPERATOR(pg_catalog.=) r.id) ELSE true END, %s, %s, %s, %s%s"
				 " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2))"
				 "  WITH ORDINALITY r(id, list_id, n)"
				 " LEFT JOIN %s u ON u.id" IS_AMONG("r.id") " AND %s"
															" ORDER BY r.n",
				 name, deleted_expression(tables->list_users, "u"),
				 value_or_too_long(value_expression(tables->list_users, "u", "sms"), MAX_PHONE),
				 value_or_too_long(value_if_readable(tables->list_users, "timeZone"), MAX_PHONE),
				 values_expression(tables, keys), count_check(tables->list_users), name,
				 in_list_condition(tables->list_users, "u", "r.list_id")),
		2, types);
}

int
tables_compare_keys(const List *a, const List *b)
{
	const ListCell *x;
	const ListCell *y;

	if (list_length(a) != list_length(b))
		return list_length(a) < list_length(b) ? -1 : 1;
	forboth(x, a, y, b)
	{
		int order = strcmp(lfirst(x), lfirst(y));

		if (order != 0)
			return order;
	}
	return 0;
}

static List *
copy_keys(const AppTables *tables, List *keys)
{
	MemoryContext old = MemoryContextSwitchTo(
		GetMemoryChunkContext(unconstify(AppTables *, tables)));
	List	 *copy = NIL;
	ListCell *lc;

	foreach (lc, keys)
		copy = lappend(copy, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
	return copy;
}

/* Campaigns of a schema mostly have the same few keys. */
static SPIPlanPtr
recipients_plan(AppTables *tables, List *keys)
{
	RecipientsPlan *oldest;
	SPIPlanPtr		plan;

	for (int i = 0; i < MAX_RECIPIENTS_PLANS; i++)
	{
		if (tables->read_recipients[i].plan &&
			tables_compare_keys(tables->read_recipients[i].keys, keys) == 0)
			return tables->read_recipients[i].plan;
	}
	plan = prepare_recipients(tables, keys);
	oldest = &tables->read_recipients[tables->oldest_plan];
	tables->oldest_plan = (tables->oldest_plan + 1) % MAX_RECIPIENTS_PLANS;
	free_recipients_plan(oldest);
	oldest->keys = copy_keys(tables, keys);
	oldest->plan = plan;
	return plan;
}

void
tables_check_list_users(const AppTables *tables, Oid list_users)
{
	if (list_users_now(tables) != list_users)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s.ac_list_users\" is not the table with which the run started",
						tables->schema),
				 errdetail("Its list users may be different people."),
				 errhint("To continue the run with this table, call send_campaign() with the same"
						 " campaign and job.")));
}

bool
tables_are_chosen(const AppTables *tables, Oid role, Oid list_users)
{
	return tables->list_users == list_users ||
		   runs_chose_owner(role, list_users, tables_owner(tables));
}

void
tables_check_chosen(const AppTables *tables, Oid list_users)
{
	ForeignCode foreign;

	if (tables_are_chosen(tables, GetUserId(), list_users) ||
		!tables_find_foreign_code(tables, GetUserId(), &foreign))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the tables in schema \"%s\" are not those with which the run started",
					tables->schema),
			 errdetail("%s belongs to role \"%s\", whose code would run with the rights of role"
					   " \"%s\".",
					   foreign.object, foreign.owner, GetUserNameFromId(GetUserId(), false)),
			 errhint("Make one role the owner of all tables and of the functions that they"
					 " use.")));
}

void
tables_check_not_replaced(const AppTables *tables)
{
	if (list_users_now(tables) != tables->list_users)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("\"%s.ac_list_users\" was replaced while the run was starting", tables->schema),
				 errhint("The run will start again with the table that now has this name.")));
}

static RecipientRow
recipient_row(uint64 row, bool has_values)
{
	int num_values;

	return (RecipientRow){.id = spi_int64(row, 2),
						  .in_list = spi_bool(row, 3),
						  .exists = spi_bool(row, 4),
						  .deleted = spi_bool(row, 5),
						  .phone = spi_string(row, 6),
						  .time_zone = spi_string(row, 7),
						  .values = has_values ? spi_nullable_strings(row, 8, &num_values) : NULL};
}

RecipientRow *
tables_read_recipients(AppTables *tables, List *keys, const RecipientIds *wanted)
{
	Datum		  values[] = {wanted->ids, wanted->list_ids};
	int			  count = wanted->count;
	uint64		  rows = execute(tables, recipients_plan(tables, keys), values, NULL, count + 1);
	RecipientRow *recipients = palloc(Max(count, 1) * sizeof(RecipientRow));

	tables_check_list_users(tables, tables->list_users); /* statements use names */
	check_ordinals(tables->list_users, wanted->ids, rows);
	for (int i = 0; i < count; i++)
		recipients[i] = recipient_row(i, keys != NIL);
	SPI_freetuptable(SPI_tuptable);
	return recipients;
}

static SPIPlanPtr
count_plan(AppTables *tables)
{
	Oid types[] = {INT8ARRAYOID, INT8OID};

	if (tables->count_sent == NULL)
		tables->count_sent = prepare(
			tables,
			psprintf("UPDATE %s u SET %s%s WHERE u.id OPERATOR(pg_catalog.=) ANY ($1) AND %s"
					 " RETURNING u.id::pg_catalog.int8",
					 table_name(tables->list_users), count_clause(tables->list_users, SENT_COUNT),
					 touch_clause(tables->list_users),
					 same_user_condition(tables->list_users, "u", "$2")),
			2, types);
	return tables->count_sent;
}

/* Returns the ids in SPI_tuptable, sorted; throws if one occurs twice. */
static Datum *
sorted_ids(const AppTables *tables, int count)
{
	Datum *ids = palloc(Max(count, 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		ids[i] = Int64GetDatum(spi_int64(i, 1));
	qsort(ids, count, sizeof(Datum), compare_ids);
	for (int i = 1; i < count; i++)
	{
		if (compare_ids(&ids[i], &ids[i - 1]) == 0)
			tables_fail_twice(tables, DatumGetInt64(ids[i]));
	}
	return ids;
}

/* Returns those of the ids that are still users of the list, as far as we can see. */
static Datum
find_recipients(const AppTables *tables, Datum ids, int count, int64 list_id)
{
	Oid	   types[] = {INT8ARRAYOID, INT8OID};
	Datum  values[] = {ids, Int64GetDatum(list_id)};
	Datum *found;
	uint64 rows;
	int	   level = NewGUCNestLevel();

	plan_by_index();
	rows = query(tables,
				 psprintf("SELECT r.id FROM pg_catalog.unnest($1) r(id) WHERE EXISTS"
						  " (SELECT FROM %s u WHERE u.id OPERATOR(pg_catalog.=) r.id AND %s)",
						  table_name(tables->list_users),
						  same_user_condition(tables->list_users, "u", "$2")),
				 2, types, values, count);
	AtEOXact_GUC(true, level);
	found = sorted_ids(tables, (int) rows);
	return rows > 0 ? make_array(found, NULL, (int) rows, INT8OID) : (Datum) 0;
}

Datum
tables_count_sent(AppTables *tables, Datum *ids, int count, int64 list_id, Oid only_in)
{
	Datum  values[] = {make_array(ids, NULL, count, INT8OID), Int64GetDatum(list_id)};
	int	   counted = (int) execute(tables, count_plan(tables), values, NULL, count + 1);
	Datum *found = sorted_ids(tables, counted);
	Datum *left = palloc(count * sizeof(Datum));
	int	   num_left = 0;

	tables_check_list_users(tables, OidIsValid(only_in) ? only_in : tables->list_users);
	for (int i = 0; i < count; i++)
	{
		if (bsearch(&ids[i], found, counted, sizeof(Datum), compare_ids) == NULL)
			left[num_left++] = ids[i];
	}
	if (num_left == 0)
		return (Datum) 0;
	return find_recipients(tables, make_array(left, NULL, num_left, INT8OID), num_left, list_id);
}

/* Without a place for the count, the row is only looked for. */
static char *
count_once_sql(const AppTables *tables, const char *count)
{
	Oid	  list_users = tables->list_users;
	char *name = table_name(list_users);
	char *same_user = same_user_condition(list_users, "u", "$2");

	if (count == NULL || (column_for(list_users, count) == NULL && !has_column(list_users, "data")))
		return psprintf("SELECT u.id::pg_catalog.int8 FROM %s u"
						" WHERE u.id OPERATOR(pg_catalog.=) $1 AND %s",
						name, same_user);
	return psprintf("UPDATE %s u SET %s%s WHERE u.id OPERATOR(pg_catalog.=) $1 AND %s"
					" RETURNING u.id::pg_catalog.int8",
					name, count_clause(list_users, count), touch_clause(list_users), same_user);
}

bool
tables_count_once(const AppTables *tables, const char *count, int64 list_user_id, int64 list_id)
{
	Datum  values[] = {Int64GetDatum(list_user_id), Int64GetDatum(list_id)};
	uint64 counted = query_of_calls(tables, count_once_sql(tables, count), 2, values);

	if (counted > 1)
		fail_id_is_not_unique(tables->list_users, list_user_id);
	tables_check_list_users(tables, tables->list_users); /* statements use names */
	return counted == 1 && spi_int64(0, 1) == list_user_id;
}

static SPIPlanPtr
lock_plan(AppTables *tables)
{
	Oid	  types[] = {INT8ARRAYOID, INT8OID};
	char *name = table_name(tables->list_users);
	char *condition = same_user_condition(tables->list_users, "u", "$2");

	if (tables->lock_recipients == NULL)
		tables->lock_recipients = prepare(
			tables,
			psprintf("WITH got AS MATERIALIZED (SELECT u.id FROM %s u"
					 "  WHERE u.id OPERATOR(pg_catalog.=) ANY ($1) AND %s"
					 "  FOR NO KEY UPDATE SKIP LOCKED)"
					 " SELECT r.id FROM pg_catalog.unnest($1) r(id)"
					 " WHERE (r.id OPERATOR(pg_catalog.=) ANY (SELECT got.id FROM got)) IS NOT TRUE"
					 " AND EXISTS (SELECT FROM %s u WHERE u.id OPERATOR(pg_catalog.=) r.id AND %s)",
					 name, condition, name, condition),
			2, types);
	return tables->lock_recipients;
}

Datum *
tables_lock_recipients(AppTables *tables, Datum ids, int count, int64 list_id, int *num_locked)
{
	Datum  values[] = {ids, Int64GetDatum(list_id)};
	Datum *locked = palloc(Max(count, 1) * sizeof(Datum));

	*num_locked = (int) execute(tables, lock_plan(tables), values, NULL, count);
	for (int i = 0; i < *num_locked; i++)
		locked[i] = Int64GetDatum(spi_int64(i, 1));
	return locked;
}

void
tables_lock_all(const AppTables *tables, Datum ids, int64 list_id)
{
	Oid	  types[] = {INT8ARRAYOID, INT8OID};
	Datum values[] = {ids, Int64GetDatum(list_id)};

	(void) query(tables,
				 psprintf("SELECT FROM %s u WHERE u.id OPERATOR(pg_catalog.=) ANY ($1) AND %s"
						  " FOR NO KEY UPDATE NOWAIT",
						  table_name(tables->list_users),
						  same_user_condition(tables->list_users, "u", "$2")),
				 2, types, values, 0);
}

bool
tables_report_trouble(const AppTables *tables, int64 job_id, Datum counts, const char *error,
					  const char *told)
{
	Datum values[] = {Int64GetDatum(job_id), (Datum) 0, counts, optional_text(error),
					  optional_text(told)};
	Oid	  types[] = {INT8OID, INT4OID, JSONBOID, TEXTOID, TEXTOID};
	char  nulls[] = {' ', ' ', ' ', error ? ' ' : 'n', told ? ' ' : 'n', '\0'};
	char *name = table_name(tables->jobs);

	return query_with_nulls(
			   tables,
			   psprintf("UPDATE %s j SET error = CASE WHEN $4 IS NOT NULL"
						"  OR j.error::pg_catalog.text OPERATOR(pg_catalog.=) $5 THEN $4"
						"  ELSE j.error END%s%s WHERE j.id OPERATOR(pg_catalog.=)"
						" (SELECT o.id FROM %s o WHERE o.id OPERATOR(pg_catalog.=) $1"
						"  FOR NO KEY UPDATE SKIP LOCKED)",
						name, data_clause(tables->jobs, "$3"), touch_clause(tables->jobs), name),
			   5, types, values, nulls, 2) > 0;
}

/* The columns of what is reported to jobs, as arrays. */
typedef struct ReportArrays
{
	Datum ids;
	Datum progress;
	Datum counts;
	Datum errors;
} ReportArrays;

static ReportArrays
arrays_of_reports(const JobReport *reports, int count)
{
	Datum *ids = palloc(Max(count, 1) * sizeof(Datum));
	Datum *progress = palloc(Max(count, 1) * sizeof(Datum));
	Datum *counts = palloc(Max(count, 1) * sizeof(Datum));
	Datum *errors = palloc(Max(count, 1) * sizeof(Datum));
	bool  *nulls = palloc(Max(count, 1) * sizeof(bool));

	for (int i = 0; i < count; i++)
	{
		ids[i] = Int64GetDatum(reports[i].job_id);
		progress[i] = Int32GetDatum(reports[i].progress);
		counts[i] = reports[i].counts;
		errors[i] = optional_text(reports[i].error);
		nulls[i] = reports[i].error == NULL;
	}
	return (ReportArrays){.ids = make_array(ids, NULL, count, INT8OID),
						  .progress = make_array(progress, NULL, count, INT4OID),
						  .counts = make_array(counts, NULL, count, JSONBOID),
						  .errors = make_array(errors, nulls, count, TEXTOID)};
}

/* Throws if the UPDATE of jobs has changed other rows as well. */
static uint64
update_jobs(const AppTables *tables, SPIPlanPtr plan, Datum *values, const JobReport *reports,
			int count)
{
	uint64 updated = execute(tables, plan, values, NULL, count + 1);

	if (updated > count)
		fail_id_is_not_unique(tables->jobs, reports[0].job_id);
	return updated;
}

static SPIPlanPtr
progress_plan(AppTables *tables)
{
	Oid types[] = {INT8ARRAYOID, INT4ARRAYOID, JSONBARRAYOID};

	if (tables->report_progress == NULL)
		tables->report_progress = prepare(
			tables,
			psprintf("UPDATE %s j SET progress = r.progress%s%s"
					 " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
					 "  pg_catalog.unnest($3)) r(id, progress, counts)"
					 " WHERE j.id" IS_AMONG("r.id"),
					 table_name(tables->jobs), data_clause(tables->jobs, "r.counts"),
					 touch_clause(tables->jobs)),
			3, types);
	return tables->report_progress;
}

void
tables_report_progress(AppTables *tables, const JobReport *reports, int count)
{
	ReportArrays arrays = arrays_of_reports(reports, count);
	Datum		 values[] = {arrays.ids, arrays.progress, arrays.counts};

	(void) update_jobs(tables, progress_plan(tables), values, reports, count);
}

void
tables_report_if_free(const AppTables *tables, int64 job_id, Datum counts)
{
	Datum values[] = {Int64GetDatum(job_id), (Datum) 0, counts};
	Oid	  types[] = {INT8OID, INT4OID, JSONBOID};
	char *name = table_name(tables->jobs);

	if (has_column(tables->jobs, "data"))
		(void) query(tables,
					 psprintf("UPDATE %s j SET %s%s WHERE j.id OPERATOR(pg_catalog.=)"
							  " (SELECT o.id FROM %s o WHERE o.id OPERATOR(pg_catalog.=) $1"
							  "  AND %s FOR NO KEY UPDATE SKIP LOCKED)",
							  name, data_clause(tables->jobs, "$3") + strlen(", "),
							  touch_clause(tables->jobs), name, data_lack(tables->jobs, "o", "$3")),
					 3, types, values, 2);
}

static SPIPlanPtr
end_plan(AppTables *tables)
{
	Oid types[] = {INT8ARRAYOID, INT4ARRAYOID, JSONBARRAYOID, TEXTARRAYOID};

	if (tables->report_end == NULL)
		tables->report_end = prepare(
			tables,
			psprintf(
				"UPDATE %s j SET progress = CASE WHEN r.progress OPERATOR(pg_catalog.<) 0"
				"  THEN j.progress ELSE r.progress END, error = r.error%s%s"
				" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
				"  pg_catalog.unnest($3), pg_catalog.unnest($4)) r(id, progress, counts, error)"
				" WHERE j.id" IS_AMONG("r.id"),
				table_name(tables->jobs), data_clause(tables->jobs, "r.counts"),
				touch_clause(tables->jobs)),
			4, types);
	return tables->report_end;
}

uint64
tables_report_end(AppTables *tables, const JobReport *reports, int count)
{
	ReportArrays arrays = arrays_of_reports(reports, count);
	Datum		 values[] = {arrays.ids, arrays.progress, arrays.counts, arrays.errors};

	return update_jobs(tables, end_plan(tables), values, reports, count);
}

SPIPlanPtr
tables_statement(AppTables *tables, RunStatement statement)
{
	switch (statement)
	{
		case READ_CAMPAIGNS_STATEMENT:
			return campaigns_plan(tables);
		case READ_LISTS_STATEMENT:
			return lists_plan(tables);
		case READ_GROUPS_STATEMENT:
			return groups_plan(tables);
		case READ_RECIPIENTS_STATEMENT:
			return recipients_plan(tables, NIL);
		case COUNT_STATEMENT:
			return count_plan(tables);
		case LOCK_STATEMENT:
			return lock_plan(tables);
		case PROGRESS_STATEMENT:
			return progress_plan(tables);
		case END_STATEMENT:
			return end_plan(tables);
	}
	elog(ERROR, "unknown statement %d", (int) statement);
}

void
tables_plan(AppTables *tables, List *keys)
{
	check_code(tables); /* a plan that is kept may have to be made again */
	for (RunStatement statement = 0; statement < NUM_RUN_STATEMENTS; statement++)
		lock_for_plan(statement == READ_RECIPIENTS_STATEMENT ? recipients_plan(tables, keys)
															 : tables_statement(tables, statement));
}

void
tables_fail_no_campaign(const AppTables *tables, int64 campaign_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("campaign %lld no longer exists", (long long) campaign_id),
			 errhint("Check that it is in \"%s.ac_campaigns\" and that role \"%s\" may see it.",
					 tables->schema, GetUserNameFromId(GetUserId(), false))));
}
