/*-------------------------------------------------------------------------
 *
 * tables.c
 *	  The application's tables, and all SQL on them.
 *
 * They are as Sequelize makes them, with or without columns of their own
 * for what is otherwise a key of "data", so the statements are put together
 * from the columns that are there.
 *
 * Statements that take ids are planned with sequential scans off and with
 * generic plans: a plan made while a table was small, or before its first
 * ANALYZE, must not read a million rows for each batch later on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "own.h"
#include "settings.h"
#include "tables.h"
#include "trust.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

static Oid
find_table(const char *schema, Oid namespace, const char *name)
{
	Oid table = get_relname_relid(name, namespace);

	if (!OidIsValid(table))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("table \"%s.%s\" does not exist", schema, name),
			 errdetail(
				 "The setting \"sendcampaign.schema\" says where the application's tables are."),
			 errhint(
				 "Set \"sendcampaign.schema\" to their schema, or create the tables with SELECT sendcampaign.create_tables(%s).",
				 quote_literal_cstr(schema))));
	return table;
}

static Oid
find_schema(const char *schema)
{
	Oid namespace = get_namespace_oid(schema, true);

	if (!OidIsValid(namespace))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_SCHEMA), errmsg("schema \"%s\" does not exist", schema),
			 errdetail(
				 "The setting \"sendcampaign.schema\" says where the application's tables are."),
			 errhint(
				 "Set \"sendcampaign.schema\" to their schema, or create it and the tables with sendcampaign.create_tables().")));
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

void
tables_close(AppTables *tables)
{
	free_plan(&tables->read_group);
	free_plan(&tables->read_recipients);
	free_plan(&tables->count_sent);
	free_plan(&tables->lock_recipients);
	free_plan(&tables->report_progress);
	free_plan(&tables->report_end);
}

static bool
has_column(Oid table, const char *column)
{
	return get_attnum(table, column) > 0; /* no system column */
}

/* Has the role this privilege on the table, or on one of its columns? */
static bool
has_right(Oid table, Oid role, AclMode mode)
{
	return pg_class_aclcheck(table, role, mode) == ACLCHECK_OK ||
		   pg_attribute_aclcheck_all(table, role, mode, ACLMASK_ANY) == ACLCHECK_OK;
}

static void
check_right(Oid table, Oid role, AclMode mode, const char *privilege)
{
	char *name = get_rel_name(table);
	char *qualified = quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
												 name);

	if (!has_right(table, role, mode))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for table %s", name),
						errdetail("Role \"%s\" needs the %s privilege on it to send a campaign.",
								  GetUserNameFromId(role, false), privilege),
						errhint("GRANT %s ON %s TO %s;", privilege, qualified,
								quote_identifier(GetUserNameFromId(role, false)))));
}

static void
check_schema_right(const char *schema, Oid role)
{
	if (!compat_can_use_schema(get_namespace_oid(schema, false), role))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for schema %s", schema),
						errdetail("Role \"%s\" needs the USAGE privilege on it to send a campaign.",
								  GetUserNameFromId(role, false)),
						errhint("GRANT USAGE ON SCHEMA %s TO %s;", quote_identifier(schema),
								quote_identifier(GetUserNameFromId(role, false)))));
}

void
tables_check_rights(const AppTables *tables, Oid role, bool creates_job)
{
	check_schema_right(tables->schema, role);
	check_right(tables->groups, role, ACL_SELECT, "SELECT");
	check_right(tables->lists, role, ACL_SELECT, "SELECT");
	check_right(tables->campaigns, role, ACL_SELECT, "SELECT");
	check_right(tables->list_users, role, ACL_SELECT, "SELECT");
	check_right(tables->list_users, role, ACL_UPDATE, "UPDATE");
	check_right(tables->jobs, role, ACL_SELECT, "SELECT");
	check_right(tables->jobs, role, ACL_UPDATE, "UPDATE");
	if (creates_job)
		check_right(tables->jobs, role, ACL_INSERT, "INSERT");
}

/* "base_url" for "baseUrl"; palloc'd. */
static char *
snake_case(const char *camel)
{
	StringInfoData snake;

	initStringInfo(&snake);
	for (; *camel; camel++)
	{
		if (*camel >= 'A' && *camel <= 'Z')
			appendStringInfo(&snake, "_%c", *camel - 'A' + 'a');
		else
			appendStringInfoChar(&snake, *camel);
	}
	return snake.data;
}

