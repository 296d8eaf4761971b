/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  How long failed work waits before it is retried.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "worker/backoff.h"

#define BACKOFF_BASE_MS 1000
#define BACKOFF_MAX_MS	60000

int
backoff_delay(int failures)
{
	int most = BACKOFF_MAX_MS;

	if (failures < 6)
		most = Min(most, BACKOFF_BASE_MS << failures);
	return (int) (pg_prng_double(&pg_global_prng_state) * most);
}

void
end_back_off(Backoff *backoff)
{
	backoff->passed = true;
}

void
settle_back_off(Backoff *backoff, bool committed)
{
	if (committed && backoff->passed)
	{
		backoff->failures = 0;
		backoff->since = 0;
		backoff->locked = backoff->far = false;
	}
	backoff->passed = false;
}
