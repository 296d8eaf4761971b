/*-------------------------------------------------------------------------
 *
 * failure_limit.c
 *	  When so many messages fail that the run pauses itself.
 *
 * A list of landlines, or a text that carriers block, costs money and the
 * sender's reputation with each message that fails.  A person should look at
 * it first: sendcampaign.failure_threshold and failure_scale_factor.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "utils/timestamp.h"
#include "worker/failure_limit.h"

static bool
are_too_many(int failures, int verdicts)
{
	return sendcampaign_failure_threshold >= 0 && failures >= sendcampaign_failure_threshold &&
		   failures > sendcampaign_failure_scale_factor * verdicts;
}

void
count_verdict(Run *run, bool failed)
{
	run->num_verdicts++;
	if (!failed)
		return;
	run->num_failures++;
	if (are_too_many(run->num_failures, run->num_verdicts))
		run->halted = true;
}

void
reset_verdicts(Run *run)
{
	run->num_verdicts = run->num_failures = 0;
	run->halted = false;
	run->verdicts_since = GetCurrentTimestamp();
}
