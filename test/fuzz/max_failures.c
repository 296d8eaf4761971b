/*
 * max_failures.c
 *		The setting sendcampaign.max_failures: whatever is taken as valid has
 *		to work.
 */
#include <math.h>

#include "../../src/worker/failures.c"

#include "fuzz.h"

FailureLimit sendcampaign_failure_limit;

TimestampTz
GetCurrentTimestamp(void)
{
	return 0;
}

void
fuzz_one(const char *data, size_t size)
{
	FailureLimit limit;
	Run			 run = {0};

	if (!read_failure_limit(data, &limit))
		return;
	promise(limit.share == -1 || (limit.share >= 0 && limit.share <= 100));
	promise(limit.number == -1 || (limit.number >= 0 && limit.number == floor(limit.number)));
	sendcampaign_failure_limit = limit;
	count_verdict(&run, false);
	promise(!run.halted);
	count_verdict(&run, true);
	promise(run.num_verdicts == 2 && run.num_failures == 1);
	reset_verdicts(&run);
	promise(!run.halted);
}
