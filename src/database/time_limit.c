/*-------------------------------------------------------------------------
 *
 * time_limit.c
 *	  A limit to the time that a role's code may take.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "database/time_limit.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define CANCEL_AGAIN_MS	  200
#define MAX_CANCELLATIONS 10

static volatile sig_atomic_t num_cancellations;

static void
cancel_code(void)
{
	if (++num_cancellations > MAX_CANCELLATIONS)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static TimeoutId
code_timeout(void)
{
	static TimeoutId id = MAX_TIMEOUTS;

	if (id == MAX_TIMEOUTS)
		id = RegisterTimeout(USER_TIMEOUT, cancel_code);
	return id;
}

bool
time_limit_start(int64 ms)
{
	if (get_timeout_active(code_timeout()))
		return false;
	num_cancellations = 0;
	if (ms > 0)
		enable_timeout_every(code_timeout(), TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms),
							 CANCEL_AGAIN_MS);
	return true;
}

void
time_limit_end(void)
{
	disable_timeout(code_timeout(), false);
	if (num_cancellations > 0)
		QueryCancelPending = false;
}

bool
time_limit_was_reached(void)
{
	return num_cancellations > 0;
}
