/*
 * clock.c
 *		The clocks, and the date formats of the Twilio API.
 */
#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t
read_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

int64_t
now_us(void)
{
	return read_clock(CLOCK_REALTIME);
}

int64_t
monotonic_us(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

/* Writes "Sun, 22 Nov 2026 07:14:18 +0000", or with GMT as the zone, the HTTP form. */
void
format_rfc2822(int64_t seconds, const char *zone, char out[40])
{
	static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
									   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t			  when = seconds;
	struct tm		  tm;

	gmtime_r(&when, &tm);
	snprintf(out, 40, "%s, %02d %s %04d %02d:%02d:%02d %s", days[tm.tm_wday], tm.tm_mday,
			 months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec, zone);
}

/*
 * Reads YYYY-MM-DD or YYYY-MM-DDThh:mm:ssZ (UTC).  The date stands for the
 * seconds from *from_s up to, but not including, *until_s.  Returns false if
 * it is invalid.
 */
bool
parse_date(text date, int64_t *from_s, int64_t *until_s)
{
	char	  copy[32];
	struct tm tm = {0};
	char	 *rest;

	if (date.len == 0 || date.len >= sizeof(copy))
		return false;
	memcpy(copy, date.data, date.len);
	copy[date.len] = '\0';
	rest = strptime(copy, "%Y-%m-%d", &tm);
	if (rest == NULL)
		return false;
	if (*rest == '\0')
	{
		*from_s = timegm(&tm);
		*until_s = *from_s + 86400;
		return true;
	}
	rest = strptime(rest + 1, "%H:%M:%S", &tm);
	if (rest == NULL || (strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0 && *rest != '\0'))
		return false;
	*from_s = timegm(&tm);
	*until_s = *from_s + 1;
	return true;
}
