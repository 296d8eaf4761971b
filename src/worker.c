/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker that sends: its life and its one loop.
 *
 * Each turn of the loop moves messages one way:
 *
 *	  tick()          in a transaction: adopt runs, claim recipients,
 *	                  record outcomes, finish runs
 *	  send_ready()    no transaction: start requests
 *	  http_wait()     no transaction: wait for the network or the latch
 *	  take_answers()  no transaction: classify what came
 *
 * So no snapshot and no lock is ever held while Twilio is waited for, and
 * nothing is sent before the commit of its claim is on disk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "adopt.h"
#include "catalog/pg_type.h"
#include "claim.h"
#include "compat.h"
#include "fmgr.h"
#include "guard.h"
#include "history.h"
#include "http.h"
#include "lookup.h"
#include "miscadmin.h"
#include "own.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "record.h"
#include "send.h"
#include "settings.h"
#include "start.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Outcomes are recorded when they are so many, or so old. */
#define RECORD_COUNT		1000
#define RECORD_DELAY_MS		100

/* The queue is looked at when the latch says so, and at least so often. */
#define LOOK_INTERVAL_MS	1000

/* At most so many claims of one run in one transaction. */
#define CLAIMS_AT_ONCE		4

/* When leaving, answers on their way are waited for so long. */
#define LEAVE_DELAY_MS		400

/* Transactions that record what is known then, at most. */
#define LEAVE_TICKS			8

/* Transactions that failed in a row, until the worker gives up. */
#define MAX_FAILURES		20

PGDLLEXPORT void sendcampaign_worker_main(Datum arg);

static TimestampTz last_record = 0;
static TimestampTz last_look = 0;
static TimestampTz next_tick = 0;	/* after a failed one */
static int	failures = 0;
static bool extension_gone = false;

/* Settings of the role that must not get in the way. */
static void
settle_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", "100ms"},
		{"jit", "off"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static void
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit_transaction(void)
{
	PopActiveSnapshot();
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/*
 * A claim must be on disk before its messages are sent, whatever the role's
 * synchronous_commit says.  Outcomes need not be: what is lost of them is
 * claimed still, and looked up.
 */
static void
choose_durability(bool claimed, bool ended)
{
	const char *wanted = NULL;

	if (claimed || worker.leaving)
		wanted = synchronous_commit == SYNCHRONOUS_COMMIT_OFF || worker.leaving ? "local" : NULL;
	else if (!ended)
		wanted = "off";
	if (wanted)
		(void) set_config_option("synchronous_commit", wanted, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}

static void
claim_for(Run *run)
{
	claim_batch(run);
	run->claiming.failures = 0;
}

static bool
claim_all(bool careful)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;
	bool		claimed = false;

	dlist_foreach(iter, &worker.runs)
	{
		Run		   *run = dlist_container(Run, node, iter.cur);

		for (int i = 0; i < CLAIMS_AT_ONCE && wants_claim(run, now); i++)
		{
			if (!careful)
				claim_for(run);
			else if (!guarded(claim_for, run, &run->claiming))
			{
				drop_unfinished_claim(run);
				break;
			}
			claimed |= !run->exhausted;
		}
	}
	return claimed;
}

/* What this transaction did for the run is undone; so it is in memory. */
static void
forget_attempt(Run *run)
{
	unrecord(run);
	unstore_history(run);
	run->notice = NULL;
	run->finished = false;
	run->stop_recorded = run->stop_durable;
}

static void
record_run(Run *run, bool careful)
{
	store_history(run);
	record_notice(run);
	if (run->stop_reason || !sendcampaign_enabled)
		release_unsent(run);
	settle_lookups(run);
	if (run->num_done > 0)
		record_outcomes(run, careful);
}

static int
count_recorded(Run *run)
{
	dlist_iter	iter;
	int			count = 0;

	dlist_foreach(iter, &run->recorded)
		count++;
	return count;
}

static void
end_run(Run *run, bool careful)
{
	if (run->finished || worker.leaving)
		return;
	if (why_history_cannot_be_read(run))
		pause_run(run, psprintf("commits may have been lost, and what was sent cannot be read back from Twilio: %s",
								why_history_cannot_be_read(run)));
	else if (run->stop_reason && !run->stop_recorded)
		fail_run(run, careful);
	else if (run->stop_reason == NULL && run->exhausted && run->open == count_recorded(run))
		finish_run(run, careful);
}

static void
record_and_end(Run *run)
{
	record_run(run, false);
	end_run(run, false);
}

static void
record_and_end_carefully(Run *run)
{
	record_run(run, true);
	end_run(run, true);
}

/* True where a run has ended. */
static bool
record_all(bool careful)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;
	bool		ended = false;

	dlist_foreach(iter, &worker.runs)
	{
		Run		   *run = dlist_container(Run, node, iter.cur);

		if (run->recording.until > now && !worker.leaving)
			continue;
		if (!careful)
			record_and_end(run);
		else if (!guarded(record_and_end_carefully, run, &run->recording))
			forget_attempt(run);
		ended |= run->stop_recorded || run->finished;
	}
	last_record = now;
	return ended;
}

/* The role may be renamed; its runs are its runs all the same. */
static void
follow_name(void)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	char	   *name = GetUserNameFromId(worker.role, true);

	if (name == NULL || strcmp(name, worker.role_name) == 0)
		return;
	values[0] = CStringGetTextDatum(worker.role_name);
	values[1] = CStringGetTextDatum(name);
	(void) own_query("UPDATE sendcampaign.run SET role = $2::name"
					 " WHERE role = $1::name AND state IN ('queued', 'running')",
					 2, types, values, NULL);
	worker.role_name = MemoryContextStrdup(TopMemoryContext, name);
}

