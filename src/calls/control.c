/*-------------------------------------------------------------------------
 *
 * control.c
 *	  What a person does to a run: settle(), pause(), resume(), cancel().
 *
 * If the caller is not a member of the run's role, the error is the same as
 * for a run that does not exist.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "calls/control.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/app_tables.h"
#include "database/attempt.h"
#include "database/citus.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "database/tables_home.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "worker/announce.h"
#include "worker/finish.h"
#include "worker/run_attempt.h"
#include "worker/job.h"
#include "worker/record.h"
#include "worker/recover.h"
#include "worker/start_worker.h"
#include "worker/summary.h"

PG_FUNCTION_INFO_V1(sendcampaign_settle);
PG_FUNCTION_INFO_V1(sendcampaign_pause);
PG_FUNCTION_INFO_V1(sendcampaign_resume);
PG_FUNCTION_INFO_V1(sendcampaign_cancel);

void
fail_no_run(int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("there is no run of background job %lld", (long long) job_id),
			 errhint("See sendcampaign.run for the runs that your role may see.")));
}

bool
is_for_caller(Oid role)
{
	return superuser() || (OidIsValid(role) && compat_can_act_as(GetUserId(), role));
}

#define ROLE	ROLE_HERE("$3", "$4")
#define AT_HOME IS_AT_HOME("$3", "$4")

void
lock_run(int64 job_id, LockedRun *run)
{
	if (query_run_of_job("SELECT state, schema::text, (" ROLE ")::int8, total IS NOT NULL,"
						 " test_phone IS NOT NULL, id, " AT_HOME
						 ", coalesce(list_users, 0)::int8, campaign_id FROM sendcampaign.run_data"
						 " WHERE" IS_RUN_OF_JOB " FOR UPDATE",
						 job_id, sendcampaign_schema) == 0)
		fail_no_run(job_id);
	*run = (LockedRun){.id = spi_int64(0, 6),
					   .job_id = job_id,
					   .campaign_id = spi_int64(0, 9),
					   .role = (Oid) spi_int64(0, 3),
					   .at_home = spi_bool(0, 7),
					   .state = spi_string(0, 1),
					   .schema = spi_string(0, 2),
					   .begun = spi_bool(0, 4),
					   .is_test = spi_bool(0, 5),
					   .list_users = (Oid) spi_int64(0, 8)};
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(run->role)))
		run->role = InvalidOid;
	if (!is_for_caller(run->role))
		fail_no_run(job_id);
}

void
fail_in_state(const LockedRun *run, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the run of background job %lld is in state \"%s\"",
					(long long) run->job_id, run->state),
			 errhint("%s", hint)));
}

/* Tells whether another node of Citus has queued it: a clone has copies of its runs. */
static bool
is_copy(const LockedRun *run)
{
	return !run->at_home && is_of_other_node(run->id);
}

void
check_is_own(const LockedRun *run)
{
	if (is_copy(run))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the run of background job %lld belongs to another node of the Citus"
						" cluster",
						(long long) run->job_id),
				 errdetail("This server is a copy of that node, so it has a copy of the run."),
				 errhint("Call the function on that node. If that node is gone for good, remove it"
						 " from the cluster and call sendcampaign.resume() here first; to end the"
						 " copy, call sendcampaign.cancel().")));
}

static bool
is_in_state(const LockedRun *run, const char *a, const char *b, const char *c)
{
	return strcmp(run->state, a) == 0 || (b && strcmp(run->state, b) == 0) ||
		   (c && strcmp(run->state, c) == 0);
}

/*
 * A person has decided that what was read back after lost commits is not this
 * message.  If it is tried again, it is looked up in Twilio's list all the
 * same.
 */
static void
forget_read_back(const LockedRun *run, int64 list_user_id)
{
	Oid	  types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(run->id), Int64GetDatum(list_user_id)};

	(void) own_query(
		"DELETE FROM sendcampaign.read_back_message WHERE run_id = $1 AND list_user_id = $2", 2,
		types, values, NULL);
}

static void
settle_message(const LockedRun *run, int64 list_user_id, bool sent)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(run->id), Int64GetDatum(list_user_id),
					  CStringGetTextDatum(sent ? "sent" : "failed")};

	if (own_query("UPDATE sendcampaign.message_data SET status = $3, updated_at = now()"
				  " WHERE run_id = $1 AND list_user_id = $2 AND status = 'in_doubt'",
				  3, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("the message of background job %lld to list user %lld is not in doubt",
						(long long) run->job_id, (long long) list_user_id),
				 errhint("Messages in doubt have the status \"in_doubt\" in sendcampaign.message.")));
	if (!sent)
		forget_read_back(run, list_user_id);
	runs_settle(run->id, sent);
}

