/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Starts workers for the unfinished runs of a database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/attempt.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "settings.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/announce.h"
#include "worker/courier.h"
#include "worker/run.h"
#include "worker/scan.h"
#include "worker/start_worker.h"
#include "worker/sweep_queue.h"

/* For each lock that a scanner needs, including those for connecting. */
#define SCANNER_LOCK_TIMEOUT "1s"

PGDLLEXPORT void sendcampaign_scanner_main(Datum arg);

/* In a background worker, separately after the commit; elsewhere in the transaction. */
static void
announce_runs(List *announcements)
{
	ListCell *lc;

	if (!compat_is_background_worker())
		announce_all_at_commit(announcements);
	else
	{
		foreach (lc, announcements)
			announce_later(lfirst(lc));
	}
}

/*
 * Returns the role's cancelled runs that are left to us, bigint[].  A worker that has
 * one goes on until it has ended it.  None can take one of ours, as the row is locked.
 */
static Datum
lock_cancelled_runs(Oid role)
{
	int	   count;
	Datum *ids = ids_of_array(DatumGetArrayTypeP(runs_lock_cancelled(role)), &count);
	int	   left = 0;

	for (int i = 0; i < count; i++)
	{
		if (!worker_has_run(DatumGetInt64(ids[i])))
			ids[left++] = ids[i];
	}
	return make_array(ids, NULL, left, INT8OID);
}

/*
 * Runs of a role that cannot work must not wait forever, unnoticed.  Those
 * that somebody has locked are left for the next time.
 */
static void
fail_runs_of_role(Oid role, const char *reason)
{
	List *ended = runs_fail_of_role(role, reason);

	ended = list_concat(ended, runs_wind_up(lock_cancelled_runs(role), reason));
	announce_runs(ended);
	if (ended != NIL)
		ereport(LOG,
				(errmsg("sendcampaign: campaigns have failed: %s", reason)));
}

/* A role that has unfinished runs, or runs to be swept. */
typedef struct WaitingRole
{
	Oid			role;
	char	   *name;
	bool		has_runs; /* true if some are unfinished */
	bool		all;	  /* true if the caller need not be a member of it */
	TimestampTz pass;	  /* see start_sweeper_now() */
	int			room;	  /* the same */
	bool		started;
	bool		has_to_wait; /* true if there are enough workers that only sweep */
} WaitingRole;

static void
start_for_work(WaitingRole *waiting)
{
	if (waiting->has_runs)
		waiting->started = start_worker_now(waiting->role);
	else
	{
		waiting->started = start_sweeper_now(waiting->role, waiting->pass, &waiting->room);
		waiting->has_to_wait = !waiting->started;
	}
}

static void
start_for_role(void *arg)
{
	WaitingRole *waiting = arg;
	Oid			 role = waiting->role;
	char		*hint = NULL;
	char		*reason;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		reason = psprintf("role \"%s\" does not exist", waiting->name);
	else if (!waiting->all && !is_member_of_role(GetUserId(), role))
		return;
	else
		reason = why_role_cannot_work(role, &hint);
	if (reason == NULL)
		start_for_work(waiting);
	else if (waiting->has_runs)
		fail_runs_of_role(role, reason);
	else
		put_off_sweeps(role);
}

/* Keeps a problem with one role from affecting others. */
static bool
start_for_role_alone(WaitingRole *waiting)
{
	ErrorData *error = attempt(start_for_role, waiting);

	if (error == NULL)
		return waiting->started;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	ereport(compat_is_background_worker() ? LOG : WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("sendcampaign: could not continue the campaigns of role \"%s\": %s",
					waiting->name, error_text(error))));
	return false;
}

/*
 * SQL: roles with unfinished runs in this database, and with runs to be swept,
 * and their names.  Those who send come first, as not all others may get a
 * worker now.
 */
