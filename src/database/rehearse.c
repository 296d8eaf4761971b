/*-------------------------------------------------------------------------
 *
 * rehearse.c
 *	  Whether the statements of a run can be executed, found out at the call.
 *
 * The catalogs say enough about ordinary tables.  What views, rules, triggers
 * and policies allow depends on each other, and on the rights of their owners:
 * the one who knows is the planner.  So it is asked, in a subtransaction that
 * is rolled back, so that no lock is kept that only the run needs.  That takes
 * some milliseconds, so a session remembers the last answer until something
 * changes in the catalogs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "database/attempt.h"
#include "database/columns.h"
#include "database/rehearse.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

typedef struct Rehearsal
{
	AppTables	*tables;
	bool		 will_send;
	RunStatement statement;					   /* the one that is tried */
	bool		 is_empty[NUM_RUN_STATEMENTS]; /* the planner knows that it finds no row */
} Rehearsal;

/* Tells whether check.h knows all about the table. */
static bool
is_ordinary(Oid table)
{
	Relation rel = relation_open(table, AccessShareLock);
	bool	 ordinary = rel->rd_rel->relkind == RELKIND_RELATION && !rel->rd_rel->relhasrules &&
					!rel->rd_rel->relrowsecurity;

	relation_close(rel, NoLock);
	return ordinary && !has_subclass(table);
}

static bool
are_ordinary(const AppTables *tables)
{
	return is_ordinary(tables->groups) && is_ordinary(tables->lists) &&
		   is_ordinary(tables->campaigns) && is_ordinary(tables->list_users) &&
		   is_ordinary(tables->jobs);
}

static Oid
table_of(const AppTables *tables, RunStatement statement)
{
	switch (statement)
	{
		case READ_CAMPAIGNS_STATEMENT:
			return tables->campaigns;
		case READ_GROUPS_STATEMENT:
			return tables->groups;
		case PROGRESS_STATEMENT:
		case END_STATEMENT:
			return tables->jobs;
		default:
			return tables->list_users;
	}
}

static bool
has_constant_false(Node *conditions)
{
	ListCell *lc;

	foreach (lc, castNode(List, conditions))
	{
		const Const *condition = lfirst(lc);

		if (IsA(condition, Const) &&
			(condition->constisnull || !DatumGetBool(condition->constvalue)))
			return true;
	}
	return false;
}

static bool finds_no_row(const Plan *plan);

static bool
find_no_row(List *plans)
{
	ListCell *lc;

	foreach (lc, plans)
	{
		if (!finds_no_row(lfirst(lc)))
			return false;
	}
	return true;
}

/*
 * Tells whether a condition on all rows is constant, and false: without a
 * policy that lets a row pass, there is such a one.
 */
static bool
finds_no_row(const Plan *plan)
{
	if (plan == NULL)
		return false;
	if (has_constant_false((Node *) plan->qual))
		return true;
	switch (nodeTag(plan))
	{
		case T_Result:
			return has_constant_false(((const Result *) plan)->resconstantqual) ||
				   finds_no_row(outerPlan(plan));
		case T_ModifyTable:
		case T_LockRows:
		case T_Sort:
			return finds_no_row(outerPlan(plan));
		case T_SubqueryScan:
			return finds_no_row(((const SubqueryScan *) plan)->subplan);
		case T_NestLoop:
		case T_HashJoin:
		case T_MergeJoin:
			return finds_no_row(outerPlan(plan)) ||
				   (((const Join *) plan)->jointype == JOIN_INNER && finds_no_row(innerPlan(plan)));
		case T_Hash:
			return finds_no_row(outerPlan(plan));
		case T_Append:
			return find_no_row(((const Append *) plan)->appendplans);
		default:
			return false;
	}
}

/* As the executor does, before it begins. */
static void
check_plan(Rehearsal *rehearsal, const CachedPlan *plan)
{
	ListCell *lc;

	foreach (lc, plan->stmt_list)
	{
		PlannedStmt *statement = lfirst(lc);

		if (statement->commandType == CMD_UTILITY)
			continue;
		if (rehearsal->will_send)
			compat_check_permissions(statement);
		if (list_length(plan->stmt_list) == 1)
			rehearsal->is_empty[rehearsal->statement] = finds_no_row(statement->planTree);
	}
}