/* The column of that name, or of its snake_case form; NULL for none. */
static const char *
column_for(Oid table, const char *key)
{
	char *snake = snake_case(key);

	if (strcmp(key, "data") == 0)
		return NULL;
	return has_column(table, key) ? key : has_column(table, snake) ? snake : NULL;
}

/*
 * The text of one of the application's values: a column of that name, else a
 * key of data.
 */
static char *
value_expression(Oid table, const char *alias, const char *key)
{
	const char *column = column_for(table, key);

	if (column)
		return psprintf("%s.%s::pg_catalog.text", alias, quote_identifier(column));
	if (has_column(table, "data"))
		return psprintf("%s.data->>%s", alias, quote_literal_cstr(key));
	return pstrdup("NULL::pg_catalog.text");
}

/* A JSON value as people read it: an array or an object is no text. */
static char *
json_text(const char *value)
{
	return psprintf("CASE WHEN pg_catalog.jsonb_typeof((%s)::jsonb) NOT IN ('array', 'object')"
					" THEN (%s)::jsonb #>> '{}' END",
					value, value);
}

/* As value_expression, for people to read. */
static char *
text_expression(Oid table, const char *alias, const char *key)
{
	const char *column = column_for(table, key);
	Oid			type = column ? get_atttype(table, get_attnum(table, column)) : InvalidOid;

	if (column == NULL)
		return has_column(table, "data")
				   ? json_text(psprintf("%s.data::jsonb->%s", alias, quote_literal_cstr(key)))
				   : pstrdup("NULL::pg_catalog.text");
	if (type == JSONOID || type == JSONBOID)
		return json_text(psprintf("%s.%s", alias, quote_identifier(column)));
	if (type_is_array(type) || type_is_rowtype(type))
		return pstrdup("NULL::pg_catalog.text");
	return value_expression(table, alias, key);
}

static char *
table_name(Oid table)
{
	char *name = get_rel_name(table);
	char *schema = name ? get_namespace_name(get_rel_namespace(table)) : NULL;

	if (schema == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("a table of the application has been dropped")));
	return quote_qualified_identifier(schema, name);
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

char *
tables_find_foreign_code(const AppTables *tables, Oid role)
{
	Oid oids[NUM_TABLES];

	list_tables(tables, oids);
	return find_foreign_code(role, oids, NUM_TABLES);
}

/* Is each table still the one of its name?  Our statements have names. */
static bool
names_are_the_same(const AppTables *tables)
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
 * No statement is planned or executed without this, as planning runs code,
 * too: a superuser runs no code but a superuser's.
 */
static void
check_code(const AppTables *tables)
{
	Oid oids[NUM_TABLES];

	if (!superuser())
		return;
	list_tables(tables, oids);
	check_code_once(oids, NUM_TABLES, tables->schema);
	if (!names_are_the_same(tables))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("a table of the application has been dropped or renamed")));
}

/* Runs a statement that is used once; returns the number of rows. */
static uint64
query(const AppTables *tables, const char *sql, int nargs, Oid *types, Datum *values)
{
	int result;

	check_code(tables);
	result = SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	return SPI_processed;
}

static uint64
query_by_id(const AppTables *tables, const char *sql, int64 id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(id);

	return query(tables, sql, 1, &type, &value);
}

void
tables_check_group(const char *schema, int64 group_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(group_id);
	Oid	  groups;
	char *sql;

	if (superuser())
		return;
	groups = find_table(schema, find_schema(schema), "groups");
	if (schema_is_of_callers_choice())
		check_code_is_trusted(GetUserId(), &groups, 1, schema);
	sql = psprintf("SELECT FROM %s g WHERE g.id OPERATOR(pg_catalog.=) $1", table_name(groups));
	spi_check(SPI_execute_with_args(sql, 1, &type, &value, NULL, true, 1), SPI_OK_SELECT,
			  "could not read the group");
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg("group %lld does not exist", (long long) group_id),
						errhint("Check that it is in \"%s.groups\" and that your role may see it.",
								schema)));
}

