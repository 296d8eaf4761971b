/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker that sends: its life cycle and its loop.
 *
 * Each turn of the loop moves messages one way:
 *
 *	  tick()          in a transaction: adopt runs, claim recipients,
 *	                  record outcomes, finish runs
 *	  send_ready()    no transaction: start requests
 *	  http_wait()     no transaction: wait for the network or the latch
 *	  take_answers()  no transaction: classify the answers
 *
 * So no snapshot and no lock is ever held while we wait for Twilio, and
 * nothing is sent before the commit of its claim is on disk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "database/attempt.h"
#include "database/own_tables.h"
#include "debug_point.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "twilio/http.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/adopt.h"
#include "worker/announce.h"
#include "worker/courier.h"
#include "worker/linger.h"
#include "worker/locked_work.h"
#include "worker/long_lists.h"
#include "worker/next.h"
#include "worker/process.h"
#include "worker/run_states.h"
#include "worker/record.h"
#include "worker/scan.h"
#include "worker/send.h"
#include "worker/start_worker.h"
#include "worker/sweep.h"
#include "worker/tick.h"
#include "worker/transaction.h"

/* Outcomes are recorded when there are enough of them (see next.c), or this late. */
#define RECORD_DELAY_MS 100

/* The queue is examined when the latch is set, and at least this often. */
#define LOOK_INTERVAL_MS 1000

/* When leaving, answers that are under way are awaited for this long. */
#define LEAVE_DELAY_MS 400

/* Attempts to leave in good order, at most 10 ms apart. */
#define LEAVE_TRIES 30

/* How long a worker that has to make way waits for a slot before it tries again. */
#define MAKE_WAY_MS 100

/* Transactions that record what is known then: how many at most, and for how long, in ms. */
#define LEAVE_TICKS 8
#define LEAVE_MS	3000

/* How long a worker that has nothing to do waits for prepared transactions. */
#define PREPARED_WAIT_MS 60000

PGDLLEXPORT void sendcampaign_worker_main(Datum arg);

/* True while the worker stays without work, see linger.c. */
static bool lingers = false;

/* True from then on until it has a run: others know it as one that can go. */
static bool is_known_to_linger = false;

/* True if it has lingered, and has not the settings that a new one would have. */
static bool is_outdated = false;

/* When there was something to do. */
static TimestampTz last_busy = 0;

/* Tells whether there is something for tick() to do. */
static bool
work_is_due(TimestampTz now)
{
	dlist_iter iter;
	bool	   outcomes = false;

	if (now < next_tick && last_look != 0)
		return false;
	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (wants_claim(run, now))
			return true;
		if (!may_try_work(run, &run->recording, now))
			continue;
		if (run_wants_record(run))
			return true;
		outcomes |= run->num_done > 0;
	}
	return (outcomes && TimestampDifferenceExceeds(last_record, now, RECORD_DELAY_MS)) ||
		   TimestampDifferenceExceeds(last_look, now, LOOK_INTERVAL_MS);
}

static bool
claim_is_wanted(TimestampTz now)
{
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		if (wants_claim(dlist_container(Run, node, iter.cur), now))
			return true;
	}
	return false;
}

/* Returns how long to wait for the network, in ms. */
static long
wait_time(TimestampTz now)
{
	TimestampTz next = next_send_time();
	long		most = RECORD_DELAY_MS;

	if (last_look == 0 || claim_is_wanted(now) || sweep_has_work(now))
		most = 0;
	if (next_tick > now)
		most = TimestampDifferenceMilliseconds(now, next_tick);
	if (next != 0)
		most = Min(most, TimestampDifferenceMilliseconds(now, next));
	return most;
}