static void
try_statements(void *arg)
{
	Rehearsal *rehearsal = arg;

	/* the worker's sessions have this, whatever the caller's has */
	(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	for (int i = 0; i < NUM_RUN_STATEMENTS; i++)
	{
		CachedPlan *plan;

		rehearsal->statement = i;
		plan = SPI_plan_get_cached_plan(tables_statement(rehearsal->tables, i));
		check_plan(rehearsal, plan);
		ReleaseCachedPlan(plan, CurrentResourceOwner);
	}
}

/* What says nothing about the tables, such as a time-out, is thrown as it is. */
static bool
is_about_tables(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
		default:
			return sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

pg_noreturn static void fail(const Rehearsal *rehearsal, ErrorData *error);

static void
fail(const Rehearsal *rehearsal, ErrorData *error)
{
	bool is_right = error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE;

	if (!is_about_tables(error->sqlerrcode))
		ReThrowError(error);
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("\"%s\" cannot be used to send a campaign",
					table_title(table_of(rehearsal->tables, rehearsal->statement))),
			 errdetail("Reason: %s", reason_text("", error->message, error->detail)),
			 error->hint ? errhint("%s", error->hint)
			 : is_right
				 ? errhint("A view uses its tables with the rights of its owner, or, with"
						   " security_invoker, of role \"%s\". Grant that role SELECT on what it"
						   " reads, and UPDATE on what is counted or reported there.",
						   GetUserNameFromId(GetUserId(), false))
				 : errhint("Rows are locked and updated: a view must be without DISTINCT, GROUP BY"
						   " and outer joins, a rule for UPDATE must have RETURNING, and the count"
						   " must not be a generated column.")));
}

static void
fail_no_row(Oid table)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" cannot update any row of \"%s\"",
					GetUserNameFromId(GetUserId(), false), table_title(table)),
			 errdetail("No policy for UPDATE allows it, or the condition of a view is never true."),
			 errhint("Create a policy for UPDATE, since what was sent is counted in list users and"
					 " reported to the background job.")));
}

/* A table without partitions has no rows to update, but none to send to, either. */
static void
check_finds_rows(const Rehearsal *rehearsal)
{
	if (rehearsal->is_empty[COUNT_STATEMENT] && !rehearsal->is_empty[READ_LISTS_STATEMENT])
		fail_no_row(rehearsal->tables->list_users);
	if (rehearsal->is_empty[END_STATEMENT])
		fail_no_row(rehearsal->tables->jobs);
}

/* What was rehearsed last, with success, in this session. */
typedef struct Rehearsed
{
	Oid	 tables[NUM_TABLES];
	Oid	 role; /* InvalidOid if nothing was, or if something may have changed */
	bool will_send;
} Rehearsed;

static Rehearsed last;

/* Whatever table has changed, a view may use it. */
static void
forget_for_table(Datum arg, Oid relation)
{
	last.role = InvalidOid;
}

static void
forget_for_role(Datum arg, int cacheid, uint32 hashvalue)
{
	last.role = InvalidOid;
}

static void
watch_for_changes(void)
{
	static bool watched = false;

	if (watched)
		return;
	CacheRegisterRelcacheCallback(forget_for_table, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_for_role, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, forget_for_role, (Datum) 0);
	watched = true;
}

/* Tells whether the same was rehearsed last. */
static bool
is_known(const Rehearsed *wanted)
{
	return OidIsValid(last.role) && last.role == wanted->role &&
		   (last.will_send || !wanted->will_send) &&
		   memcmp(last.tables, wanted->tables, sizeof(last.tables)) == 0;
}

void
tables_rehearse(AppTables *tables, bool will_send)
{
	Rehearsal rehearsal = {tables, will_send};
	Rehearsed wanted = {
		{tables->groups, tables->lists, tables->campaigns, tables->list_users, tables->jobs},
		GetUserId(),
		will_send};
	ErrorData *error;

	if (RecoveryInProgress() || are_ordinary(tables) || is_known(&wanted))
		return;
	watch_for_changes();
	error = rehearse(try_statements, &rehearsal);
	tables_close(tables); /* frees the plans, which nobody could after an error */
	if (error)
		fail(&rehearsal, error);
	if (will_send)
		check_finds_rows(&rehearsal);
	last = wanted;
}