/* Dropped and created again is not the one whose runs we have. */
static bool
is_extension_there(void)
{
	static Oid	extension = InvalidOid;
	Oid			now = own_lock_extension();

	if (worker.num_runs == 0)
		extension = now;
	return OidIsValid(now) && now == extension;
}

/* All that the database has to do now, as one transaction. */
static void
tick(bool careful)
{
	bool		claimed;
	bool		ended;

	if (!still_the_worker(worker.role))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("sendcampaign worker has lost its lock"),
				 errhint("Triggers on the application's tables must not call pg_advisory_unlock_all().")));
	begin_transaction();
	if (!is_extension_there())
	{
		extension_gone = worker.num_runs > 0;
		commit_transaction();
		return;
	}
	follow_name();
	if (!worker.leaving && sendcampaign_enabled)
		adopt_runs();
	claimed = claim_all(careful);
	ended = record_all(careful);
	choose_durability(claimed, ended);
	commit_transaction();
}

/*
 * Is there nothing left to do for this run, here and now?  What stays in
 * doubt then is claimed still, for when it goes on.
 */
static bool
is_through(const Run *run)
{
	if (run->in_flight > 0 || history_is_under_way(run))
		return false;			/* answers are still to come */
	if (run->finished)
		return true;
	if (run->num_done > 0)
		return false;
	if (run->stop_durable)
		return run->open == 0 || run->account == NULL || run->history || run->not_answered;
	return !sendcampaign_enabled && run->open == 0 && run->stop_reason == NULL;
}

static void
after_commit(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &worker.runs)
	{
		Run		   *run = dlist_container(Run, node, iter.cur);

		run->tentative = false;
		run->stop_durable = run->stop_recorded;
		keep_claims(run);
		keep_history(run);
		forget_recorded(run);
		if (is_through(run))
			free_run(run);
	}
}

static void
after_abort(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &worker.runs)
	{
		Run		   *run = dlist_container(Run, node, iter.cur);

		forget_attempt(run);
		drop_tentative_claims(run);
		run->exhausted = false;
		if (run->tentative)
			free_run(run);
	}
}

/* One try; false where it failed, with the error in *error. */
static bool
try_tick(bool careful, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool good = true;

	PG_TRY();
	{
		tick(careful);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (good)
		after_commit();
	else
		after_abort();
	return good;
}

/*
 * Most of the time nothing goes wrong, and one transaction does for all.
 * Where something does, the same again, with each run on its own.
 */
static void
work(void)
{
	static MemoryContext context = NULL;
	MemoryContext old;
	ErrorData  *error = NULL;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "sendcampaign errors",
										ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_RUNNING, "recording and claiming messages");
	last_look = GetCurrentTimestamp();
	if (try_tick(false, &error) || try_tick(true, &error))
	{
		failures = 0;
		next_tick = 0;
	}
	else
	{
		if (failures++ == 0)
			ereport(LOG,
					(errmsg("sendcampaign: could not record or claim messages, trying again: %s",
							error->message)));
		if (failures > MAX_FAILURES)
			ereport(ERROR,
					(errcode(error->sqlerrcode),
					 errmsg("sendcampaign worker gives up: %s", error->message),
					 errhint("Unfinished campaigns go on at the next send_campaign() or sendcampaign.wake().")));
		next_tick = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												100 + backoff_delay(Min(failures, 4)));
	}
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/* What there is for tick() to do, and since when. */
static bool
work_is_due(TimestampTz now)
{
	dlist_iter	iter;
	bool		outcomes = false;

	if (now < next_tick)
		return false;
	dlist_foreach(iter, &worker.runs)
	{
		Run		   *run = dlist_container(Run, node, iter.cur);

		if (wants_claim(run, now))
			return true;
		if (run->recording.until > now)
			continue;
		if (run->num_done >= RECORD_COUNT || (run->num_done > 0 && run->num_done == run->open))
			return true;
		if ((run->stop_reason && !run->stop_recorded) ||
			(run->exhausted && run->open == 0 && run->stop_reason == NULL))
			return true;
		outcomes |= run->num_done > 0;
	}
	return (outcomes && TimestampDifferenceExceeds(last_record, now, RECORD_DELAY_MS)) ||
		TimestampDifferenceExceeds(last_look, now, LOOK_INTERVAL_MS);
}

