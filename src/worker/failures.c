/*-------------------------------------------------------------------------
 *
 * failures.c
 *	  When so many messages fail that the run pauses itself.
 *
 * A list of landlines, or a text that carriers block, costs money and the
 * sender's reputation with each message that fails.  A person should look at
 * it first: sendcampaign.max_failures.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "utils/timestamp.h"
#include "worker/failures.h"

static bool
are_too_many(int failures, int verdicts)
{
	FailureLimit limit = sendcampaign_failure_limit;

	if (limit.share < 0 && limit.number < 0)
		return false;
	return failures >= limit.number && failures * 100.0 > limit.share * verdicts;
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