#define ROLES_TO_SEND                                                                              \
	"SELECT role_oid::int8, role::text, true FROM sendcampaign.run_data"                           \
	" WHERE " IS_AT_HOME("$1", "$2") IS_WAITING                                                    \
		" UNION ALL SELECT r.oid::int8, r.rolname::text, true FROM sendcampaign.run_data"          \
		"  JOIN pg_roles r ON r.rolname = role"                                                    \
		"  WHERE NOT " IS_AT_HOME("$1", "$2") IS_WAITING
#define ROLES_TO_SWEEP                                                                             \
	"SELECT role_oid::int8, role::text, false FROM sendcampaign.run_data"                          \
	" WHERE " IS_AT_HOME("$1", "$2") SWEEP_IS_DUE
#define BY_ROLE(roles, order)                                                                      \
	"SELECT oid, min(name), bool_or(has_runs) FROM (" roles                                        \
	") waiting(oid, name, has_runs) GROUP BY oid" order

/* Returns the roles in SPI_tuptable, palloc'd. */
static WaitingRole *
read_roles(uint64 count, bool all)
{
	WaitingRole *roles = palloc0(Max(count, 1) * sizeof(WaitingRole));

	for (uint64 i = 0; i < count; i++)
		roles[i] = (WaitingRole){.role = (Oid) spi_int64(i, 1),
								 .name = spi_string(i, 2),
								 .has_runs = spi_bool(i, 3),
								 .all = all,
								 .pass = GetCurrentTimestamp()};
	return roles;
}

/* Starts workers for these roles; returns how many were started or woken. */
static int
start_for_roles(WaitingRole *roles, uint64 count)
{
	int started = 0;
	int room = room_for_sweepers();

	for (uint64 i = 0; i < count && (i == 0 || !roles[i - 1].has_to_wait); i++)
	{
		roles[i].room = room;
		started += start_for_role_alone(&roles[i]);
		room = roles[i].room;
	}
	return started;
}

int
start_workers_for_queue(bool all)
{
	Oid	   types[] = {NUMERICOID, OIDOID};
	Datum  values[] = {home_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	uint64 count = own_query(BY_ROLE(ROLES_TO_SEND " UNION ALL " ROLES_TO_SWEEP,
									 " ORDER BY bool_or(has_runs) DESC, oid"),
							 2, types, values, NULL);

	return start_for_roles(read_roles(count, all), count);
}

/*
 * The roles after ours come first, and then those whose runs have become due
 * since the pass began, for which another pass begins.  Others have had their
 * turn: roles whose runs cannot be swept now do not start each other for ever.
 */
void
start_next_sweepers(void *unused)
{
	Oid			 types[] = {NUMERICOID, OIDOID, OIDOID, TIMESTAMPTZOID};
	Datum		 values[] = {home_identifier(), ObjectIdGetDatum(MyDatabaseId),
							 ObjectIdGetDatum(worker.role), TimestampTzGetDatum(worker.pass)};
	uint64		 count;
	WaitingRole *roles;

	if (!OidIsValid(own_lock_extension()))
		return;
	count = own_query(BY_ROLE(ROLES_TO_SWEEP " AND (role_oid > $3 OR sweep_at > $4)",
							  " ORDER BY oid <= $3::int8, oid"),
					  4, types, values, NULL);
	roles = read_roles(count, true);
	for (uint64 i = 0; i < count && roles[i].role > worker.role; i++)
		roles[i].pass = worker.pass;
	(void) start_for_roles(roles, count);
}

/* Scans one database, as a superuser, and only the extension's tables. */
void
sendcampaign_scanner_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!become_the_worker(DatumGetObjectId(arg), InvalidOid))
		proc_exit(0); /* one of an earlier round is still there */

	/* the launcher waits for us, and other databases for the launcher */
	SetConfigOption("lock_timeout", SCANNER_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	spi_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "looking for unfinished campaigns");
	if (OidIsValid(own_lock_extension()))
	{
		if (sendcampaign_enabled)
			(void) start_workers_for_queue(true);
		start_courier_if_needed();
	}
	PopActiveSnapshot();
	spi_finish();
	CommitTransactionCommand();
	announce(GetCurrentTimestamp());
	proc_exit(0);
}
