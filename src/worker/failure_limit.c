/*-------------------------------------------------------------------------
 *
 * failure_limit.c
 *	  How many messages may fail before the run pauses itself.
 *
 * With a list of landlines, or a text that carriers block, each message that
 * fails costs money and the sender's reputation.  A person should have a look
 * first: see sendcampaign.failure_threshold and failure_scale_factor.
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
