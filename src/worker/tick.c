/*-------------------------------------------------------------------------
 *
 * tick.c
 *	  The worker's one transaction: adopt, claim, record, finish.
 *
 * Most of the time nothing goes wrong, and one transaction serves all runs.
 * If something does, the same work is done again carefully, each run in a
 * subtransaction of its own.  Changes in memory are tentative until the
 * commit; after an abort, all of them are undone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "database/attempt.h"
#include "database/citus.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "debug_point.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "settings.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/adopt.h"
#include "worker/announce.h"
#include "worker/claim.h"
#include "worker/finish.h"
#include "worker/run_attempt.h"
#include "worker/locked_work.h"
#include "worker/lookup.h"
#include "worker/next.h"
#include "worker/run_states.h"
#include "worker/read_back.h"
#include "worker/record.h"
#include "worker/send.h"
#include "worker/start_worker.h"
#include "worker/tick.h"
#include "worker/transaction.h"
#include "worker/trouble.h"

/* The most consecutive failures before the worker gives up. */
#define MAX_FAILURES 20

/*
 * Once a table is found to be locked, no more is tried in this transaction after this
 * time, in ms; and if the worker leaves: what is not recorded then is looked up later.
 */
#define LOCKED_MS  300
#define LEAVING_MS 1000

TimestampTz last_record = 0;
TimestampTz last_look = 0;
TimestampTz next_tick = 0;
bool		extension_gone = false;

static int failures = 0;

/*
 * Chooses whether the commit waits until it is on disk.  A claim must be on
 * disk before its messages are sent, whatever the role's synchronous_commit
 * says.  Outcomes need not be: messages whose outcomes are lost are still
 * claimed, and are looked up.  But Citus takes a table to be copied to another
 * node when all is copied that is on disk: sentCount would lack the rest.
 */
