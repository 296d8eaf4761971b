/*-------------------------------------------------------------------------
 *
 * failure_limit.c
 *	  How many messages may fail before the run pauses itself.
 *
 * Those that Twilio refuses count, and so do those that are not delivered
 * later, each against its own total, since reports of what was delivered come
 * late or not at all.
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
are_too_many(int64 failures, int64 count)
{
	return sendcampaign_failure_threshold >= 0 && failures >= sendcampaign_failure_threshold &&
		   failures > sendcampaign_failure_scale_factor * count;
}

void
count_verdict(Run *run, bool failed)
{
	run->verdicts.count++;
	if (!failed)
		return;
	run->verdicts.failures++;
	if (are_too_many(run->verdicts.failures, run->verdicts.count))
		run_halt(run);
}

bool
too_many_undelivered(const Run *run)
{
	const Deliveries *deliveries = &run->deliveries;

	return are_too_many(deliveries->undelivered, deliveries->delivered + deliveries->undelivered);
}

void
check_deliveries(Run *run)
{
	if (too_many_undelivered(run))
		run_halt(run);
}

void
reset_verdicts(Run *run)
{
	run->verdicts = (Verdicts){.since = GetCurrentTimestamp()};
}
