/*-------------------------------------------------------------------------
 *
 * failure_limit.c
 *	  How many messages may fail before the run pauses itself.
 *
 * With a list of landlines, or a text that carriers block, each failed message
 * costs money and harms the sender's reputation.  So a person should look first:
 * see sendcampaign.failure_threshold and failure_scale_factor.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "utils/timestamp.h"
#include "worker/failure_limit.h"

static bool
are_too_many(const Verdicts *verdicts)
{
	return sendcampaign_failure_threshold >= 0 &&
		   verdicts->failures >= sendcampaign_failure_threshold &&
		   verdicts->failures > sendcampaign_failure_scale_factor * verdicts->count;
}

void
count_verdict(Run *run, bool failed)
{
	run->verdicts.count++;
	if (!failed)
		return;
	run->verdicts.failures++;
	if (are_too_many(&run->verdicts))
		run_halt(run);
}

void
reset_verdicts(Run *run)
{
	run->verdicts = (Verdicts){.since = GetCurrentTimestamp()};
}
