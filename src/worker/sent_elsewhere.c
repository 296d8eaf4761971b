/*-------------------------------------------------------------------------
 *
 * sent_elsewhere.c
 *	  With Citus: whether another node has sent a job whose run is in the queue.
 *
 * The mark is in the row of the job, which may be on another node meanwhile.  If
 * that hangs, each attempt to reach it takes seconds, in which the worker serves
 * nobody: so it is made once for all runs whose tables are there, and more and
 * more rarely.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/attempt.h"
#include "database/citus.h"
#include "database/tables_home.h"
#include "worker/left_alone.h"
#include "worker/run_attempt.h"
#include "worker/sent_elsewhere.h"

/*
 * A clone of a node of Citus has that node's runs, and is that node by all that
 * it knows, from its promotion to the moment at which it is registered.  The
 * node itself has had no promotion, so its runs do not get here.
 */
static void
await_clone(Run *run, void *arg)
{
	if (run->commits_lost && citus_has_clone())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this server may be a clone of the node that sends job %lld",
						(long long) run->job_id),
				 errdetail("It has been promoted, and the catalogs of Citus have a clone of this"
						   " node."),
				 errhint("Promote the clone with citus_promote_clone_and_rebalance(), or remove it"
						 " with citus_remove_clone_node().")));
}

/* The node that has a schema's tables. */
typedef struct TablesNode
{
	const char *schema;
	int32		group;
} TablesNode;

static void
read_node(void *arg)
{
	TablesNode *node = arg;
	AppTables  *tables = tables_open(node->schema);

	node->group = tables_check_layout(tables);
	tables_close(tables);
}

/* Returns the group of that node, or -1 if there is no such node. */
static int32
group_of(const Run *run)
{
	TablesNode node = {run->schema, -1};

	return attempt(read_node, &node) == NULL ? node.group : -1;
}

/*
 * The job may have been sent by another node while the run waited: its tables
 * have moved, and the mark was gone.  A test has no job.
 */
char *
find_other_sender(Run *run)
{
	AppTables *tables;
	char	  *node;

	if (run->campaign.test_phone)
		return NULL;
	tables = tables_open(run->schema);
	if (OidIsValid(run->list_users))
		tables_check_chosen(tables, run->list_users);
	node = tables_other_sender(tables, run->job_id, run->id);
	tables_close(tables);
	return node;
}

static void
mark_job(Run *run, void *arg)
{
	*(char **) arg = find_other_sender(run);
}

static void
await_node(Run *run, void *arg)
{
	int32 group = *(int32 *) arg;

	if (group >= 0 && node_is_left_alone(group))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the node that has the tables in schema \"%s\" could not be reached",
						run->schema),
				 errhint("See to it that the nodes of Citus can reach each other.")));
}

static bool
mark(Run *run, char **node)
{
	bool  some = nodes_are_left_alone();
	int32 group = some ? group_of(run) : -1;

	if (some && !attempt_for_run(await_node, run, &group, &run->claiming))
		return false;
	if (attempt_for_run(mark_job, run, node, &run->claiming))
	{
		if (some)
			stop_leaving_node_alone(group);
		return true;
	}
	group = run->claiming.far ? group_of(run) : -1;
	if (group >= 0)
		leave_node_alone(group);
	return false;
}

bool
find_sender(Run *run, bool marks, char **node)
{
	return attempt_for_run(await_clone, run, NULL, &run->claiming) && (!marks || mark(run, node));
}
