/*-------------------------------------------------------------------------
 *
 * send_campaign.c
 *	  send_campaign(): queues a run in the caller's transaction.
 *
 * It reads nothing of the list, so it costs the same for lists of any length.
 * A unique index on the job, and one on the campaign of unfinished runs,
 * decide between concurrent callers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/audience.h"
#include "calls/caller.h"
#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/citus.h"
#include "database/home.h"
#include "database/list_query.h"
#include "database/own_tables.h"
#include "database/rehearse.h"
#include "database/run_table.h"
#include "database/tables_home.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "worker/start_worker.h"

PG_FUNCTION_INFO_V1(send_campaign);

static void
check_job(const AppTables *tables, int64 job_id)
{
	if (!tables_has_job(tables, job_id))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("background job %lld does not exist", (long long) job_id),
				 errhint("Check that it is in \"%s.ac_background_jobs\" and that your role may see"
						 " it, or omit it to have one created.",
						 tables->schema)));
}

static void
fail_job_is_taken(int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("background job %lld belongs to another campaign", (long long) job_id),
			 errhint("Use a separate background job each time you send a campaign, or omit it to"
					 " have one created.")));
}

/* The application's sequence has returned to numbers that jobs had before. */
static void
fail_new_job_has_run(const AppTables *tables, int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("the new background job %lld already has a run", (long long) job_id),
			 errdetail("The ids of \"%s.ac_background_jobs\" have been used before.",
					   tables->schema),
			 errhint("Set the table's sequence to a value greater than all job ids in"
					 " sendcampaign.run.")));
}

/* A failed run that is called again. */
typedef struct Requeuing
{
	const NewRun *run;
	int64		  id;
	bool		  is_test;
} Requeuing;

static void
requeue(void *arg)
{
	Requeuing *requeuing = arg;

	if (!runs_requeue(requeuing->id, requeuing->run, &requeuing->is_test))
		fail_campaign_is_sending(requeuing->run->campaign_id);
}

/* It continues where it stopped; a test, beside the campaign's own run. */
static void
requeue_failed_run(const AppTables *tables, const NewRun *run, int64 id)
{
	Requeuing requeuing = {run, id};

	reopen_run(requeue, &requeuing, run->campaign_id);
	if (!requeuing.is_test)
		tables_reopen_job(tables, run->job_id);
}

/* Recipients are selected once, by a query that runs as the role for which it was given. */
static void
check_same_recipients(const NewRun *run, int64 id)
{
	Oid	  types[] = {INT8OID, TEXTOID, OIDOID};
	Datum values[] = {Int64GetDatum(id), optional_text(run->recipients),
					  ObjectIdGetDatum(run->role)};

	if (run->recipients &&
		own_query("SELECT FROM sendcampaign.run_data WHERE id = $1 AND total IS NOT NULL"
				  " AND recipients IS DISTINCT FROM $2",
				  2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the recipients of background job %lld have been selected already",
						(long long) run->job_id),
				 errhint("Omit the query to continue with them, or use another background job.")));
	if (run->recipients == NULL &&
		own_query("SELECT role::text FROM sendcampaign.run_data WHERE id = $1 AND total IS NULL"
				  " AND recipients IS NOT NULL AND role_oid <> $3",
				  3, types, values, " n ") > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the query that selects the recipients of job %lld is of role \"%s\"",
						(long long) run->job_id, spi_string(0, 1)),
				 errdetail("It would run with the rights of role \"%s\".",
						   GetUserNameFromId(run->role, false)),
				 errhint("Look at \"recipients\" in sendcampaign.run, and pass the query.")));
}

/*
 * Handles a run that exists: continues it, does nothing, or throws.  Returns
 * true if it continues.
 */
static bool
meet_existing_run(const AppTables *tables, const NewRun *run, Oid caller)
{
	int64 campaign_id = run->campaign_id;
	int64 job_id = run->job_id;
	char *state;
	int64 id;

	if (query_run_of_job("SELECT campaign_id, state, id, (" ROLE_HERE(
							 "$3", "$4") ")::int8"
										 " FROM sendcampaign.run_data WHERE" IS_RUN_OF_JOB,
						 job_id, tables->schema) == 0)
		fail_campaign_is_sending(campaign_id);
	if (spi_int64(0, 1) != campaign_id)
		fail_job_is_taken(job_id);

	state = spi_string(0, 2);
	id = spi_int64(0, 3);
	if (strcmp(state, "failed") == 0 &&
		(superuser_arg(caller) || is_member_of_role(caller, (Oid) spi_int64(0, 4))))
	{
		NewRun again = *run; /* what was selected stays, unless the caller passes a query */

		again.recipients = run->given;
		check_same_recipients(&again, id);
		requeue_failed_run(tables, &again, id);
		return true;
	}
	ereport(NOTICE,
			(errmsg("campaign %lld is already in state \"%s\" for background job %lld",
					(long long) campaign_id, state, (long long) job_id),
			 errdetail("Nothing is sent a second time."),
			 strcmp(state, "paused") == 0
				? errhint("Call sendcampaign.resume() to continue it.")
				: 0));
	return false;
}