/* How long to wait for the network, in ms. */
static long
wait_time(TimestampTz now)
{
	TimestampTz next = next_send_time();
	long		most = RECORD_DELAY_MS;

	if (next_tick > now)
		most = TimestampDifferenceMilliseconds(now, next_tick);
	if (next != 0)
		most = Min(most, TimestampDifferenceMilliseconds(now, next));
	return most;
}

/* Where that cannot be seen just now, there may be. */
static bool
work_is_queued(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool queued = true;

	if (!sendcampaign_enabled)
		return false;
	PG_TRY();
	{
		begin_transaction();
		queued = OidIsValid(own_lock_extension()) && runs_are_waiting();
		commit_transaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return queued;
}

/* Ends the worker where there is nothing to do, and nothing can be added. */
static void
leave_if_idle(void)
{
	if (worker.num_runs > 0 || !prepare_to_leave(worker.role))
		return;
	if (work_is_queued())
	{
		stay_the_worker(worker.role);
		return;
	}
	leave_for_good(worker.role);
	proc_exit(0);
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

/* Runs that were queued meanwhile, by callers who relied on us, need a worker. */
static void
hand_over_or_leave(void)
{
	while (!prepare_to_leave(worker.role))
		(void) http_wait(10);
	if (work_is_queued())
		hand_over(worker.role);
	else
		leave_for_good(worker.role);
}

static bool
outcomes_are_left(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &worker.runs)
	{
		if (dlist_container(Run, node, iter.cur)->num_done > 0)
			return true;
	}
	return false;
}

/*
 * The server goes down, or someone wants us to: nothing new is sent, what has
 * not left goes back, answers on their way are waited for a moment, and what
 * is known is recorded.  What is not known then is looked up when the run
 * goes on.  It must not wait for anything, a standby included.
 */
static void
leave(void)
{
	ErrorData  *error;
	dlist_iter	iter;

	ProcDiePending = false;
	InterruptPending = false;
	await_answers();
	ProcDiePending = false;
	dlist_foreach(iter, &worker.runs)
		release_unsent(dlist_container(Run, node, iter.cur));
	for (int i = 0; i < LEAVE_TICKS && outcomes_are_left(); i++)
	{
		if (!try_tick(false, &error))
			(void) try_tick(true, &error);
	}
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
 * DROP EXTENSION ends its runs: nothing more is sent, and what the
 * application's tables can still be told, they are told.
 */
static void
stop_where_extension_is_gone(void)
{
	dlist_iter	iter;

	if (!extension_gone)
		return;
	await_answers();
	begin_transaction();
	dlist_foreach(iter, &worker.runs)
		record_without_extension(dlist_container(Run, node, iter.cur));
	commit_transaction();
	ereport(LOG,
			(errmsg("sendcampaign: the extension was dropped while %d campaigns were being sent",
					worker.num_runs)));
	hand_over_or_leave();
	proc_exit(0);
}

static void
run_forever(void)
{
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		handle_interrupts();
		if (work_is_due(now))
		{
			work();
			stop_where_extension_is_gone();
		}
		leave_if_idle();
		follow_agenda();
		send_ready();
		if (http_wait(wait_time(now)))
			last_look = 0;		/* the latch was set: perhaps a new run */
		take_answers();
	}
}

/* Waits until the transaction that asked for us has ended. */
static void
wait_for_caller(TransactionId xid)
{
	if (!TransactionIdIsValid(xid))
		return;
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	StartTransactionCommand();
	XactLockTableWait(xid, NULL, NULL, XLTW_None);
	CommitTransactionCommand();
}

static void
remember_role(Oid role)
{
	char	   *name;

	StartTransactionCommand();
	name = GetUserNameFromId(role, false);
	worker.role = role;
	worker.role_name = MemoryContextStrdup(TopMemoryContext, name);
	CommitTransactionCommand();
}

void
sendcampaign_worker_main(Datum arg)
{
	WorkerStart start;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database, start.role,
											  COMPAT_CONNECT_FLAGS);

	wait_for_caller(start.xid);
	if (!become_the_worker(start.role))
		proc_exit(0);			/* another one does the work */
	remember_role(start.role);
	settle_settings();
	http_init();
	send_init();
	last_look = 0;
	run_forever();
}
