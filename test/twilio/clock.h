/*
 * clock.h
 *		The clocks, and the date formats of the Twilio API.
 */
#ifndef TWILIO_CLOCK_H
#define TWILIO_CLOCK_H

#include "text.h"

#define US_PER_S INT64_C(1000000)

extern int64_t now_us(void); /* since 1970 */
extern int64_t monotonic_us(void);

/* See clock.c for the formats.  parse_date() returns false if the date is invalid. */
extern void format_rfc2822(int64_t seconds, const char *zone, char out[40]);
extern bool parse_date(text date, int64_t *from_s, int64_t *until_s);

#endif
