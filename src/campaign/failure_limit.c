/*-------------------------------------------------------------------------
 *
 * failure_limit.c
 *	  How many messages may fail, as the setting says it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "campaign/failure_limit.h"

#define BLANKS " \t\r\n"

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

bool
read_failure_limit(const char *value, FailureLimit *limit)
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