static void
choose_durability(bool claimed, bool ended)
{
	const char *wanted = NULL;

	if (claimed || worker.leaving || citus_is_here())
		wanted = synchronous_commit == SYNCHRONOUS_COMMIT_OFF || worker.leaving ? "local" : NULL;
	else if (!ended)
		wanted = "off";
	if (wanted)
		(void) set_config_option("synchronous_commit", wanted, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}

static int
compare_turns(const Run *a, TimestampTz a_until, const Run *b, TimestampTz b_until)
{
	if (a_until != b_until)
		return a_until < b_until ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static int
compare_claiming(const void *a, const void *b)
{
	const Run *x = *(Run *const *) a;
	const Run *y = *(Run *const *) b;

	return compare_turns(x, x->claiming.until, y, y->claiming.until);
}

static int
compare_recording(const void *a, const void *b)
{
	const Run *x = *(Run *const *) a;
	const Run *y = *(Run *const *) b;

	return compare_turns(x, x->recording.until, y, y->recording.until);
}

/*
 * Returns the worker's runs, palloc'd.  Where tables are locked, those come first
 * that have not failed, and then those that have waited longest: once one has failed,
 * the others of its schema are left alone (see locked_work.c).
 */
static Run **
runs_in_turn(int (*compare)(const void *a, const void *b))
{
	Run		 **runs = palloc(Max(worker.num_runs, 1) * sizeof(Run *));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
		runs[count++] = dlist_container(Run, node, iter.cur);
	Assert(count == worker.num_runs);
	if (some_work_is_locked())
		qsort(runs, count, sizeof(Run *), compare);
	return runs;
}

static void
claim_for(Run *run, void *arg)
{
	if (run_is_cancelled(run) && (!run->was_read_back || run->stop_reason))
		skip_batches(run);
	else
		claim_batch(run);
	end_back_off(&run->claiming);
}

/* Claims as much for the run as it needs.  Returns true if there may be new claims. */
static bool
claim_all_for(Run *run, TimestampTz now, bool careful)
{
	bool claimed = false;
	int	 count = 0;

	for (; wants_claim_as_well(run, now, count); count++)
	{
		if (!careful)
			claim_for(run, NULL);
		else if (!attempt_work(claim_for, run, NULL, &run->claiming))
		{
			drop_unfinished_claim(run);
			wait_with_skipping(run);
			break;
		}
		else if (!run->exhausted && run->next_at <= now)
			tables_are_free(run, &run->claiming);
		claimed |= !run->exhausted;
	}
	if (count > 0)
	{
		run->claimed_at = now;
		run->num_claimed = count;
	}
	return claimed;
}

static int
count_failures(const Run *run)
{
	return run->claiming.failures + run->recording.failures + run->reporting.failures;
}

/* Tells whether the run has just met a lock, having had so many failures before. */
static bool
has_met_lock(const Run *run, int failures)
{
	return count_failures(run) > failures &&
		   (run->claiming.locked || run->recording.locked || run->reporting.locked);
}

/* What has not been tried by then comes first in the next transaction. */
static bool
has_waited_enough(TimestampTz begin)
{
	return TimestampDifferenceExceeds(begin, GetCurrentTimestamp(),
									  worker.leaving ? LEAVING_MS : LOCKED_MS);
}

/* Claims for all runs, or for one run only.  Returns true if there may be new claims. */
static bool
claim_all(const Run *only, bool careful)
{
	TimestampTz now = GetCurrentTimestamp();
	Run		  **runs = runs_in_turn(compare_claiming);
	bool		claimed = false;
	bool		locked = false;

	for (int i = 0; i < worker.num_runs; i++)
	{
		Run *run = runs[i];
		int	 failures = count_failures(run);

		run->group_is_new = false;
		if (only && run != only)
			continue;
		settle_after_triggers();
		claimed |= claim_all_for(run, now, careful);
		locked |= has_met_lock(run, failures);
		if (locked && has_waited_enough(now))
			break;
	}
	return claimed;
}

/* Tells whether a claim was made in this transaction: before its commit is on disk, nothing leaves. */
static bool
has_new_claims(void)
{
	dlist_iter r;
	dlist_iter c;

	dlist_foreach (r, &worker.runs)
	{
		dlist_foreach (c, &dlist_container(Run, node, r.cur)->claims)
		{
			if (dlist_container(Claim, node, c.cur)->tentative)
				return true;
		}
	}
	return false;
}

/* Undoes in memory what was done for the run and has now been rolled back. */
static void
forget_attempt(Run *run)
{
	unrecord(run);
	unstore_read_back(run);
	run->announcements = NIL;
	run_rolled_back(run);
}

static void
record_run(Run *run, bool careful)
{
	store_read_back(run);
	if (!run_may_send(run) || !sendcampaign_enabled)
		release_unsent(run);
	if (run_is_cancelled(run))
		give_up_doubt(run);
	settle_lookups(run);
	if (run->num_done > 0)
		record_outcomes(run, careful);
}

static void
pause_unreadable(Run *run, bool careful)
{
	pause_run(
		run,
		reason_text(
			psprintf(
				"commits may have been lost, and what was sent cannot be read back from Twilio: %s",
				why_not_read_back(run)),
			NULL, "When this has been fixed, call sendcampaign.resume()."),
		careful);
}

static void
end_run(Run *run, bool careful)
{
	switch (run_ending(run))
	{
		case RUN_GOES_ON:
			break;
		case RUN_COMPLETES:
			finish_run(run, careful);
			break;
		case RUN_IS_CANCELLED:
			end_cancelled(run, careful);
			break;
		case RUN_FAILS:
			fail_run(run, careful);
			break;
		case RUN_CANNOT_READ_BACK:
			pause_unreadable(run, careful);
			break;
		case RUN_IS_HALTED:
			pause_halted(run, careful);
			break;
		case RUN_SLEEPS:
			put_to_sleep(run, careful);
			break;
	}
}

static void
record_and_end(Run *run, void *careful)
{
	record_run(run, *(bool *) careful);
	end_run(run, *(bool *) careful);
}

static void
fail_carefully(Run *run, void *arg)
{
	fail_run(run, true);
}

/*
 * Makes a run fail whose outcomes can never be recorded, so that at least the
 * reason is written.  Its messages remain claimed.
 */
static void
fail_unrecordable(Run *run)
{
	if (run->stop_reason == NULL || run->phase == RUN_FAILED ||
		run->recording.until > GetCurrentTimestamp())
		return;
	/* one that was called again has not failed: it continues from the tables */
	if (run->phase == RUN_SUPERSEDED || attempt_for_run(fail_carefully, run, NULL, &run->recording))
		run_wrote(run, RUN_ABANDONED);
}

static void
record_one(Run *run, bool careful)
{
	int failures = run->recording.failures;

	if (!careful)
		record_and_end(run, &careful);
	else if (!attempt_work(record_and_end, run, &careful, &run->recording))
	{
		forget_attempt(run);
		fail_unrecordable(run);
		return;
	}
	if (run->recording.failures == failures)
		end_back_off(&run->recording);
}

/*
 * If "alone", nobody else's trouble counts: whose the trouble is, is to be found out.
 * Nor does it for what must not be sent any more, which is put back.
 */
static bool
may_record(Run *run, TimestampTz now, bool alone)
{
	bool puts_back = run->num_ready > 0 && !run_may_send(run);
	bool may = alone || puts_back ? run->recording.until <= now
								  : may_try_work(run, &run->recording, now);

	return (may || worker.leaving) && run_rules(run)->records;
}

static int
compare_tables(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t) (*(Run *const *) a)->campaign.tables;
	uintptr_t y = (uintptr_t) (*(Run *const *) b)->campaign.tables;

	return x < y ? -1 : x > y;
}

/* Records together the outcomes of runs with the same tables, if nothing is unusual about them. */
static void
record_sets(TimestampTz now)
{
	Run		 **runs = palloc(Max(worker.num_runs, 1) * sizeof(Run *));
	int		   count = 0;
	int		   end;
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (may_record(run, now, false) && may_record_together(run) && sendcampaign_enabled)
			runs[count++] = run;
	}
	qsort(runs, count, sizeof(Run *), compare_tables);
	for (int begin = 0; begin < count; begin = end)
	{
		for (end = begin + 1; end < count; end++)
		{
			if (compare_tables(&runs[begin], &runs[end]) != 0)
				break;
		}
		while (begin < end && tables_allow_sets(runs[begin]->campaign.tables))
		{
			settle_after_triggers();
			begin += record_together(runs + begin, end - begin);
		}
	}
}

