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

#include "calls/caller.h"
#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
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

/* A failed run continues where it stopped; a test, beside the campaign's own run. */
static void
requeue_failed_run(const AppTables *tables, int64 campaign_id, int64 id, int64 job_id, Oid role)
{
	bool is_test;

	if (!runs_requeue(id, role, tables->list_users, &is_test))
		fail_campaign_is_sending(campaign_id);
	if (!is_test)
		tables_reopen_job(tables, job_id);
}

/*
 * Handles a run that exists: continues it, does nothing, or throws.  Returns
 * true if it continues.
 */
static bool
meet_existing_run(const AppTables *tables, int64 campaign_id, int64 job_id, Oid role, Oid caller)
{
	Oid	  types[] = {INT8OID, TEXTOID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id), CStringGetTextDatum(tables->schema),
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	char *state;
	int64 id;

	if (own_query(
			"SELECT campaign_id, state, id, (" ROLE_HERE(
				"$3", "$4") ")::int8"
							" FROM sendcampaign.run_data WHERE job_id = $1 AND schema = $2::name",
			4, types, values, NULL) == 0)
		fail_campaign_is_sending(campaign_id);
	if (spi_int64(0, 1) != campaign_id)
		fail_job_is_taken(job_id);

	state = spi_string(0, 2);
	id = spi_int64(0, 3);
	if (strcmp(state, "failed") == 0 &&
		(superuser_arg(caller) || is_member_of_role(caller, (Oid) spi_int64(0, 4))))
	{
		requeue_failed_run(tables, campaign_id, id, job_id, role);
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
	Oid	  types[] = {INT8OID, TEXTOID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id), CStringGetTextDatum(tables->schema),
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	if (own_query(
			"SELECT (" ROLE_HERE(
				"$3", "$4") ")::int8 FROM sendcampaign.run_data"
							" WHERE job_id = $1 AND schema = $2::name AND test_phone IS NOT NULL",
			4, types, values, NULL) == 0)
		return false;
	return superuser_arg(caller) || is_member_of_role(caller, (Oid) spi_int64(0, 1));
}

/*
 * Queues the run; the insertion shows whether the job has a run already, or
 * the campaign is being sent.  Returns true if a worker is needed.
 */
static bool
queue_run(const AppTables *tables, int64 campaign_id, int64 job_id, bool job_is_new, Oid role,
		  Oid caller)
{
	NewRun run = {campaign_id, job_id, role, tables->schema, tables->list_users};
	Oid	   types[] = {INT8OID, TEXTOID};
	Datum  values[] = {Int64GetDatum(job_id), CStringGetTextDatum(tables->schema)};

	if (runs_insert(&run))
		return true;
	if (job_is_new && own_query("SELECT FROM sendcampaign.run_data"
								" WHERE job_id = $1 AND schema = $2::name",
								2, types, values, NULL) > 0)
		fail_new_job_has_run(tables, job_id);
	return meet_existing_run(tables, campaign_id, job_id, role, caller);
}

/* The same for a job that the caller names, or a test's number. */
static bool
queue_for_job(const AppTables *tables, int64 campaign_id, int64 job_id, Oid role, Oid caller)
{
	if (job_id < 0 && is_test_of(caller, tables, job_id))
		return meet_existing_run(tables, campaign_id, job_id, role, caller);
	check_job(tables, job_id);
	return queue_run(tables, campaign_id, job_id, false, role, caller);
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

/* send_campaign(campaign_id bigint, job_id bigint) returns bigint */
Datum
send_campaign(PG_FUNCTION_ARGS)
{
	int64		campaign_id;
	int64		job_id;
	bool		create_job = PG_ARGISNULL(1);
	AppTables  *tables;
	Oid			role;
	ActingScope scope;

	check_arguments(fcinfo);
	campaign_id = PG_GETARG_INT64(0);
	spi_connect();
	tables = open_tables_of_caller(&role);
	check_sender(tables, role, create_job);

	/* from here on, even a superuser's call may do only what that role may */
	act_as(role, &scope);
	check_campaign(tables, campaign_id);

	job_id = create_job ? tables_create_job(tables) : PG_GETARG_INT64(1);
	if (create_job ? queue_run(tables, campaign_id, job_id, true, role, scope.caller)
				   : queue_for_job(tables, campaign_id, job_id, role, scope.caller))
		start_worker_at_commit(role);
	act_as_caller(role, &scope);
	if (!sendcampaign_enabled)
		ereport(WARNING,
				(errmsg("campaign %lld is queued, but sending is switched off",
						(long long) campaign_id),
				 errhint("It will be sent once \"sendcampaign.enabled\" is on and"
						 " sendcampaign.wake() is called.")));
	spi_finish();
	PG_RETURN_INT64(job_id);
}
