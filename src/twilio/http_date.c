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

pg_time_t
http_parse_date(const char *date)
{
	return Max(0, curl_getdate(date, NULL));
}
