/*-------------------------------------------------------------------------
 *
 * linger.c
 *	  A worker that stays for a while after its last run.
 *
 * The next run then needs no new process, no new connections, and no
 * handshakes.  A worker that lingers has no transaction, no snapshot and no
 * locks but those that say who it is; it runs no statement, and wakes up a few
 * times a second to see whether it is in somebody's way:
 *
 * - DROP DATABASE, CREATE DATABASE ... TEMPLATE and ALTER DATABASE hold a lock
 *	 on the database while they wait for up to 5 s until nobody is connected.
 *	 We can tell that it is held: those who connect would wait for it.
 * - Slots for background workers are scarce.
 * - The role or the extension is dropped, or a right is revoked: PostgreSQL
 *	 tells us that something of that kind has changed, and then we look.
 *
 * Settings of a role or database (ALTER ROLE ... SET) count for new processes.
 * Before it takes up a run, a worker that has lingered looks whether they are
 * still those that it has.  PostgreSQL does not tell us when they change, but
 * the versions of the rows do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_db_role_setting.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/linger.h"
#include "worker/run.h"
#include "worker/start_worker.h"
#include "worker/transaction.h"

/* What PostgreSQL tells us of changed rights is taken note of this often. */
#define NOTICE_INTERVAL_MS 1000

/* A version of a row; all zero if there is none. */
typedef struct RowVersion
{
	TransactionId	xmin;
	ItemPointerData tid;
} RowVersion;

/* What the worker's settings and rights depend on. */
typedef struct Connection
{
	RowVersion role;
	RowVersion database;
	RowVersion settings[4];
	Oid		   extension;
	bool	   is_allowed;
} Connection;

static Connection  ours;
static bool		   ours_is_known = false;
static bool		   rights_have_changed = false;
static TimestampTz last_run = 0;
static TimestampTz last_notice = 0;

static RowVersion
version_of(HeapTuple tuple)
{
	RowVersion version;

	memset(&version, 0, sizeof(version)); /* padding as well */
	if (HeapTupleIsValid(tuple))
	{
		version.xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
		version.tid = tuple->t_self;
	}
	return version;
}

static RowVersion
version_in_cache(int cache, Oid oid)
{
	HeapTuple  tuple = SearchSysCache1(cache, ObjectIdGetDatum(oid));
	RowVersion version = version_of(tuple);

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return version;
}

static RowVersion
version_of_settings(Relation settings, Oid database, Oid role)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	RowVersion	version;

	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(database));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(role));
	scan = systable_beginscan(settings, DbRoleSettingDatidRolidIndexId, true, NULL, 2, keys);
	version = version_of(systable_getnext(scan));
	systable_endscan(scan);
	return version;
}

/* Fills in what a worker that connects now would find. */
static void
read_connection(void *arg)
{
	Connection *connection = arg;
	Relation	settings;
	char	   *hint;

	memset(connection, 0, sizeof(*connection));
	connection->role = version_in_cache(AUTHOID, worker.role);
	connection->database = version_in_cache(DATABASEOID, MyDatabaseId);
	settings = table_open(DbRoleSettingRelationId, AccessShareLock);
	connection->settings[0] = version_of_settings(settings, MyDatabaseId, worker.role);
	connection->settings[1] = version_of_settings(settings, InvalidOid, worker.role);
	connection->settings[2] = version_of_settings(settings, MyDatabaseId, InvalidOid);
	connection->settings[3] = version_of_settings(settings, InvalidOid, InvalidOid);
	table_close(settings, AccessShareLock);
	connection->extension = get_extension_oid("sendcampaign", true);
	connection->is_allowed = why_role_cannot_work(worker.role, &hint) == NULL;
}

static bool
try_to_read(Connection *connection)
{
	ErrorData *error = try_transaction(read_connection, connection);

	if (error == NULL)
		return true;
	FreeErrorData(error);
	return false;
}

static void
on_change(Datum arg, int cache, uint32 hash)
{
	rights_have_changed = true;
}

void
remember_connection(void)
{
	static const int caches[] = {AUTHOID, AUTHMEMROLEMEM, DATABASEOID, NAMESPACEOID, PROCOID};

	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], on_change, (Datum) 0);
	ours_is_known = try_to_read(&ours);
}

bool
connection_is_outdated(void)
{
	Connection now;

	return !ours_is_known || !try_to_read(&now) || memcmp(&ours, &now, sizeof(ours)) != 0;
}

void
linger_after(TimestampTz now)
{
	last_run = now;
}

/*
 * Tells whether somebody has locked the database against new connections,
 * since they wait until nobody is connected.
 */
static bool
database_is_wanted(void)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, true);
	return false;
}

/* Tells whether the role or the extension is no longer what it was; looks rarely. */
static bool
has_lost_rights(TimestampTz now)
{
	if (!TimestampDifferenceExceeds(last_notice, now, NOTICE_INTERVAL_MS))
		return false;
	last_notice = now;
	/* the start of a transaction takes note of what has changed */
	StartTransactionCommand();
	CommitTransactionCommand();
	if (!rights_have_changed)
		return false;
	rights_have_changed = false;
	ours_is_known = !connection_is_outdated(); /* once lost, it does not come back */
	return !ours_is_known;
}

bool
may_linger(TimestampTz now)
{
	return last_run != 0 && sendcampaign_enabled && ours_is_known &&
		   !TimestampDifferenceExceeds(last_run, now, sendcampaign_worker_idle_timeout) &&
		   slots_are_plenty() && !slot_is_wanted() && !database_is_wanted() &&
		   !has_lost_rights(now);
}

bool
can_begin_to_linger(void)
{
	/* triggers may have made temporary tables, or taken or released locks of the session */
	return !OidIsValid(MyProc->tempNamespaceId) && !holds_others_locks(worker.role) &&
		   still_the_worker(worker.role);
}