/*
 * Prepares a statement, and has its generic plan made now, with sequential
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
	plan = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep a plan");
	ReleaseCachedPlan(SPI_plan_get_cached_plan(plan), CurrentResourceOwner);
	AtEOXact_GUC(true, level);
	return plan;
}

static uint64
execute(const AppTables *tables, SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int result;

	check_code(tables);
	result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
	return SPI_processed;
}

bool
tables_has_campaign(const AppTables *tables, int64 campaign_id)
{
	return query_by_id(tables,
					   psprintf("SELECT FROM %s WHERE id = $1", table_name(tables->campaigns)),
					   campaign_id) > 0;
}

bool
tables_has_job(const AppTables *tables, int64 job_id)
{
	return query_by_id(tables, psprintf("SELECT FROM %s WHERE id = $1", table_name(tables->jobs)),
					   job_id) > 0;
}

int64
tables_create_job(const AppTables *tables)
{
	StringInfoData columns;
	StringInfoData values;

	initStringInfo(&columns);
	initStringInfo(&values);
	appendStringInfoString(&columns, "progress");
	appendStringInfoString(&values, "5");
	if (has_column(tables->jobs, "data"))
	{
		appendStringInfoString(&columns, ", data");
		appendStringInfoString(&values, ", '{}'");
	}
	if (has_column(tables->jobs, "created_at"))
	{
		appendStringInfoString(&columns, ", created_at");
		appendStringInfoString(&values, ", pg_catalog.now()");
	}
	if (has_column(tables->jobs, "updated_at"))
	{
		appendStringInfoString(&columns, ", updated_at");
		appendStringInfoString(&values, ", pg_catalog.now()");
	}
	if (query(tables,
			  psprintf("INSERT INTO %s (%s) VALUES (%s) RETURNING id::pg_catalog.int8",
					   table_name(tables->jobs), columns.data, values.data),
			  0, NULL, NULL) != 1)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("could not create a background job"),
						errdetail("The INSERT on table \"%s\" was suppressed by a trigger or rule.",
								  get_rel_name(tables->jobs))));
	return spi_int64(0, 1);
}

/* ", updated_at = now()" where there is such a column and a right to it. */
static const char *
touch_clause(Oid table)
{
	AttrNumber column = get_attnum(table, "updated_at");

	if (column == InvalidAttrNumber ||
		(pg_class_aclcheck(table, GetUserId(), ACL_UPDATE) != ACLCHECK_OK &&
		 pg_attribute_aclcheck(table, column, GetUserId(), ACL_UPDATE) != ACLCHECK_OK))
		return "";
	return ", updated_at = pg_catalog.now()";
}

void
tables_reopen_job(const AppTables *tables, int64 job_id)
{
	(void) query_by_id(tables,
					   psprintf("UPDATE %s SET error = NULL%s WHERE id = $1",
								table_name(tables->jobs), touch_clause(tables->jobs)),
					   job_id);
}

/*
 * Read-only for SPI, which then takes the active snapshot, as the cursors over
 * the list do: all of them must see the same.
 */
uint64
tables_read_campaign(const AppTables *tables, int64 campaign_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(campaign_id);
	char *sql = psprintf("SELECT %s, %s, c.ac_list_id::pg_catalog.int8 FROM %s c WHERE c.id = $1",
						 value_expression(tables->campaigns, "c", "message"),
						 value_expression(tables->campaigns, "c", "baseUrl"),
						 table_name(tables->campaigns));

	check_code(tables);
	spi_check(SPI_execute_with_args(sql, 1, &type, &value, NULL, true, 0), SPI_OK_SELECT,
			  "could not read the campaign");
	return SPI_processed;
}

/* Credentials come as values in a result, and are in no statement's text. */
void
tables_read_group(AppTables *tables, int64 campaign_id, int64 list_id)
{
	Datum values[] = {Int64GetDatum(campaign_id), Int64GetDatum(list_id)};
	Oid	  types[] = {INT8OID, INT8OID};

	if (tables->read_group == NULL)
		tables->read_group = prepare(
			tables,
			psprintf(
				"SELECT c.id IS NOT NULL, l.id IS NOT NULL, g.id::pg_catalog.int8,"
				" g.configuration->>'twilioAccountSid',"
				" g.configuration->>'twilioAuthToken',"
				" g.configuration->>'twilioApiKeySid',"
				" g.configuration->>'twilioApiKeySecret',"
				" CASE pg_catalog.jsonb_typeof(g.configuration::jsonb->'twilioFromSmsNumber')"
				" WHEN 'array' THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text("
				"  g.configuration::jsonb->'twilioFromSmsNumber'))"
				" ELSE ARRAY[g.configuration->>'twilioFromSmsNumber'] END,"
				" g.configuration->>'twilioMessagingServiceSid',"
				" g.configuration->>'twilioMessagesPerSecond',"
				" coalesce(g.configuration->'quietHours'->>'from',"
				" CASE WHEN pg_catalog.jsonb_typeof(g.configuration::jsonb->'quietHours') <> 'null'"
				"  THEN g.configuration->>'quietHours' END),"
				" g.configuration->'quietHours'->>'to',"
				" g.configuration->>'timeZone',"
				" (%s)::pg_catalog.timestamptz"
				" FROM (SELECT) one"
				" LEFT JOIN %s c ON c.id = $1"
				" LEFT JOIN %s l ON l.id = $2"
				" LEFT JOIN %s g ON g.id = l.group_id",
				value_expression(tables->campaigns, "c", "sendUntil"),
				table_name(tables->campaigns), table_name(tables->lists),
				table_name(tables->groups)),
			2, types);
	if (execute(tables, tables->read_group, values, NULL) != 1)
		elog(ERROR, "more than one list or group with one id");
}

