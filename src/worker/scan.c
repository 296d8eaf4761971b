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
#include "worker/announce.h"
#include "worker/scan.h"
#include "worker/start_worker.h"

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
 * Runs of a role that cannot work must not wait forever, unnoticed.  Those
 * that somebody has locked are left for the next time.
 */
static void
fail_runs_of_role(Oid role, const char *reason)
{
	List *ended = runs_fail_of_role(role, reason);

	ended = list_concat(ended, runs_wind_up_of_role(role, reason));
	announce_runs(ended);
	if (ended != NIL)
		ereport(LOG,
				(errmsg("sendcampaign: campaigns have failed: %s", reason)));
}

/* A role that has unfinished runs. */
typedef struct WaitingRole
{
	Oid	  role;
	char *name;
	bool  all; /* true if the caller need not be a member of it */
	bool  started;
} WaitingRole;

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
		waiting->started = start_worker_now(role);
	else
		fail_runs_of_role(role, reason);
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

/* Roles with unfinished runs in this database, and their names. */
#define ROLES_THAT_WAIT                                                                            \
	"SELECT role_oid::int8, min(role::text) FROM sendcampaign.run_data"                            \
	" WHERE " IS_AT_HOME("$1", "$2") IS_WAITING                                                    \
		" GROUP BY role_oid"                                                                       \
		" UNION SELECT r.oid::int8, r.rolname::text FROM sendcampaign.run_data"                    \
		"  JOIN pg_roles r ON r.rolname = role"                                                    \
		" WHERE NOT " IS_AT_HOME("$1", "$2") IS_WAITING

int
start_workers_for_queue(bool all)
{
	Oid			 types[] = {NUMERICOID, OIDOID};
	Datum		 values[] = {system_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	uint64		 count = own_query(ROLES_THAT_WAIT, 2, types, values, NULL);
	int			 started = 0;
	WaitingRole *roles = palloc0(Max(count, 1) * sizeof(WaitingRole));

	for (uint64 i = 0; i < count; i++)
		roles[i] = (WaitingRole){(Oid) spi_int64(i, 1), spi_string(i, 2), all};
	for (uint64 i = 0; i < count; i++)
		started += start_for_role_alone(&roles[i]);
	return started;
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
	if (sendcampaign_enabled && OidIsValid(own_lock_extension()))
		(void) start_workers_for_queue(true);
	PopActiveSnapshot();
	spi_finish();
	CommitTransactionCommand();
	announce(GetCurrentTimestamp());
	proc_exit(0);
}
