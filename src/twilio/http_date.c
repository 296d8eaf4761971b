/*-------------------------------------------------------------------------
 *
 * http_date.c
 *	  Dates as HTTP and Twilio write them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "curl/curl.h"
#include "twilio/http_date.h"

/* The end of the year 9999.  Later times might not fit into a timestamp. */
#define MAX_TIME INT64CONST(253402300799)

pg_time_t
http_parse_date(const char *date)
{
	pg_time_t time = curl_getdate(date, NULL);

	return time > 0 && time <= MAX_TIME ? time : 0;
}