/* Tells whether there is a run, or a sweep; true if that cannot be determined now. */
static bool
work_is_queued(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool queued = false;

	if (!sendcampaign_enabled)
		return false;
	PG_TRY();
	{
		begin_transaction();
		if (OidIsValid(own_lock_extension()))
		{
			end_changed_query();
			queued = runs_are_waiting() || sweeps_are_waiting();
		}
		commit_transaction();
	}
	PG_CATCH();
	{
		queued = true;
		MemoryContextSwitchTo(context);
		FlushErrorState();
		abort_transaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return queued;
}

/* Tells whether there has been nothing to do for this long. */
static bool
has_been_idle(int msec)
{
	TimestampTz now = GetCurrentTimestamp();

	if (last_busy == 0 || worker.num_runs > 0)
		last_busy = now;
	return TimestampDifferenceExceeds(last_busy, now, msec);
}

/* A worker that only sweeps makes room for the next one. */
static void
hand_on_sweeps(void)
{
	ErrorData *error;

	if (worker.pass == 0)
		return;
	stop_being_a_sweeper(worker.role);
	error = try_transaction(start_next_sweepers, NULL);
	if (error)
		ereport(LOG,
				(errmsg("sendcampaign: could not start the next worker that asks what became of"
						" messages: %s",
						error_text(error))));
}

/* One that sends is not one of the few that only sweep, and may linger. */
static void
notice_runs(TimestampTz now)
{
	if (worker.num_runs == 0)
		return;
	linger_after(now);
	if (is_known_to_linger)
		end_lingering(worker.role);
	is_known_to_linger = false;
	if (worker.pass == 0)
		return;
	stop_being_a_sweeper(worker.role);
	worker.pass = 0;
}

/* Stays, as it may, where it would leave; what a trigger has set is no longer set. */
static void
begin_lingering(void)
{
	ResetAllOptions();
	settle_settings();
	if (!is_known_to_linger)
		begin_to_linger(worker.role);
	is_known_to_linger = true;
	stay_the_worker(worker.role);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, "waiting for the next campaign");
	lingers = true;
}

/*
 * Ends the worker if there is nothing to do, and nothing can be added; or lets
 * it linger.  Somebody who has kept us from that, and no longer does, may have
 * left a run.
 */
static void
leave_if_idle(void)
{
	static bool kept = false;
	bool		waited = has_been_idle(PREPARED_WAIT_MS);
	bool		prepared;
	bool		queued;

	if (worker.num_runs > 0 || worker.foreign_runs_left || announcements_are_left() ||
		sweeps_are_under_way())
		return;
	if (!prepare_to_leave(worker.role))
	{
		kept = true;
		return;
	}
	prepared = is_prepared_for(worker.role); /* before we look: it may end just now */
	queued = work_is_queued();
	if (!queued && (!prepared || waited))
	{
		if (may_linger(GetCurrentTimestamp()) && can_begin_to_linger())
		{
			begin_lingering();
			kept = false;
			return;
		}
		debug_point(DEBUG_LEAVING);
		leave_for_good(worker.role);
		hand_on_sweeps();
		proc_exit(0);
	}
	stay_the_worker(worker.role);
	if (queued && kept)
		last_look = 0;
	kept = !queued;
}

/* Takes the answers that come within a moment. */
static void
await_answers(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LEAVE_DELAY_MS);

	worker.leaving = true;
	while (http_in_flight() > 0 && GetCurrentTimestamp() < until && !ProcDiePending)
	{
		http_wait(10);
		take_answers();
	}
}

/*
 * From now on, callers do not find us any longer, but wait until we have left,
 * and start another worker.  A caller whose commit takes long, perhaps because
 * of a standby, must not keep us: its run continues at the next wake().
 */
static bool
keep_callers_waiting(void)
{
	for (int i = 0; i < LEAVE_TRIES; i++)
	{
		if (prepare_to_leave(worker.role))
			return true;
		(void) http_wait(10);
	}
	return false;
}

/* Runs that were queued before, by callers who relied on us, need a worker. */
static void
hand_over_or_leave(void)
{
	if (work_is_queued())
		hand_over(worker.role);
	else
		leave_for_good(worker.role);
}

static bool
outcomes_are_left(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		if (dlist_container(Run, node, iter.cur)->num_done > 0)
			return true;
	}
	return false;
}

/*
 * The server is shutting down, or somebody terminates us: nothing new is sent,
 * what has not left is put back, answers that are under way are awaited for a
 * moment, and what is known is recorded.  What is not known then is looked up
 * when the run continues.  This must not wait for anything, including a
 * standby.
 */
static void
leave(void)
{
	ErrorData  *error;
	dlist_iter	iter;
	bool		callers_wait;
	TimestampTz begin;

	ProcDiePending = false;
	InterruptPending = false;
	callers_wait = keep_callers_waiting();
	await_answers();
	ProcDiePending = false;
	dlist_foreach (iter, &worker.runs)
		release_unsent(dlist_container(Run, node, iter.cur));
	begin = GetCurrentTimestamp();
	for (int i = 0; i < LEAVE_TICKS && outcomes_are_left(); i++)
	{
		if (some_work_is_locked() &&
			TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), LEAVE_MS))
			break;
		if (!try_tick(false, &error))
			(void) try_tick(true, &error);
	}
	announce(GetCurrentTimestamp());
	if (callers_wait || keep_callers_waiting())
		hand_over_or_leave();
	ProcDiePending = true;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