/* The list user may be somebody else by now. */
static void
count_nowhere(const LockedRun *run, int64 list_user_id)
{
	Datum id = Int64GetDatum(list_user_id);

	(void) mark_uncounted(run->id, make_array(&id, NULL, 1, INT8OID));
	ereport(NOTICE,
			(errmsg("sentCount of list user %lld is not increased", (long long) list_user_id),
			 errdetail("\"%s.ac_list_users\" is not the table with which the run started.",
					   run->schema)));
}

static void
count_settled(AppTables *tables, const LockedRun *run, int64 list_user_id)
{
	Datum id = Int64GetDatum(list_user_id);
	Oid	  began_with;

	(void) own_query_by_id(
		"SELECT list_id, list_users::int8 FROM sendcampaign.run_data WHERE id = $1", run->id);
	began_with = (Oid) spi_int64(0, 2);
	if (OidIsValid(began_with) && began_with != tables->list_users)
		count_nowhere(run, list_user_id);
	else if (mark_uncounted(run->id,
							tables_count_sent(tables, &id, 1, spi_int64(0, 1), InvalidOid)))
		ereport(NOTICE,
				(errmsg("could not increase sentCount of list user %lld", (long long) list_user_id),
				 errdetail("A trigger, rule or policy suppressed the UPDATE.")));
}

/* For a run that has ended; another one gets its summary when it ends. */
static void
write_summary(AppTables *tables, const LockedRun *run)
{
	RunCounts counts;
	char	 *error;

	if (!runs_lock_counts(run->id, &counts))
		return;
	error = run_summary(run->id, &counts, true);
	if (runs_set_summary(run->id, error) && tables)
		job_tell_error(tables, run->job_id, &counts, error);
}

/* sendcampaign.settle(job_id bigint, list_user_id bigint, sent boolean) */
Datum
sendcampaign_settle(PG_FUNCTION_ARGS)
{
	int64		list_user_id = PG_GETARG_INT64(1);
	bool		sent = PG_GETARG_BOOL(2);
	LockedRun	run;
	AppTables  *tables;
	Oid			role;
	bool		told;
	ActingScope scope;

	check_writable("sendcampaign.settle()");
	spi_connect();
	lock_run(PG_GETARG_INT64(0), &run);
	check_is_own(&run);
	tables = tables_open(run.schema);
	settle_message(&run, list_user_id, sent);
	role = run.role;
	told = act_for_run(tables, &role, run.at_home, run.list_users, &scope);
	if (told && sent && !run.is_test) /* a test is not counted */
		count_settled(tables, &run, list_user_id);
	write_summary(told ? tables : NULL, &run);
	act_as_caller(role, &scope);
	tables_close(tables);
	spi_finish();
	PG_RETURN_VOID();
}

/* Writes the run's current state and counts to the job. */
static void
tell_state(AppTables *tables, const LockedRun *run)
{
	RunCounts counts;

	if (runs_lock_counts(run->id, &counts))
		job_tell_state(tables, run->job_id, &counts);
}

static void
write_state_to_job(void *arg)
{
	const LockedRun *run = arg;
	AppTables		*tables = tables_open(run->schema);
	Oid				 role = run->role;
	ActingScope		 scope;

	if (act_for_run(tables, &role, run->at_home, run->list_users, &scope))
		tell_state(tables, run);
	act_as_caller(role, &scope);
	tables_close(tables);
}

/*
 * The job shows the state, too, for an application that polls it.  An error of
 * the application in that must not keep anybody from stopping a run.
 */
static void
tell_job(LockedRun *run)
{
	ErrorData *error;

	if (run->is_test)
		return;
	error = attempt(write_state_to_job, run);
	if (error == NULL)
		return;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not write the state of the run to background job %lld",
					(long long) run->job_id),
			 errdetail_internal("%s", error_text(error)),
			 errhint("See sendcampaign.run for the state of the run.")));
}

/* sendcampaign.pause(job_id bigint) */
Datum
sendcampaign_pause(PG_FUNCTION_ARGS)
{
	LockedRun run;

	check_writable("sendcampaign.pause()");
	spi_connect();
	lock_run(PG_GETARG_INT64(0), &run);
	check_is_own(&run);
	if (!is_in_state(&run, "queued", "running", NULL))
		fail_in_state(&run, "Only a queued or running run can be paused.");
	runs_pause(run.id);
	tell_job(&run);
	if (OidIsValid(run.role))
		wake_worker_at_commit(run.role);
	spi_finish();
	PG_RETURN_VOID();
}

/*
 * Only the role itself may decide that it uses these tables: loaded rows may
 * name any role, and tables with code that waits for it.
 */
