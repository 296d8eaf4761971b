/*-------------------------------------------------------------------------
 *
 * retry.c
 *	  retry_failed(): sends failed messages again that may succeed this time.
 *
 * Messages fail only if Twilio is proven not to have accepted them, so all of
 * them could be sent again.  Those that were refused for their recipient, text
 * or account would be refused again.  A message that Twilio took, but could not
 * deliver, because the phone was out of reach, is sent once more: that is
 * another message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "calls/control.h"
#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/own_tables.h"
#include "database/receipt_table.h"
#include "database/run_table.h"
#include "fmgr.h"
#include "settings.h"
#include "twilio/classify.h"
#include "worker/batch.h"
#include "worker/job.h"
#include "worker/start_worker.h"

PG_FUNCTION_INFO_V1(sendcampaign_retry_failed);

/* Twilio's error code for a phone that was switched off, or out of reach. */
#define HANDSET_UNREACHABLE 30003

/* Returns those of the codes in SPI_tuptable that have this meaning, as an array. */
static Datum
codes_with(Retry retry, uint64 count)
{
	Datum *codes = palloc(Max(count, 1) * sizeof(Datum));
	int	   found = 0;

	for (uint64 i = 0; i < count; i++)
	{
		if (retry_after_code(spi_int32(i, 1)) == retry)
			codes[found++] = Int32GetDatum(spi_int32(i, 1));
	}
	return make_array(codes, NULL, found, INT4OID);
}

static void
check_campaign_is_not_sent(const LockedRun *run)
{
	if (own_query_by_id("SELECT FROM sendcampaign.run_data r JOIN sendcampaign.run_data o"
						" ON o.campaign_id = r.campaign_id AND o.schema = r.schema"
						" WHERE r.id = $1 AND o.test_phone IS NULL"
						" AND o.state IN ('queued', 'running', 'paused') LIMIT 1",
						run->id) > 0)
		fail_campaign_is_sending(run->campaign_id);
}

/*
 * Deletes the rows of messages that may be sent again, and returns the list
 * users, bigint[].  A code of unknown meaning was refused because of its HTTP
 * status.  But if a person has settled the message, and thus updated it, then
 * it was in doubt, and is known not to have been sent.
 */
static Datum
take_failed(const LockedRun *run, int *count)
{
	Oid	   types[] = {INT8OID, INT4ARRAYOID, INT4ARRAYOID};
	Datum  values[] = {Int64GetDatum(run->id), 0, 0};
	uint64 num_codes = own_query(
		"SELECT DISTINCT coalesce(error_code, 0) FROM sendcampaign.message_data"
		" WHERE run_id = $1 AND status = 'failed'",
		1, types, values, NULL);

	values[1] = codes_with(RETRY_ALLOWED, num_codes);
	values[2] = codes_with(RETRY_UNKNOWN, num_codes);
	(void) own_query(
		"WITH gone AS (DELETE FROM sendcampaign.message_data WHERE run_id = $1 AND status = 'failed'"
		"  AND (coalesce(error_code, 0) = ANY ($2)"
		"   OR (error_code = ANY ($3) AND updated_at > created_at)) RETURNING list_user_id)"
		" SELECT coalesce(array_agg(list_user_id), '{}'), count(*) FROM gone",
		3, types, values, NULL);
	*count = (int) spi_int64(0, 2);
	return PointerGetDatum(spi_array(0, 1));
}

static void
store_batches(const LockedRun *run, Datum failed, Datum undelivered)
{
	Oid	  types[] = {INT8OID, INT8ARRAYOID, INT8ARRAYOID, INT8OID};
	Datum values[] = {Int64GetDatum(run->id), failed, undelivered, Int64GetDatum(BATCH_SIZE)};

	(void) own_query(
		"WITH numbered AS (SELECT id, (row_number() OVER (ORDER BY id) - 1) / $4 AS n"
		"  FROM unnest($2 || $3) u(id)),"
		" last AS (SELECT greatest(0,"
		"  (SELECT max(b.number) FROM sendcampaign.batch b WHERE b.run_id = $1),"
		"  (SELECT max(c.number) FROM sendcampaign.claim c WHERE c.run_id = $1)) AS number)"
		" INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)"
		"  SELECT $1, last.number + 1 + n::integer, array_agg(id ORDER BY id)"
		"  FROM numbered, last GROUP BY n, last.number",
		4, types, values, NULL);
}

/* Puts the messages that may be sent again into batches, and returns their number. */
static int64
requeue_messages(const LockedRun *run, int64 *num_undelivered)
{
	int	  num_failed;
	int	  count;
	Datum failed = take_failed(run, &num_failed);
	Datum undelivered = receipts_take_undelivered(run->id, HANDSET_UNREACHABLE,
												  sendcampaign_retry_undelivered_after, &count);

	if (num_failed + count > 0)
		store_batches(run, failed, undelivered);
	*num_undelivered = count;
	return (int64) num_failed + count;
}

static void
reopen_job(AppTables *tables, const LockedRun *run)
{
	Oid			role = run->role;
	ActingScope scope;
	RunCounts	counts;

	if (!runs_lock_counts(run->id, &counts))
		return;
	if (act_for_run(tables, &role, run->at_home, run->list_users, &scope))
		job_tell_reopened(tables, run->job_id, &counts);
	act_as_caller(role, &scope);
}

/* What is sent again. */
typedef struct Retrying
{
	const LockedRun *run;
	int64			 failed;
	int64			 undelivered;
} Retrying;

static void
reopen(void *arg)
{
	const Retrying *retrying = arg;

	runs_reopen(retrying->run->id, retrying->failed, retrying->undelivered);
}

static int64
retry_failed(int64 job_id)
{
	LockedRun  run;
	AppTables *tables;
	int64	   count;
	int64	   undelivered;

	lock_run(job_id, &run);
	check_is_own(&run);
	if (strcmp(run.state, "failed") == 0)
		fail_in_state(&run, "Call send_campaign() with the same campaign and job to continue it.");
	if (strcmp(run.state, "completed") != 0)
		fail_in_state(&run, "Failed messages can be retried only when the run is completed.");
	tables = tables_open(run.schema);
	if (!run.is_test) /* a test runs beside the campaign's own run */
		check_campaign_is_not_sent(&run);
	count = requeue_messages(&run, &undelivered);
	if (count > 0)
	{
		Retrying retrying = {&run, count - undelivered, undelivered};

		reopen_run(reopen, &retrying, run.campaign_id);
		if (!run.is_test) /* nor has it a job */
			reopen_job(tables, &run);
		if (OidIsValid(run.role))
			start_worker_at_commit(run.role);
	}
	tables_close(tables);
	return count;
}

/* sendcampaign.retry_failed(job_id bigint) returns bigint */
Datum
sendcampaign_retry_failed(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	int64 count;

	check_writable("sendcampaign.retry_failed()");
	spi_connect();
	count = retry_failed(job_id);
	spi_finish();
	if (count == 0)
		ereport(NOTICE,
				(errmsg("background job %lld has no failed messages that can be retried",
						(long long) job_id),
				 errdetail("Messages that Twilio refused for good, or because of their recipient or"
						   " text, are not retried. Those that did not reach the phone (30003) are"
						   " retried, once, when \"sendcampaign.retry_undelivered_after\" has"
						   " passed.")));
	PG_RETURN_INT64(count);
}
