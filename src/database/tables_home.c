/*-------------------------------------------------------------------------
 *
 * tables_home.c
 *	  With Citus: which node sends the campaigns of the application's tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "database/citus.h"
#include "database/columns.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/tables_home.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

/* The key of the job's data that says who sends it, see home_mark(). */
#define MARK "sentBy"

/* The tables that are written come first. */
static int32
group_of_tables(const AppTables *tables)
{
	Oid relations[NUM_TABLES] = {tables->list_users, tables->jobs, tables->groups, tables->lists,
								 tables->campaigns};

	return citus_group_of(relations, NUM_TABLES, 2);
}

/* The columns of a job that have the mark; an application may replace what is in the first. */
static const char *const mark_columns[] = {"data", "internal_data"};

/* Tells whether the column can have a mark, for roles that may read and update it. */
static bool
is_for_marks(Oid jobs, const char *column)
{
	Oid type = column_type(jobs, column);

	return (type == JSONBOID || type == JSONOID) && can_write_column(jobs, column, CMD_UPDATE);
}

static bool
has_mark(Oid jobs, const char *column)
{
	return is_for_marks(jobs, column) && may_use_column(jobs, column, ACL_UPDATE) &&
		   may_use_column(jobs, column, ACL_SELECT);
}

static bool
some_column(const AppTables *tables, bool (*is_suitable)(Oid jobs, const char *column))
{
	for (int i = 0; i < lengthof(mark_columns); i++)
	{
		if (is_suitable(tables->jobs, mark_columns[i]))
			return true;
	}
	return false;
}

static bool
can_be_marked(const AppTables *tables)
{
	return some_column(tables, has_mark);
}

/*
 * Without a column for the mark, nothing would tell another node, to which the
 * tables have moved, that the job was sent here.  Tables that are not
 * distributed stay where they are.
 */
static void
check_can_be_marked(const AppTables *tables, int32 group, bool suitable)
{
	const char *table;

	if (suitable || (group <= 0 && !citus_has_table(tables->jobs)))
		return;
	table = table_title(tables->jobs);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 some_column(tables, is_for_marks)
				 ? errmsg("the column \"data\" of table \"%s\" may not be read and updated", table)
			 : some_column(tables, has_column)
				 ? errmsg("table \"%s\" has no column \"data\" of type jsonb that can be updated",
						  table)
				 : errmsg("table \"%s\" has no column \"data\"", table),
			 errdetail("In a schema that Citus distributes, the job says there which node sends"
					   " it."),
			 some_column(tables, is_for_marks)
				 ? errhint("Grant SELECT and UPDATE on the column to the role that sends.")
				 : errhint("Add the column \"data\" of type jsonb.")));
}

int32
tables_check_layout(const AppTables *tables)
{
	int32 group;

	if (!citus_is_here())
		return -1;
	group = group_of_tables(tables);
	/* whoever only looks need not have the rights, nor does a superuser's call say what the role may */
	check_can_be_marked(tables, group, some_column(tables, is_for_marks));
	return group;
}

void
tables_check_home(const AppTables *tables, int32 group)
{
	char *node;

	if (group == citus_local_group())
		return;
	node = citus_node_name(group);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the tables in schema \"%s\" are on another node, %s",
					tables->schema, node ? node : "unknown"),
			 errdetail("A campaign is sent by the node that has its tables."),
			 errhint("Connect to that node, and call the function there.")));
}

/* SQL: the mark in this column of job j; null if there is none, or if it cannot be read. */
static char *
mark_in(Oid jobs, const char *column)
{
	char *value = psprintf("j.%s", column);
	char *mark = json_value(value, MARK);

	if (column_type(jobs, column) != JSONOID)
		return psprintf("(%s)", mark);
	return psprintf("(CASE WHEN %s THEN %s END)", readable_json(value), mark);
}

/* SQL: the mark of this node, in $2. */
#define OWN_MARK "($2 OPERATOR(pg_catalog.->>) '" MARK "'::pg_catalog.text)"

/* SQL: the mark of job j, another node's if one of the columns has that. */
static char *
mark_expression(Oid jobs)
{
	StringInfoData buf;
	StringInfoData any;

	initStringInfo(&buf);
	initStringInfo(&any);
	for (int i = 0; i < lengthof(mark_columns); i++)
	{
		char *mark;

		if (!has_mark(jobs, mark_columns[i]))
			continue;
		mark = mark_in(jobs, mark_columns[i]);
		appendStringInfo(&buf, " WHEN %s OPERATOR(pg_catalog.<>) " OWN_MARK " THEN %s", mark, mark);
		appendStringInfo(&any, "%s%s", any.len > 0 ? ", " : "", mark);
	}
	return psprintf("(CASE%s ELSE coalesce(%s) END)", buf.data, any.data);
}

/* SQL: the list of SET. */
static char *
set_marks(Oid jobs)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lengthof(mark_columns); i++)
	{
		if (has_mark(jobs, mark_columns[i]))
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
							 merge_clause(jobs, mark_columns[i], "", "$2"));
	}
	return buf.data;
}

/*
 * Returns the node that has made the mark, palloc'd; NULL if it is not in this
 * cluster.  Each node has a system identifier of its own, so only the group
 * tells.
 */
static char *
node_of_mark(const char *mark)
{
	const char *slash = strrchr(mark, '/');
	int32		group = slash ? (int32) strtol(slash + 1, NULL, 10) : -1;

	/* what has our group without being us is what we were before pg_upgrade or a restore */
	return group < 0 || group == citus_local_group() ? NULL : citus_node_name(group);
}

