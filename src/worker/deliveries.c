/*-------------------------------------------------------------------------
 *
 * deliveries.c
 *	  Tells the job of a run that has ended what became of its messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/attempt.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "miscadmin.h"
#include "worker/deliveries.h"
#include "worker/job.h"
#include "worker/run.h"
#include "worker/transaction.h"

/* The job of a run that has ended. */
typedef struct EndedJob
{
	int64	  run_id;
	int64	  job_id;
	char	 *schema;
	Oid		  list_users; /* table with which the run began; 0: not known */
	RunCounts counts;
} EndedJob;

/* Returns false if there is none, as for a test. */
static bool
read_ended_job(EndedJob *job)
{
	static OwnStatement statement = {
		"SELECT job_id, schema::text, coalesce(list_users, 0)::int8 FROM sendcampaign.run_data"
		" WHERE id = $1"
		" AND role_oid = $2 AND test_phone IS NULL AND finished_at IS NOT NULL"
		" AND " IS_AT_HOME("$3", "$4"),
		4,
		{INT8OID, OIDOID, NUMERICOID, OIDOID}};
	Datum values[] = {Int64GetDatum(job->run_id), ObjectIdGetDatum(worker.role), home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	if (own_execute(&statement, values, NULL) == 0)
		return false;
	job->job_id = spi_int64(0, 1);
	job->schema = spi_string(0, 2);
	job->list_users = (Oid) spi_int64(0, 3);
	return runs_read_counts(job->run_id, &job->counts);
}

static void
write_deliveries(void *arg)
{
	EndedJob  *job = arg;
	AppTables *tables = tables_open(job->schema);

	tables_check_chosen(tables, job->list_users);
	job_tell_state(tables, job->job_id, &job->counts);
	tables_close(tables);
	fire_deferred_triggers();
}

void
tell_deliveries(int64 run_id)
{
	EndedJob   job = {.run_id = run_id};
	ErrorData *error;

	if (!read_ended_job(&job))
		return;
	error = attempt(write_deliveries, &job);
	settle_after_triggers();
	if (error && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	if (error)
		ereport(LOG,
				(errmsg("sendcampaign: job %lld: could not write what became of its messages: %s",
						(long long) job.job_id, error_text(error))));
}
