/*-------------------------------------------------------------------------
 *
 * summary.h
 *	  What a person should know of a run, in words.
 *
 * In a transaction with SPI connected; all throw.  What is returned is
 * palloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SUMMARY_H
#define SENDCAMPAIGN_SUMMARY_H

#include "database/run_table.h"
#include "lib/stringinfo.h"

/*
 * Of a run that has ended: what has failed or is in doubt, and why; NULL where
 * there is nothing to be said.  With uncounted, some sentCount may be missing.
 */
extern char *run_summary(int64 id, const RunCounts *counts, bool uncounted);

/*
 * Appends why messages that got this status since then did: ": 21211 invalid
 * 'To' number (2), 21614 ...".
 */
extern void append_reasons(StringInfo buf, int64 id, const char *status, TimestampTz since);

#endif /* SENDCAMPAIGN_SUMMARY_H */