/*
 * Tells whether the run could not be taken up in this transaction.  The transaction has
 * its row locked, and what the attempt has written there was rolled back.  If the new row
 * does not fit on its page, a server with assertions accepts only an update by another
 * subtransaction then (an assertion in heap_update()).
 */
static bool
has_failed_now(const Run *run)
{
	return run->tentative && run->stop_reason != NULL;
}

/* Records the outcomes of all runs, or of one run only.  Returns true if a run has ended. */
static bool
record_all(const Run *only, bool careful)
{
	TimestampTz now = GetCurrentTimestamp();
	Run		  **runs;
	bool		ended = false;
	bool		locked = false;

	if (!careful)
		record_sets(now);
	runs = runs_in_turn(compare_recording);
	for (int i = 0; i < worker.num_runs; i++)
	{
		Run *run = runs[i];
		int	 failures = count_failures(run);

		if ((only && run != only) || !may_record(run, now, only != NULL))
			continue;
		settle_after_triggers();
		record_one(run, careful || has_failed_now(run));
		ended |= run->written == RUN_FAILED || run->written == RUN_ABANDONED ||
				 run->written == RUN_ENDED;
		locked |= has_met_lock(run, failures);
		if (locked && has_waited_enough(now))
			break;
	}
	last_record = now;
	return ended;
}

static void
tell_all(const Run *only)
{
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (only == NULL || run == only)
			tell_trouble(run);
	}
}

/*
 * Records the role's name if it was renamed, now or before this worker started:
 * its runs are still its own.  Those that somebody has locked have it later.
 */
