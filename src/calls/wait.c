/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  wait(): returns when a run has ended.
 *
 * A procedure, since it must not hold a snapshot while it waits, possibly for
 * hours: it looks at the run in a new transaction each time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/control.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "settings.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define LOOK_INTERVAL_MS 100

PG_FUNCTION_INFO_V1(sendcampaign_wait);

static void
check_no_transaction_block(FunctionCallInfo fcinfo)
{
	if (fcinfo->context && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("sendcampaign.wait() cannot run inside a transaction block"),
			 errdetail("A campaign is sent only after its transaction has been committed."),
			 errhint("Call it after COMMIT, outside of a transaction block.")));
}

/* Returns the deadline; DT_NOEND if there is none. */
static TimestampTz
deadline_of(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()), PG_GETARG_DATUM(1)));
}

/* Looks at the run once, and commits; returns true if it has ended.  *state is palloc'd. */
static bool
has_ended(int64 job_id, char **state)
{
	MemoryContext context = CurrentMemoryContext;
	bool		  ended;

	spi_check(SPI_connect_ext(SPI_OPT_NONATOMIC), SPI_OK_CONNECT, "SPI_connect_ext");
	if (query_run_of_job("SELECT state, (" ROLE_HERE(
							 "$3", "$4") ")::int8, finished_at IS NOT NULL"
										 " FROM sendcampaign.run_data WHERE" IS_RUN_OF_JOB,
						 job_id, sendcampaign_schema) == 0 ||
		!is_for_caller((Oid) spi_int64(0, 2)))
		fail_no_run(job_id);
	*state = MemoryContextStrdup(context, spi_string(0, 1));
	ended = spi_bool(0, 3);
	SPI_commit();
	spi_finish();
	return ended;
}

static void
wait_a_moment(TimestampTz deadline)
{
	long most = LOOK_INTERVAL_MS;

	if (deadline != DT_NOEND)
		most = Min(most, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline));
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, most,
					 compat_wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* sendcampaign.wait(job_id bigint, timeout interval), a procedure */
Datum
sendcampaign_wait(PG_FUNCTION_ARGS)
{
	int64		job_id;
	TimestampTz deadline;
	char	   *state;

	check_no_transaction_block(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("job_id must not be null"),
				 errhint("Pass the job id that send_campaign() returned.")));
	job_id = PG_GETARG_INT64(0);
	deadline = deadline_of(fcinfo);
	while (!has_ended(job_id, &state))
	{
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the run of background job %lld did not end in time",
							(long long) job_id),
					 errdetail("It is in state \"%s\".", state),
					 errhint("The run is not affected; sendcampaign.progress shows how far it is.")));
		pfree(state);
		wait_a_moment(deadline);
	}
	PG_RETURN_VOID();
}
