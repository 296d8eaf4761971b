/*-------------------------------------------------------------------------
 *
 * run_states.c
 *	  What people have made of a worker's runs: paused, resumed, cancelled.
 *
 * They change a run's state in transactions of their own, and wake the
 * worker at the commit.  In each tick it looks at the states:
 *
 *	paused		Nothing more is sent, and what has not left goes back into a
 *				batch.  When what was under way is recorded, the run leaves
 *				memory; what is in doubt stays claimed until it is resumed.
 *	cancelled	Nothing more is sent, likewise; doubt is still looked up, and
 *				all who are left in batches are skipped.  So the outcomes add
 *				up to the number of recipients, and the run ends.
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

/* Batches skipped in one statement. */
#define SKIPPED_BATCHES 2

/* The run's state in SPI_tuptable; NULL where it is gone. */
static const char *
state_of(const Run *run, uint64 count)
{
	for (uint64 i = 0; i < count; i++)
	{
		if (spi_int64(i, 1) == run->id)
			return spi_string(i, 2);
	}
	return NULL;
}

static void
apply_state(Run *run, const char *state)
{
	bool paused = state == NULL || strcmp(state, "paused") == 0;
	bool cancelled = state && strcmp(state, "cancelled") == 0;

	/* what has not left is given back now, whatever that has waited for */
	if (paused > run->paused || cancelled > run->cancelled)
		run->recording.until = run->claiming.until = 0;
	if (run->paused && !paused)
	{
		recall_notice(run, NULL); /* the tables have it no more */
		run->next_at = 0;
		reset_verdicts(run);
	}
	/* by wake(), perhaps, for a role that cannot work any more */
	if (state && strcmp(state, "failed") == 0 && run->stop_reason == NULL)
	{
		run_stop(run, "it has been stopped");
		run->stop_recorded = run->stop_durable = true;
	}
	/*
	 * Called again, by whatever role, it goes on from what is in the tables;
	 * so does what could not be taken up, as its claims may not be in memory.
	 */
	run->superseded = (run->stop_durable && state && strcmp(state, "queued") == 0) ||
					  (cancelled && !run->taken_up);
	run->forgotten = state == NULL;
	run->paused = paused;
	run->cancelled = cancelled;
}

void
read_run_states(void)
{
	static OwnStatement statement = {
		"SELECT id, state FROM sendcampaign.run_data WHERE id = ANY ($1)", 1, {INT8ARRAYOID}};
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

		apply_state(run, state_of(run, count));
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
	if (run->cancelled)
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
