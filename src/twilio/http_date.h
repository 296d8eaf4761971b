/*-------------------------------------------------------------------------
 *
 * http_date.h
 *	  Dates as HTTP and Twilio write them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_HTTP_DATE_H
#define SENDCAMPAIGN_HTTP_DATE_H

#include "pgtime.h"

/* Returns the time, or 0 if it is not a date of the years 1970 to 9999. */
extern pg_time_t http_parse_date(const char *date);

#endif /* SENDCAMPAIGN_HTTP_DATE_H */