static void
handle_interrupts(void)
{
	QueryCancelPending = false; /* there is no query to cancel */
	if (ProcDiePending)
		leave();
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		accounts_try_now();
	}
}

/*
 * DROP EXTENSION ends its runs: nothing more is sent, and the application's
 * tables are told what they can still be told.
 */
static void
stop_where_extension_is_gone(void)
{
	dlist_iter iter;

	if (!extension_gone)
		return;
	await_answers();
	begin_transaction();
	dlist_foreach (iter, &worker.runs)
		record_without_extension(dlist_container(Run, node, iter.cur));
	commit_transaction();
	ereport(LOG,
			(errmsg_plural("sendcampaign: the extension was dropped while %d campaign was being"
						   " sent",
						   "sendcampaign: the extension was dropped while %d campaigns were being"
						   " sent",
						   worker.num_runs, worker.num_runs)));
	if (keep_callers_waiting())
		hand_over_or_leave();
	proc_exit(0);
}

/*
 * A turn of the loop, during a transaction that takes long.  Somebody may have
 * told us to send no more: that is checked here, and the latch stays set, so
 * that the loop checks as well.
 */
static void
serve_requests(void)
{
	if (http_wait(0))
	{
		read_run_states();
		SetLatch(MyLatch);
	}
	(void) take_answers();
	follow_agenda();
	send_ready();
}

/*
 * A moment of a worker that lingers.  Once it is woken, or cannot leave because
 * somebody is committing a run, it goes on, if its settings are those of today.
 */
static void
linger(void)
{
	bool woken = http_wait(LINGER_POLL_MS);

	(void) take_answers(); /* there are none, but connections may have been closed */
	if (!woken && may_linger(GetCurrentTimestamp()))
		return;
	lingers = false;
	if (!woken)
	{
		debug_point(DEBUG_LINGERED);
		leave_if_idle();
	}
	if (lingers)
		return;
	is_outdated = connection_is_outdated();
	last_look = 0;
	last_busy = 0; /* it may have to wait for a prepared transaction */
}

/*
 * Whoever has woken us may have a run, which is for a worker with the settings
 * of today.  If there is no slot for it, this is tried again: ours becomes free
 * only when we have gone.
 */
static void
make_way(void)
{
	static int tries = 0;
	bool	   prepared = prepare_to_leave(worker.role);

	if (prepared && !work_is_queued() && !is_prepared_for(worker.role))
	{
		leave_for_good(worker.role);
		proc_exit(0);
	}
	if ((prepared || ++tries > LEAVE_TRIES) &&
		(try_hand_over(worker.role, prepared) || !still_the_worker(worker.role)))
		proc_exit(0);
	pgstat_report_activity(STATE_IDLE, "waiting for a worker with the settings of today");
	(void) http_wait(prepared ? MAKE_WAY_MS : 10);
}

static void
run_forever(void)
{
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		handle_interrupts();
		if (lingers)
		{
			linger();
			continue;
		}
		if (is_outdated)
		{
			make_way();
			continue;
		}
		if (work_is_due(now))
		{
			work();
			stop_where_extension_is_gone();
		}
		notice_runs(now);
		store_long_lists();
		sweep(now);
		announce(now);
		leave_if_idle();
		if (lingers)
			continue; /* what wakes us from here on must be noticed by linger() */
		follow_agenda();
		if (!MyLatch->is_set) /* somebody may have told us to send no more */
			send_ready();
		if (http_wait(wait_time(now)))
			last_look = 0; /* the latch was set: perhaps there is a new run */
		if (take_answers() > 0)
			debug_point(DEBUG_ANSWERED);
	}
}

/*
 * The transaction that asked for us is about to end.  If that takes long,
 * others may need to be served meanwhile, and we look again.
 */
static void
wait_for_caller(TransactionId xid)
{
	MemoryContext context = CurrentMemoryContext;

	if (!TransactionIdIsValid(xid))
		return;
	PG_TRY();
	{
		StartTransactionCommand();
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
		CommitTransactionCommand();
	}
	PG_CATCH(); /* lock_timeout */
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

void
sendcampaign_worker_main(Datum arg)
{
	WorkerStart start;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	if (start.pass != 0 && !become_a_sweeper(start.database, start.role))
		proc_exit(0); /* there are enough, and they start another one later */
	if (!become_the_worker(start.database, start.role))
		proc_exit(0); /* another one does the work */
	worker.pass = start.pass;
	connect_as(start.database, start.role);
	wait_for_caller(start.xid);
	fetch_opt_outs();
	remember_connection();
	http_init();
	send_init();
	worker.give_way = serve_requests;
	last_look = 0;
	run_forever();
}
