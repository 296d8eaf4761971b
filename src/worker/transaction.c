/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  A worker's transactions, and their settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "database/citus.h"
#include "database/spi.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "worker/transaction.h"

/* How long to wait for a lock. */
#define LOCK_TIMEOUT_MS 100

/* How long to wait for a connection to another node of Citus. */
#define NODE_TIMEOUT	"citus.node_connection_timeout"
#define NODE_TIMEOUT_MS 3000

/* A node that hangs must not hold up what others send; without Citus, there is no such setting. */
static void
limit_node_timeout(void)
{
	const char *msec = GetConfigOption(NODE_TIMEOUT, true, false);

	if (msec && strtol(msec, NULL, 10) > NODE_TIMEOUT_MS)
		SetConfigOption(NODE_TIMEOUT, CppAsString2(NODE_TIMEOUT_MS), PGC_USERSET, PGC_S_SESSION);
}

/*
 * Settings of the role, or left behind by its triggers, that must not
 * interfere with its other runs.  Cheap outside of a transaction.
 */
void
settle_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"exit_on_error", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", CppAsString2(LOCK_TIMEOUT_MS)},
		{"row_security", "on"},
		{"jit", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_SESSION);
	limit_node_timeout();
	compat_no_transaction_timeout();
}

void
settle_after_triggers(void)
{
	if (ExitOnAnyError || LockTimeout != LOCK_TIMEOUT_MS || !row_security)
		settle_settings();
}

/*
 * Outside of a transaction block, Citus commits each statement that it passes
 * on to another node by itself: a tick that is rolled back, and repeated, would
 * count twice.
 */
static void
begin_block_for_citus(void)
{
	if (!citus_is_here())
		return;
	BeginTransactionBlock();
	CommitTransactionCommand();
	StartTransactionCommand();
}

void
begin_transaction(void)
{
	settle_settings();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	begin_block_for_citus();
	spi_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
commit_transaction(void)
{
	PopActiveSnapshot();
	spi_finish();
	if (IsTransactionBlock())
		(void) EndTransactionBlock(false);
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
abort_transaction(void)
{
	AbortOutOfAnyTransaction(); /* of a block, too */
}

ErrorData *
try_transaction(void (*function)(void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		begin_transaction();
		function(arg);
		commit_transaction();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		abort_transaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return error;
}

void
fire_deferred_triggers(void)
{
	int result = SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);

	spi_check(result, SPI_OK_UTILITY, "SET CONSTRAINTS");
}