Portal
tables_open_list(const AppTables *tables, int64 list_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(list_id);

	check_code(tables);
	return SPI_cursor_open_with_args(NULL,
									 psprintf("SELECT u.id::pg_catalog.int8 FROM %s u"
											  " WHERE u.ac_list_id = $1 ORDER BY u.id",
											  table_name(tables->list_users)),
									 1, &type, &value, NULL, true, CURSOR_OPT_NO_SCROLL);
}

Portal
tables_open_phones(const AppTables *tables, int64 list_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(list_id);

	check_code(tables);
	return SPI_cursor_open_with_args(NULL,
									 psprintf("SELECT u.id::pg_catalog.int8, %s FROM %s u"
											  " WHERE u.ac_list_id OPERATOR(pg_catalog.=) $1",
											  value_expression(tables->list_users, "u", "sms"),
											  table_name(tables->list_users)),
									 1, &type, &value, NULL, true, CURSOR_OPT_NO_SCROLL);
}

void
tables_want_keys(AppTables *tables, List *keys)
{
	tables->keys = keys;
	free_plan(&tables->read_recipients);
}

/* ARRAY[...] of the values of the keys that are wanted. */
static char *
values_expression(const AppTables *tables)
{
	StringInfoData values;
	ListCell	  *cell;

	initStringInfo(&values);
	appendStringInfoString(&values, "ARRAY[");
	foreach (cell, tables->keys)
		appendStringInfo(&values, "%s%s", cell == list_head(tables->keys) ? "" : ", ",
						 text_expression(tables->list_users, "u", lfirst(cell)));
	appendStringInfoString(&values, "]::pg_catalog.text[]");
	return values.data;
}

uint64
tables_read_recipients(AppTables *tables, Datum ids, int64 list_id)
{
	Datum values[] = {ids, Int64GetDatum(list_id)};
	Oid	  types[] = {INT8ARRAYOID, INT8OID};

	if (tables->read_recipients == NULL)
		tables->read_recipients = prepare(
			tables,
			psprintf("SELECT r.id, u.id IS NOT NULL,"
					 " coalesce(u.ac_list_id = $2, false), %s, %s, %s"
					 " FROM pg_catalog.unnest($1) WITH ORDINALITY r(id, n)"
					 " LEFT JOIN %s u ON u.id = r.id ORDER BY r.n",
					 value_expression(tables->list_users, "u", "sms"),
					 value_expression(tables->list_users, "u", "timeZone"),
					 values_expression(tables), table_name(tables->list_users)),
			2, types);
	return execute(tables, tables->read_recipients, values, NULL);
}

/*
 * sentCount as a key of data: other keys stay, and as the row's newest
 * version is updated, so do changes that others make at the same time.  A
 * missing count is 0, and so is one that is no number.
 */
static char *
count_in_data(Oid table)
{
	bool is_json = get_atttype(table, get_attnum(table, "data")) == JSONOID;

	return psprintf(
		"data = CASE pg_catalog.jsonb_typeof(coalesce(data::jsonb, '{}'))"
		" WHEN 'object' THEN coalesce(data::jsonb, '{}') || pg_catalog.jsonb_build_object('sentCount',"
		"  CASE WHEN pg_catalog.jsonb_typeof(data::jsonb->'sentCount') = 'number'"
		"    OR data->>'sentCount' ~ '^-?[0-9]{1,99}$'"
		"  THEN (data->>'sentCount')::pg_catalog.numeric ELSE 0 END + 1)"
		" WHEN 'null' THEN pg_catalog.jsonb_build_object('sentCount', 1)"
		" ELSE data::jsonb END%s",
		is_json ? "::pg_catalog.json" : "");
}

static char *
count_clause(Oid table)
{
	const char *column = has_column(table, "sentCount")	   ? "sentCount"
						 : has_column(table, "sent_count") ? "sent_count"
														   : NULL;

	if (column)
		return psprintf("%s = coalesce(%s, 0) OPERATOR(pg_catalog.+) 1", quote_identifier(column),
						quote_identifier(column));
	if (has_column(table, "data"))
		return count_in_data(table);
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
					errmsg("table \"%s\" has neither a column \"sentCount\" nor a column \"data\"",
						   get_rel_name(table))));
}

