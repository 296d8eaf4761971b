/*-------------------------------------------------------------------------
 *
 * process.c
 *	  What the extension's background processes have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/process.h"
#include "worker/run.h"
#include "worker/transaction.h"

/* For each lock that is needed to connect. */
#define CONNECT_TIMEOUT "5s"

void
describe_process(BackgroundWorker *process, const char *function, const char *type)
{
	memset(process, 0, sizeof(*process));
	process->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process->bgw_start_time = BgWorkerStart_RecoveryFinished;
	process->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(process->bgw_library_name, "sendcampaign", sizeof(process->bgw_library_name));
	strlcpy(process->bgw_function_name, function, sizeof(process->bgw_function_name));
	strlcpy(process->bgw_name, type, BGW_MAXLEN);
	strlcpy(process->bgw_type, type, BGW_MAXLEN);
}

static void
remember_role(Oid role)
{
	char *name;

	StartTransactionCommand();
	name = GetUserNameFromId(role, false);
	worker.role = role;
	worker.role_name = MemoryContextStrdup(TopMemoryContext, name);
	CommitTransactionCommand();
}

void
connect_as(Oid database, Oid role)
{
	/* somebody's lock on what connecting needs must not hold us up forever */
	SetConfigOption("lock_timeout", CONNECT_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(database, role, COMPAT_CONNECT_FLAGS);
	settle_settings();
	remember_role(role);
}