static void
check_may_bring_home(const LockedRun *run)
{
	AppTables  *tables;
	ForeignCode foreign;
	bool		is_foreign;
	char	   *role;

	if (!OidIsValid(run->role) || run->role == GetUserId())
		return;
	tables = tables_open(run->schema);
	is_foreign = tables_find_foreign_code(tables, run->role, &foreign);
	tables_close(tables);
	role = GetUserNameFromId(run->role, false);
	if (is_foreign)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the run of background job %lld was queued in another cluster or database,"
						" and role \"%s\" has not chosen the tables in schema \"%s\" of this one",
						(long long) run->job_id, role, run->schema),
				 errdetail("%s belongs to role \"%s\", whose code would run with the rights of"
						   " role \"%s\".",
						   foreign.object, foreign.owner, role),
				 errhint("To continue the run here, have role \"%s\" call"
						 " sendcampaign.resume(%lld).",
						 role, (long long) run->job_id)));
}

/*
 * With Citus, no other node may send it.  Where a dump was loaded, the mark is
 * that of the cluster it comes from.  Returns true if another node, which is
 * gone, may have sent it.
 */
static bool
take_job(const LockedRun *run)
{
	AppTables  *tables;
	Oid			role = run->role;
	bool		taken = false;
	ActingScope scope;

	if (!citus_is_here() || run->is_test)
		return false;
	if (node_of_run(run->id))
		check_is_own(run);
	tables = tables_open(run->schema);
	if (act_for_run(tables, &role, run->at_home, run->list_users, &scope))
		taken = tables_take_job(tables, run->job_id, !run->at_home && !is_copy(run));
	act_as_caller(role, &scope);
	tables_close(tables);
	return taken;
}

/*
 * A run that a person has paused continues from its previous state.  For one
 * that was paused because messages may have been sent that are not recorded
 * here, the tables are taken to be correct.
 */
static void
write_resumed(LockedRun *run)
{
	bool may_be_sent = take_job(run);

	if (!run->at_home)
	{
		check_may_bring_home(run);
		runs_check_query(run->id);
		run->role = runs_bring_home(run->id);
	}
	else if (!runs_resume(run->id))
	{
		runs_check_query(run->id);
		drop_impossible_claims(run->id, run->job_id);
		runs_resume_anew(run->id);
	}
	if (may_be_sent)
		runs_read_back_first(run->id);

	/* quiet hours may have been changed */
	(void) own_query_by_id("UPDATE sendcampaign.batch SET due = NULL"
						   " WHERE run_id = $1 AND due IS NOT NULL",
						   run->id);
}

/* sendcampaign.resume(job_id bigint) */
Datum
sendcampaign_resume(PG_FUNCTION_ARGS)
{
	LockedRun run;

	check_writable("sendcampaign.resume()");
	spi_connect();
	lock_run(PG_GETARG_INT64(0), &run);
	if (!is_in_state(&run, "paused", NULL, NULL))
		fail_in_state(&run, "Only a paused run can be resumed.");
	write_resumed(&run);
	tell_job(&run);
	if (OidIsValid(run.role))
		start_worker_at_commit(run.role);
	spi_finish();
	PG_RETURN_VOID();
}

/* A run that has not begun has nothing to wind up, so it ends here. */
static void
cancel_in_queue(const LockedRun *run)
{
	AppTables  *tables = tables_open(run->schema);
	Oid			role = run->role;
	bool		told;
	ActingScope scope;
	RunCounts	counts;
	char	   *error;

	runs_cancel(run->id, false);
	(void) runs_lock_counts(run->id, &counts);
	error = why_cancelled(run->id, &counts, NULL, false);
	told = act_for_run(tables, &role, run->at_home, run->list_users, &scope);
	if (told && !run->is_test)
		job_tell_end(tables, run->job_id, &counts, "cancelled", error);
	announce_at_commit(runs_end(run->id, "cancelled", error));
	act_as_caller(role, &scope);
	tables_close(tables);
}

/*
 * No worker works on a run that was not queued here, so it ends here, too.  That
 * of which it is a copy tells the job.
 */
static void
cancel_foreign(LockedRun *run)
{
	runs_cancel(run->id, run->begun);
	announce_all_at_commit(
		runs_wind_up(array_of_ids(&run->id, 1),
					 "the run was queued in another cluster or database, so nothing is looked up"));
	if (!is_copy(run))
		tell_job(run);
}

/* sendcampaign.cancel(job_id bigint) */
Datum
sendcampaign_cancel(PG_FUNCTION_ARGS)
{
	LockedRun run;

	check_writable("sendcampaign.cancel()");
	spi_connect();
	lock_run(PG_GETARG_INT64(0), &run);
	if (!is_in_state(&run, "queued", "running", "paused"))
		fail_in_state(&run, "Only a queued, running or paused run can be cancelled.");
	if (!run.begun && !is_copy(&run))
		cancel_in_queue(&run);
	else if (!run.at_home)
		cancel_foreign(&run);
	else
	{
		runs_cancel(run.id, true);
		if (OidIsValid(run.role))
			start_worker_at_commit(run.role);
	}
	spi_finish();
	PG_RETURN_VOID();
}
