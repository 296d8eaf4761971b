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

static bool
has_mark(Oid jobs, const char *column)
{
	Oid type = column_type(jobs, column);

	return (type == JSONBOID || type == JSONOID) && can_write_column(jobs, column, CMD_UPDATE) &&
		   may_use_column(jobs, column, ACL_UPDATE) && may_use_column(jobs, column, ACL_SELECT);
}

/* Without a column for the mark, nothing would tell another node that the job is sent here. */
static bool
can_be_marked(const AppTables *tables)
{
	for (int i = 0; i < lengthof(mark_columns); i++)
	{
		if (has_mark(tables->jobs, mark_columns[i]))
			return true;
	}
	return false;
}

int32
tables_check_layout(const AppTables *tables)
{
	int32 group;

	if (!citus_is_here())
		return -1;
	group = group_of_tables(tables);
	if ((group > 0 || citus_has_table(tables->jobs)) &&
		!has_column(tables->jobs, mark_columns[0]) && !has_column(tables->jobs, mark_columns[1]))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no column \"data\"", table_title(tables->jobs)),
				 errdetail("In a schema that Citus distributes, the job says there which node sends"
						   " it."),
				 errhint("Add the column \"data\" of type jsonb.")));
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

/* Writes the mark if the condition on the job's mark, %s, is true. */
static char *
write_mark(const AppTables *tables, int64 job_id, const char *condition)
{
	char  *name = table_name(tables->jobs);
	char  *mark = mark_expression(tables->jobs);
	uint64 rows;
	char  *written = query_mark(
		 tables,
		 psprintf("UPDATE %s j SET %s%s WHERE j.id OPERATOR(pg_catalog.=) $1 AND %s RETURNING %s",
				  name, set_marks(tables->jobs), touch_clause(tables->jobs),
				  psprintf(condition, mark), mark),
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
	if (citus_is_here() && can_be_marked(tables))
		check_mark(tables, job_id, write_mark(tables, job_id, "%s IS NULL"));
}

bool
tables_take_job(const AppTables *tables, int64 job_id, bool anyway)
{
	char *mark;
	bool  taken;

	if (!citus_is_here() || !can_be_marked(tables))
		return false;
	mark = write_mark(tables, job_id, "%s IS NULL");
	taken = mark && strcmp(mark, home_mark()) != 0 && (anyway || node_of_mark(mark) == NULL);
	if (taken)
		mark = write_mark(tables, job_id, "%s IS NOT NULL");
	check_mark(tables, job_id, mark);
	return taken;
}

char *
tables_other_sender(const AppTables *tables, int64 job_id)
{
	char *mark;
	char *node;

	if (!citus_is_here() || !can_be_marked(tables))
		return NULL;
	mark = write_mark(tables, job_id, "%s IS NULL");
	if (mark == NULL || strcmp(mark, home_mark()) == 0)
		return NULL;
	node = node_of_mark(mark);
	return node ? node : pstrdup("?");
}