void
tables_count_sent(AppTables *tables, Datum ids)
{
	Oid type = INT8ARRAYOID;

	if (tables->count_sent == NULL)
		tables->count_sent = prepare(
			tables,
			psprintf("UPDATE %s SET %s%s WHERE id = ANY ($1)", table_name(tables->list_users),
					 count_clause(tables->list_users), touch_clause(tables->list_users)),
			1, &type);
	(void) execute(tables, tables->count_sent, &ids, NULL);
}

uint64
tables_lock_recipients(AppTables *tables, Datum ids)
{
	Oid	  type = INT8ARRAYOID;
	char *name = table_name(tables->list_users);

	if (tables->lock_recipients == NULL)
		tables->lock_recipients = prepare(
			tables,
			psprintf("WITH got AS (SELECT id FROM %s WHERE id = ANY ($1)"
					 " FOR NO KEY UPDATE SKIP LOCKED)"
					 " SELECT u.id::pg_catalog.int8, u.id IN (SELECT id FROM got)"
					 " FROM %s u WHERE u.id = ANY ($1)",
					 name, name),
			1, &type);
	return execute(tables, tables->lock_recipients, &ids, NULL);
}

void
tables_lock_all(const AppTables *tables, Datum ids)
{
	Oid type = INT8ARRAYOID;

	(void) query(tables,
				 psprintf("SELECT FROM %s WHERE id = ANY ($1) FOR NO KEY UPDATE NOWAIT",
						  table_name(tables->list_users)),
				 1, &type, &ids);
}

/* Counts go into the job's data, beside what the application keeps there. */
static char *
data_clause(Oid table)
{
	bool is_json;

	if (!has_column(table, "data"))
		return pstrdup("");
	is_json = get_atttype(table, get_attnum(table, "data")) == JSONOID;
	return psprintf(", data = (CASE pg_catalog.jsonb_typeof(data::jsonb)"
					" WHEN 'object' THEN data::jsonb OPERATOR(pg_catalog.-) 'nextAt'::pg_catalog.text"
					" ELSE '{}' END || $3)%s",
					is_json ? "::pg_catalog.json" : "");
}

void
tables_report_progress(AppTables *tables, int64 job_id, int progress, Datum counts)
{
	Datum values[] = {Int64GetDatum(job_id), Int32GetDatum(progress), counts};
	Oid	  types[] = {INT8OID, INT4OID, JSONBOID};

	if (tables->report_progress == NULL)
		tables->report_progress = prepare(
			tables,
			psprintf("UPDATE %s SET progress = $2%s%s WHERE id = $1", table_name(tables->jobs),
					 data_clause(tables->jobs), touch_clause(tables->jobs)),
			3, types);
	(void) execute(tables, tables->report_progress, values, NULL);
}

void
tables_report_if_free(const AppTables *tables, int64 job_id, Datum counts)
{
	Datum values[] = {Int64GetDatum(job_id), (Datum) 0, counts};
	Oid	  types[] = {INT8OID, INT4OID, JSONBOID};
	char *name = table_name(tables->jobs);

	if (has_column(tables->jobs, "data"))
		(void) query(tables, psprintf("UPDATE %s SET %s%s WHERE id OPERATOR(pg_catalog.=)"
							  " (SELECT j.id FROM %s j WHERE j.id OPERATOR(pg_catalog.=) $1"
							  "  FOR NO KEY UPDATE SKIP LOCKED)",
							  name, data_clause(tables->jobs) + strlen(", "), touch_clause(tables->jobs), name),
					 3, types, values);
}

uint64
tables_report_end(AppTables *tables, int64 job_id, int progress, Datum counts, const char *error)
{
	Datum values[] = {Int64GetDatum(job_id), Int32GetDatum(progress), counts,
					  error ? CStringGetTextDatum(error) : (Datum) 0};
	Oid	  types[] = {INT8OID, INT4OID, JSONBOID, TEXTOID};

	if (tables->report_end == NULL)
		tables->report_end = prepare(
			tables,
			psprintf("UPDATE %s SET progress = CASE WHEN $2 < 0 THEN progress ELSE $2 END,"
					 " error = $4%s%s WHERE id = $1",
					 table_name(tables->jobs), data_clause(tables->jobs),
					 touch_clause(tables->jobs)),
			4, types);
	return execute(tables, tables->report_end, values, error ? "    " : "   n");
}