/* Tells whether the caller has a test with this number, which has no job. */
static bool
is_test_of(Oid caller, const AppTables *tables, int64 job_id)
{
	if (query_run_of_job("SELECT (" ROLE_HERE("$3", "$4") ")::int8 FROM sendcampaign.run_data"
														  " WHERE" IS_RUN_OF_JOB
														  " AND test_phone IS NOT NULL",
						 job_id, tables->schema) == 0)
		return false;
	return superuser_arg(caller) || is_member_of_role(caller, (Oid) spi_int64(0, 1));
}

/*
 * Another node must not have sent the job.  If its run is here, and the node that
 * has marked it is not in the cluster, that is what this node was before
 * pg_upgrade, or one that is gone: a run that continues reads back what has been
 * sent.
 */
static void
mark_job(const AppTables *tables, int64 job_id)
{
	int64 run_id;
	bool  has_failed;

	if (!citus_is_here() ||
		query_run_of_job("SELECT id, state = 'failed' FROM sendcampaign.run_data"
						 " WHERE" IS_RUN_OF_JOB " AND finished_at IS NOT NULL"
						 " AND " IS_AT_HOME("$3", "$4"),
						 job_id, tables->schema) == 0)
	{
		tables_mark_job(tables, job_id);
		return;
	}
	run_id = spi_int64(0, 1);
	has_failed = spi_bool(0, 2);
	if (tables_take_job(tables, job_id, false) && has_failed)
		runs_read_back_first(run_id);
}

/*
 * Queues the run; the insertion shows whether the job has a run already, or
 * the campaign is being sent.  Returns true if a worker is needed.
 */
static bool
queue_run(const AppTables *tables, const NewRun *run, bool job_is_new, Oid caller)
{
	mark_job(tables, run->job_id);
	if (runs_insert(run))
		return true;
	if (job_is_new && query_run_of_job("SELECT FROM sendcampaign.run_data WHERE" IS_RUN_OF_JOB,
									   run->job_id, tables->schema) > 0)
		fail_new_job_has_run(tables, run->job_id);
	return meet_existing_run(tables, run, caller);
}

/* The same for a job that the caller names, or a test's number. */
static bool
queue_for_job(const AppTables *tables, const NewRun *run, Oid caller)
{
	if (run->job_id < 0 && is_test_of(caller, tables, run->job_id))
		return meet_existing_run(tables, run, caller);
	check_job(tables, run->job_id);
	return queue_run(tables, run, false, caller);
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	check_writable("send_campaign()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("campaign_id must not be null"),
				 errhint("Pass the id of a row in \"ac_campaigns\".")));
}

static void
warn_if_switched_off(int64 campaign_id)
{
	if (!sendcampaign_enabled)
		ereport(WARNING,
				(errmsg("campaign %lld is queued, but sending is switched off",
						(long long) campaign_id),
				 errhint("It will be sent once \"sendcampaign.enabled\" is on and"
						 " sendcampaign.wake() is called.")));
}

static void
set_audience(const AppTables *tables, NewRun *run, char *query)
{
	Audience audience = find_audience(tables, run->campaign_id, query);

	run->given = query;
	run->recipients = audience.query;
	run->query_list = audience.list_id;
	if (run->recipients)
		list_query_check(run->recipients);
}

/* A run that has failed here goes on here, even if its tables have moved to another node of Citus. */
static bool
has_failed_here(int64 job_id)
{
	return citus_is_here() &&
		   query_run_of_job("SELECT FROM sendcampaign.run_data WHERE" IS_RUN_OF_JOB
							" AND state = 'failed' AND " IS_AT_HOME("$3", "$4"),
							job_id, sendcampaign_schema) > 0;
}

/* send_campaign(campaign_id bigint, job_id bigint, recipients text) returns bigint */
Datum
send_campaign(PG_FUNCTION_ARGS)
{
	NewRun		run = {0};
	bool		create_job = PG_ARGISNULL(1);
	AppTables  *tables;
	ActingScope scope;

	check_arguments(fcinfo);
	run.campaign_id = PG_GETARG_INT64(0);
	spi_connect();
	tables = !create_job && has_failed_here(PG_GETARG_INT64(1)) ? open_tables_anywhere(&run.role)
																: open_tables_of_caller(&run.role);
	check_sender(tables, run.role, create_job);
	run.schema = tables->schema;
	run.list_users = tables->list_users;

	/* from here on, even a superuser's call may do only what that role may */
	act_as(run.role, &scope);
	tables_rehearse(tables, true);
	check_campaign(tables, run.campaign_id);
	set_audience(tables, &run, PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2)));

	run.job_id = create_job ? tables_create_job(tables) : PG_GETARG_INT64(1);
	if (create_job ? queue_run(tables, &run, true, scope.caller)
				   : queue_for_job(tables, &run, scope.caller))
		start_worker_at_commit(run.role);
	act_as_caller(run.role, &scope);
	warn_if_switched_off(run.campaign_id);
	spi_finish();
	PG_RETURN_INT64(run.job_id);
}
