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

#include <math.h>

#include "failures.h"
#include "settings.h"
#include "utils/timestamp.h"

#define BLANKS " \t\r\n"

/* What the setting says; of a part that it does not have, -1. */
typedef struct FailureLimit
{
	double share; /* in percent */
	double number;
} FailureLimit;

/* Reads a share or a number; NULL where it is neither, or there twice. */
static const char *
read_part(const char *value, FailureLimit *limit)
{
	char   *end;
	double	number = strtod(value, &end);
	double *part = &limit->number;

	if (end == value || !isfinite(number) || number < 0)
		return NULL;
	end += strspn(end, BLANKS);
	if (*end == '%')
	{
		part = &limit->share;
		end++;
	}
	if (*part >= 0 || (part == &limit->share ? number > 100 : number != floor(number)))
		return NULL;
	*part = number;
	return end + strspn(end, BLANKS);
}

static bool
read_limit(const char *value, FailureLimit *limit)
{
	limit->share = limit->number = -1;
	value += strspn(value, BLANKS);
	if (*value == '\0')
		return true;
	value = read_part(value, limit);
	if (value && *value == ',')
		value = read_part(value + 1, limit);
	return value && *value == '\0';
}

bool
max_failures_is_valid(const char *value)
{
	FailureLimit limit;

	return read_limit(value, &limit);
}

static bool
are_too_many(int failures, int verdicts)
{
	FailureLimit limit;

	if (!read_limit(sendcampaign_max_failures, &limit) || (limit.share < 0 && limit.number < 0))
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
