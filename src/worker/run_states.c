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

/* What the table says of a run. */
typedef struct RunRow
{
	RunState   state;
	Deliveries deliveries;
} RunRow;

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

/* SQL: one of these counts, with what is noted, less what a person has accepted. */
#define SINCE_ACCEPTED(column)                                                                     \
	column " - accepted_" column " + CASE WHEN (SELECT EXISTS"                                     \
		   " (SELECT FROM sendcampaign.receipt_count)) THEN coalesce((SELECT sum(noted." column    \
		   ")::int8 FROM sendcampaign.receipt_count noted WHERE noted.run_id = run_data.id), 0)"   \
		   " ELSE 0 END"

/* Returns what the table says of these runs, in their order; palloc'd. */
static RunRow *
read_rows(Run *const *runs, int count)
{
	static OwnStatement statement = {
		"SELECT u.n, state, " SINCE_ACCEPTED("delivered") ", " SINCE_ACCEPTED(
			"undelivered") " FROM unnest($1) WITH ORDINALITY u(run_id, n)"
						   " JOIN sendcampaign.run_data ON " IS_ROW_OF("id", "u.run_id"),
		1,
		{INT8ARRAYOID}};
	RunRow *rows = palloc0(count * sizeof(RunRow));
	int64  *ids = palloc(count * sizeof(int64));
	Datum	value;
	uint64	found;

	for (int i = 0; i < count; i++)
		ids[i] = runs[i]->id;
	value = array_of_ids(ids, count);
	found = own_execute(&statement, &value, NULL);
	for (uint64 i = 0; i < found; i++)
		rows[spi_int64(i, 1) - 1] = (RunRow){run_state(spi_string(i, 2)),
											 {spi_int64(i, 3), spi_int64(i, 4)}};
	SPI_freetuptable(SPI_tuptable);
	return rows;
}

/* Reads the states of all runs, or of those only that may send without an answer to come. */
static void
read_states(bool all)
{
	Run		 **runs = palloc(Max(worker.num_runs, 1) * sizeof(Run *));
	int		   count = 0;
	RunRow	  *rows;
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (all || run->num_ready > 0 || run->num_agenda > 0 || !run->exhausted)
			runs[count++] = run;
	}
	if (count == 0)
		return;
	rows = read_rows(runs, count);
	for (int i = 0; i < count; i++)
	{
		if (rows[i].state != RUN_STATE_GONE)
			runs[i]->deliveries = rows[i].deliveries;
		follow_state(runs[i], rows[i].state);
		check_deliveries(runs[i]);
	}
}

void
read_run_states(void)
{
	read_states(true);
}

void
read_states_again(void)
{
	read_states(false);
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
