/*-------------------------------------------------------------------------
 *
 * chart.h
 *	  Drawings of a report, in SVG.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CHART_H
#define SENDCAMPAIGN_CHART_H

#include "lib/stringinfo.h"
#include "report/figures.h"

/* Adds a bar beside a number that says the same; class is "", "bad" or "warm". */
extern void add_bar(StringInfo page, int64 part, int64 whole, const char *class);

/* Adds what had been sent and delivered by each time: lines are those of the part "time". */
extern void add_time_chart(StringInfo page, const Figure *lines, int num_lines,
						   const Period *period);

/* Adds columns for the hours of the day. */
extern void add_hours_chart(StringInfo page, const Figures *hours);

/* Returns part / whole, 0 if there is nothing. */
extern double share_of(int64 part, int64 whole);

#endif /* SENDCAMPAIGN_CHART_H */
