/*-------------------------------------------------------------------------
 *
 * run_states.c
 *	  Follows what people do to a worker's runs: pause, resume, cancel.
 *
 * People change a run's state in transactions of their own, and wake the
 * worker at the commit.  In each tick, the worker looks at the states:
 *
 *	paused		Nothing more is sent, and unsent messages are put back into a
 *				batch.  Once the outcomes of those under way are recorded, the
 *				run leaves memory; messages in doubt remain claimed until it is
 *				resumed.
 *	cancelled	Nothing more is sent, and unsent messages are put back, too.
 *				Messages in doubt are still looked up, and all recipients in
 *				batches are skipped.  So the outcomes add up to the number of
 *				recipients, and the run ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "settings.h"
#include "worker/failure_limit.h"
#include "worker/lookup.h"
#include "worker/run_states.h"
#include "worker/read_back.h"
#include "worker/trouble.h"

/* The most batches that are skipped in one statement. */
#define SKIPPED_BATCHES 2

/*
 * Returns the run's state from SPI_tuptable, which has this many rows of all
 * runs, and reads what became of its messages.
 */
static RunState
state_of(Run *run, uint64 count)
{
	for (uint64 i = 0; i < count; i++)
	{
		if (spi_int64(i, 1) != run->id)
			continue;
		run->deliveries = (Deliveries){spi_int64(i, 3), spi_int64(i, 4)};
		return run_state(spi_string(i, 2));
	}
	return RUN_STATE_GONE;
}

static void
follow_state(Run *run, RunState state)
{
	RunPhase before = run->phase;

	if (!run_follow(run, state))
		return;
	/* unsent messages are put back now, even if recording had to wait */
	if (!run_may_send(run))
		run->recording.until = run->claiming.until = 0;
	if (before == RUN_PAUSED)
	{
		recall_notice(run, NULL); /* resuming has cleared it in the tables */
		run->next_at = 0;
		reset_verdicts(run);
	}
	/* somebody else has written that, such as wake() if its role can no longer work */
	if (run->phase == RUN_FAILED)
		run_stop(run, "another session has ended the run");
}

void
read_run_states(void)
{
	static OwnStatement statement = {
		"SELECT id, state, " WITH_NOTED(
			"delivered") " - accepted_delivered,"
						 " " WITH_NOTED(
							 "undelivered") " - accepted_undelivered"
											" FROM sendcampaign.run_data WHERE id = ANY ($1)",
		1,
		{INT8ARRAYOID}};
	Datum	   ids;
	uint64	   count;
	dlist_iter iter;

	if (worker.num_runs == 0)
		return;
	ids = ids_of_runs();
	count = own_execute(&statement, &ids, NULL);
	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		follow_state(run, state_of(run, count));
		check_deliveries(run);
	}
}

void
skip_batches(Run *run)
{
	if (!runs_skip_batches(run->id, SKIPPED_BATCHES))
		run->exhausted = true;
}

void
wait_with_skipping(Run *run)
{
	if (run_is_cancelled(run))
		run->claiming.until = Max(run->claiming.until,
								  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000));
}

void
give_up_doubt(Run *run)
{
	give_up_read_back(run);
	if (run->account == NULL || run->not_answered)
		give_up_lookups(run, run->stop_reason ? "the run had failed" : "it cannot be looked up");
}
