/*-------------------------------------------------------------------------
 *
 * orders.c
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

#include "adopt.h"
#include "announce.h"
#include "catalog/pg_type.h"
#include "failures.h"
#include "history.h"
#include "lookup.h"
#include "orders.h"
#include "own.h"
#include "settings.h"
#include "trouble.h"
#include "utils/builtins.h"

/* Batches skipped in one statement. */
#define WIND_UP_BATCHES 2

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
follow_order(Run *run, const char *state)
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
follow_orders(void)
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

		follow_order(run, state_of(run, count));
	}
}

bool
wants_wind_up(const Run *run, TimestampTz now)
{
	return !worker.leaving && sendcampaign_enabled && !run->exhausted && !run->finished &&
		   !run->superseded && run->history == NULL && run->claiming.until <= now;
}

void
wind_up(Run *run)
{
	static OwnStatement statement = {
		"WITH b AS (DELETE FROM sendcampaign.batch WHERE run_id = $1 AND number = ANY (ARRAY("
		"   SELECT n.number FROM sendcampaign.batch n WHERE n.run_id = $1"
		"   ORDER BY n.number LIMIT $2))"
		"  RETURNING list_user_ids),"
		" m AS (INSERT INTO sendcampaign.message_data (run_id, list_user_id, status, error_message)"
		"  SELECT $1, u.id, 'skipped', 'cancelled' FROM b, unnest(b.list_user_ids) u(id)"
		"  WHERE u.id IS NOT NULL AND NOT EXISTS (SELECT FROM sendcampaign.claim c"
		"   WHERE c.run_id = $1 AND u.id = ANY (c.list_user_ids))"
		"  ON CONFLICT DO NOTHING RETURNING 1)"
		" UPDATE sendcampaign.run_data SET skipped = skipped + (SELECT count(*) FROM m)"
		" WHERE id = $1 AND EXISTS (SELECT FROM b)",
		2,
		{INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(run->id), Int64GetDatum(WIND_UP_BATCHES)};

	if (own_execute(&statement, values, NULL) == 0)
		run->exhausted = true;
}

void
wait_with_wind_up(Run *run)
{
	if (run->cancelled)
		run->claiming.until = Max(run->claiming.until,
								  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000));
}

void
give_up_doubt(Run *run)
{
	give_up_history(run);
	if (run->account == NULL || run->not_answered)
		give_up_lookups(run, run->stop_reason ? "the run had failed" : "it cannot be looked up");
}

/*
 * Ends cancelled runs, all of a role ($1) or one (likewise), with a reason
 * ($2).  Rows that were loaded may name a recipient twice, or none.
 */
#define WIND_UP(condition)                                                                         \
	"WITH r AS (SELECT id FROM sendcampaign.run_data WHERE " condition                             \
	"  AND finished_at IS NULL AND state = 'cancelled' FOR NO KEY UPDATE SKIP LOCKED),"            \
	" b AS (DELETE FROM sendcampaign.batch USING r WHERE batch.run_id = r.id"                      \
	"  RETURNING batch.run_id, list_user_ids),"                                                    \
	" c AS (DELETE FROM sendcampaign.claim USING r WHERE claim.run_id = r.id"                      \
	"  RETURNING claim.run_id, list_user_ids, phones),"                                            \
	" m AS (INSERT INTO sendcampaign.message_data"                                                 \
	"   (run_id, list_user_id, phone, status, error_message, attempts)"                            \
	"  SELECT c.run_id, u.id, u.phone, 'in_doubt',"                                                \
	"   'the worker ended before Twilio''s answer; ' || $2, 1"                                     \
	"  FROM c, unnest(c.list_user_ids, c.phones) u(id, phone) WHERE u.id IS NOT NULL"              \
	"  UNION ALL SELECT b.run_id, u.id, NULL, 'skipped', 'cancelled', 0"                           \
	"  FROM b, unnest(b.list_user_ids) u(id) WHERE u.id IS NOT NULL"                               \
	"  ON CONFLICT DO NOTHING RETURNING run_id, status)"                                           \
	" UPDATE sendcampaign.run_data SET finished_at = now(), error = concat_ws('. ', error, $2),"   \
	"  skipped = skipped + (SELECT count(*) FROM m"                                                \
	"   WHERE m.run_id = run_data.id AND m.status = 'skipped'),"                                   \
	"  in_doubt = in_doubt + (SELECT count(*) FROM m"                                              \
	"   WHERE m.run_id = run_data.id AND m.status = 'in_doubt')"                                   \
	" FROM r WHERE run_data.id = r.id RETURNING " ANNOUNCEMENT

uint64
wind_up_without_worker(Oid role, const char *reason)
{
	Oid	  types[] = {OIDOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(role), CStringGetTextDatum(reason)};

	return own_query(WIND_UP("role_oid = $1"), 2, types, values, NULL);
}

uint64
wind_up_run_without_worker(int64 id, const char *reason)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(reason)};

	return own_query(WIND_UP("id = $1"), 2, types, values, NULL);
}