static void
follow_name(void)
{
	static bool names_left = false;
	char	   *name = GetUserNameFromId(worker.role, true);
	bool		is_new = name && strcmp(name, worker.role_name) != 0;

	if (name == NULL || (worker.has_ticked && !is_new && !names_left))
		return;
	names_left = !runs_rename_role(worker.role, name, ids_of_runs());
	if (is_new)
		worker.role_name = MemoryContextStrdup(TopMemoryContext, name);
}

/* An extension that was dropped and created again is not the one whose runs we have. */
static bool
is_extension_there(void)
{
	static Oid extension = InvalidOid;
	Oid		   now = own_lock_extension();

	if (worker.num_runs == 0)
		extension = now;
	return OidIsValid(now) && now == extension;
}

/*
 * Does everything that is to be done in the database now, or only what is to
 * be done for one run, in one transaction.
 */
static void
tick(Run *only, bool careful)
{
	TimestampTz next_look = last_look;
	bool		claimed;
	bool		recorded;
	bool		ended = false;

	if (!still_the_worker(worker.role))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("sendcampaign worker has lost its lock"),
				 errhint("Triggers on the application's tables must not call"
						 " pg_advisory_unlock_all().")));
	begin_transaction();
	if (!is_extension_there())
	{
		extension_gone = worker.num_runs > 0;
		worker.foreign_runs_left = false;
		commit_transaction();
		return;
	}
	if (careful)
		fire_deferred_triggers();
	follow_name();
	if (!worker.has_ticked || worker.foreign_runs_left)
		worker.foreign_runs_left = pause_foreign_runs();
	if (only == NULL && !worker.leaving && sendcampaign_enabled && adopt_runs() > 0)
		next_look = 0; /* look again at once: there may be more runs, and outcomes to be recorded */
	read_run_states();
	claimed = claim_all(only, careful) || has_new_claims();
	/* a new run's first message does not wait for the outcomes of others, but these not for ever */
	recorded = next_look != 0 || worker.recording_waits || worker.leaving;
	if (recorded)
		ended = record_all(only, careful);
	read_states_again();
	tell_all(only);
	last_look = worker.foreign_runs_left ? 0 : next_look;
	choose_durability(claimed, ended);
	commit_transaction();
	worker.recording_waits = !recorded;
}

static void
settle_back_offs(Run *run, bool committed)
{
	settle_back_off(&run->claiming, committed);
	settle_back_off(&run->recording, committed);
	settle_back_off(&run->reporting, committed);
}

static void
after_commit(void)
{
	dlist_mutable_iter iter;
	ListCell		  *lc;

	worker.has_ticked = true;
	dlist_foreach_modify (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		run->tentative = false;
		run_committed(run);
		foreach (lc, run->announcements)
			announce_later(lfirst(lc));
		list_free_deep(run->announcements);
		run->announcements = NIL;
		settle_back_offs(run, true);
		keep_notice(run);
		keep_claims(run);
		keep_read_back(run);
		forget_recorded(run);
		if (run_is_through(run))
			free_run(run);
	}
}

static void
after_abort(void)
{
	dlist_mutable_iter iter;

	worker.has_ticked = false; /* writing the role's new name was rolled back */
	dlist_foreach_modify (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		forget_attempt(run);
		settle_back_offs(run, false);
		forget_notice(run);
		unrecord_skips(run);
		drop_tentative_claims(run);
		run->exhausted = false;
		run->next_at = 0;
		run->group_stored = false;
		if (run->tentative)
			free_run(run);
	}
}

/* Stops at the debug point for what has just been committed. */
static void
stop_at_debug_points(void)
{
#ifdef SENDCAMPAIGN_DEBUG_POINTS
	dlist_iter iter;
	bool	   claimed = false;
	bool	   recorded = false;

	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		recorded |= !dlist_is_empty(&run->recorded);
		claimed |= run->num_ready > 0;
	}
	if (recorded)
		debug_point(DEBUG_RECORDED);
	else if (claimed)
		debug_point(DEBUG_CLAIMED);
#endif
}

