/*-------------------------------------------------------------------------
 *
 * summary.h
 *	  What a person should know about a run, in words.
 *
 * These functions need a transaction with SPI connected, and may throw.
 * Results are palloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SUMMARY_H
#define SENDCAMPAIGN_SUMMARY_H

#include "database/run_table.h"
#include "lib/stringinfo.h"

/*
 * Describes a run that has ended: what has failed or is in doubt, and why.
 * Returns NULL if there is nothing to say.  "uncounted" is true if sentCount
 * may not have been increased for some.
 */
extern char *run_summary(int64 id, const RunCounts *counts, bool uncounted);

/*
 * Appends why messages got this status, for those since that time: ": 21211
 * invalid 'To' number (2), 21614 ...".
 */
extern void append_reasons(StringInfo buf, int64 id, const char *status, TimestampTz since);

/* Appends the same for all messages of the run that were sent, but not delivered. */
extern void append_undelivered_reasons(StringInfo buf, int64 id);

#endif /* SENDCAMPAIGN_SUMMARY_H */
