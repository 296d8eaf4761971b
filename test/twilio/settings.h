/*
 * settings.h
 *		What can be changed about the local Twilio, on the command line or
 *		while it runs.
 */
#ifndef TWILIO_SETTINGS_H
#define TWILIO_SETTINGS_H

#include "text.h"

typedef struct settings_type
{
	int64_t latency_us;
	int64_t latency_spread_us;
	double	slow_percent;
	int64_t slow_us;
	int		concurrency;   /* 0: without limit */
	int		retry_after_s; /* 0: no header */
	int64_t list_lag_us;
	int64_t clock_skew_s;
	int64_t sent_after_us; /* until date_sent is set; -1: never */
	bool	null_dates;	   /* date filters match messages not sent yet */
} settings_type;

/* guarded by the world lock */
extern settings_type settings;

extern bool settings_change(text name, text value);

#endif