static bool
try_tick_for(Run *only, bool careful, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool good = true;

	PG_TRY();
	{
		tick(only, careful);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		abort_transaction();
		RESUME_INTERRUPTS();
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (good)
	{
		stop_at_debug_points();
		after_commit();
	}
	else
		after_abort();
	return good;
}

bool
try_tick(bool careful, ErrorData **error)
{
	return try_tick_for(NULL, careful, error);
}

static Run *
find_run(int64 id)
{
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (run->id == id)
			return run;
	}
	return NULL;
}

/* Shows people why the run makes no progress; if even that fails, the log says it. */
static void
tell_at_once(Run *run)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		begin_transaction();
		(void) notification_queue_usage(); /* a full queue may be the cause: frees what was read */
		tell_trouble(run);
		commit_transaction();
		keep_notice(run);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		abort_transaction();
		forget_notice(run);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

/*
 * An error that is raised by the commit itself may be caused by one run, too:
 * for example, by a trigger that notifies while the queue of notifications is
 * full.  So each run gets a transaction of its own, and those that fail wait.
 * Returns false if none fails, as the cause is elsewhere then.
 */
static bool
tick_one_by_one(ErrorData **error)
{
	int		   count = worker.num_runs;
	int64	  *ids = palloc(Max(count, 1) * sizeof(int64));
	dlist_iter iter;
	bool	   found = false;

	count = 0;
	dlist_foreach (iter, &worker.runs)
		ids[count++] = dlist_container(Run, node, iter.cur)->id;
	for (int i = 0; i < count; i++)
	{
		Run *run = find_run(ids[i]);

		if (run == NULL || try_tick_for(run, true, error))
			continue;
		found = true;
		run = find_run(ids[i]); /* NULL if it was adopted only tentatively */
		if (run == NULL)
			continue;
		back_off(run, &run->recording, error_text(*error));
		run->claiming.until = Max(run->claiming.until, run->recording.until);
		tell_at_once(run);
	}
	return found;
}

/* Tells whether a run waits for another node. */
static bool
some_wait_for_node(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		const Run *run = dlist_container(Run, node, iter.cur);

		if (run->claiming.far || run->recording.far || run->reporting.far)
			return true;
	}
	return false;
}

/* Tells whether work is tried again that had to wait for a locked table. */
static bool
some_locked_work_is_due(TimestampTz now)
{
	dlist_iter iter;

	if (!some_work_is_locked())
		return false;
	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);
		bool records = run->num_done > 0 || run_wants_record(run);

		if ((records && (work_is_tried_again(run, &run->recording, now) ||
						 work_is_tried_again(run, &run->reporting, now))) ||
			(work_is_tried_again(run, &run->claiming, now) && wants_claim(run, now)))
			return true;
	}
	return false;
}

/*
 * Tells whether something is tried again that has failed, as a node could not be
 * reached, or a table was locked.  This attempt may fail as well, and what all have
 * done in the same transaction would be undone, and the attempt made a second time.
 */
static bool
may_fail_again(TimestampTz now)
{
	return some_wait_for_node() || some_locked_work_is_due(now);
}

void
work(void)
{
	static MemoryContext context = NULL;
	MemoryContext		 old;
	ErrorData			*error = NULL;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "sendcampaign errors",
										ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_RUNNING, "recording and claiming messages");
	last_look = GetCurrentTimestamp();
	if ((!may_fail_again(last_look) && try_tick(false, &error)) || try_tick(true, &error) ||
		tick_one_by_one(&error))
	{
		failures = 0;
		next_tick = 0;
	}
	else
	{
		if (failures++ == 0)
			ereport(LOG,
					(errmsg("sendcampaign: could not record or claim messages, trying again: %s",
							error_text(error))));
		if (failures > MAX_FAILURES)
			ereport(ERROR,
					(errcode(error->sqlerrcode),
					 errmsg("sendcampaign worker gives up: %s", error_text(error)),
					 errhint("Unfinished campaigns continue after the next call of send_campaign()"
							 " or sendcampaign.wake().")));
		next_tick = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												100 + backoff_delay(Min(failures, 4)));
	}
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}