pg_noreturn static void fail_is_marked(int64 job_id, const char *mark);

static void
fail_is_marked(int64 job_id, const char *mark)
{
	char *node = node_of_mark(mark);

	if (node)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("background job %lld is sent by another node, %s",
						(long long) job_id, node),
				 errdetail("Its tables were on that node when the campaign was sent."),
				 errhint("See sendcampaign.run on that node. To send the campaign once more, use"
						 " another background job.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("background job %lld was sent by a node that is not in this cluster",
					(long long) job_id),
			 errdetail("The mark of that node, sentBy in the job's data, is %s.", mark),
			 errhint("If sendcampaign.run has the run of the job, call sendcampaign.resume() to"
					 " continue it here. To send the campaign once more, use another background"
					 " job.")));
}

/* Runs a statement on the job that returns its mark; returns that, or NULL. */
static char *
query_mark(const AppTables *tables, const char *sql, int64 job_id, uint64 *rows)
{
	char *data = psprintf("{\"" MARK "\": \"%s\"}", home_mark());
	Oid	  types[] = {INT8OID, JSONBOID};
	Datum values[] = {Int64GetDatum(job_id), DirectFunctionCall1(jsonb_in, CStringGetDatum(data))};
	SpiCall call = {2, types, values, NULL, .limit = 1};

	*rows = tables_query(tables, sql, &call);
	return *rows > 0 ? spi_string(0, 1) : NULL;
}

/*
 * Writes the mark if the job has none, or the one that is expected: whoever is faster
 * keeps it.  Returns the mark that the job has then, palloc'd, or NULL.
 */
static char *
write_mark(const AppTables *tables, int64 job_id, const char *expected)
{
	char  *name = table_name(tables->jobs);
	char  *mark = mark_expression(tables->jobs);
	char  *condition = expected ? psprintf("OPERATOR(pg_catalog.=) %s::pg_catalog.text",
										   quote_literal_cstr(expected))
								: "IS NULL";
	uint64 rows;
	char  *written = query_mark(
		 tables,
		 psprintf("UPDATE %s j SET %s%s WHERE j.id OPERATOR(pg_catalog.=) $1 AND %s %s RETURNING %s",
				  name, set_marks(tables->jobs), touch_clause(tables->jobs), mark, condition, mark),
		 job_id, &rows);

	if (rows > 0)
		return written;
	return query_mark(tables,
					  psprintf("SELECT %s FROM %s j WHERE j.id OPERATOR(pg_catalog.=) $1"
							   " AND $2::pg_catalog.jsonb IS NOT NULL",
							   mark, name),
					  job_id, &rows);
}

static void
check_mark(const AppTables *tables, int64 job_id, const char *mark)
{
	if (mark == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not mark background job %lld as sent by this node",
						(long long) job_id),
				 errdetail("Its data cannot be read, or a trigger, rule or policy suppressed the"
						   " UPDATE."),
				 errhint("Let the UPDATE of \"%s.ac_background_jobs\" pass, or use another"
						 " background job.",
						 tables->schema)));
	if (strcmp(mark, home_mark()) != 0)
		fail_is_marked(job_id, mark);
}

void
tables_mark_job(const AppTables *tables, int64 job_id)
{
	if (!citus_is_here())
		return;
	if (can_be_marked(tables))
		check_mark(tables, job_id, write_mark(tables, job_id, NULL));
	else
		check_can_be_marked(tables, group_of_tables(tables), false);
}

bool
tables_take_job(const AppTables *tables, int64 job_id, bool anyway)
{
	char *mark;
	bool  taken;

	if (!citus_is_here() || !can_be_marked(tables))
		return false;
	mark = write_mark(tables, job_id, NULL);
	taken = mark && strcmp(mark, home_mark()) != 0 && (anyway || node_of_mark(mark) == NULL);
	if (taken)
		mark = write_mark(tables, job_id, mark);
	check_mark(tables, job_id, mark);
	return taken;
}

/*
 * Tells whether the mark is what this node wrote before pg_upgrade, from where
 * after_pg_upgrade() has taken the run over: the cluster had another system
 * identifier.  The run says so until it has been read back from Twilio's list.
 */
static bool
is_former_mark(const char *mark, int64 run_id)
{
	const char *slash = strchr(mark, '/');
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[] = {Int64GetDatum(run_id), 0};

	if (slash == NULL || strcmp(slash, strchr(home_mark(), '/')) != 0)
		return false;
	values[1] = CStringGetTextDatum(pnstrdup(mark, slash - mark));
	return own_query("SELECT FROM sendcampaign.run_data"
					 " WHERE id = $1 AND timeline = 'pg_upgrade of ' || $2",
					 2, types, values, NULL) > 0;
}

char *
tables_other_sender(const AppTables *tables, int64 job_id, int64 run_id)
{
	char *mark;
	char *node;

	if (!citus_is_here() || !can_be_marked(tables))
		return NULL;
	mark = write_mark(tables, job_id, NULL);
	if (mark && strcmp(mark, home_mark()) != 0 && is_former_mark(mark, run_id))
		mark = write_mark(tables, job_id, mark);
	if (mark == NULL || strcmp(mark, home_mark()) == 0)
		return NULL;
	node = node_of_mark(mark);
	return node ? node : pstrdup("?");
}
