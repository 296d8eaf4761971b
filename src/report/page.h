/*-------------------------------------------------------------------------
 *
 * page.h
 *	  The pages of a report, and what they have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_PAGE_H
#define SENDCAMPAIGN_PAGE_H

#include "lib/stringinfo.h"
#include "report/figures.h"

/* Begins a page up to the heading, with the title "kind number", or "kind" for -1; ends it. */
extern void begin_page(StringInfo page, const char *kind, int64 number);
extern void end_page(StringInfo page);

/*
 * Begins a table that can be scrolled if it is too wide, up to its columns, whose
 * markup follows; ends it.
 */
extern void add_table_start(StringInfo page, const char *label);
extern void add_table_end(StringInfo page); /* and its rows */

/* One of the large numbers at the top: a number, or a share of it and a word of explanation. */
extern void add_key_number(StringInfo page, const char *label, int64 number);
extern void add_key_share(StringInfo page, const char *label, int64 part, int64 whole,
						  const char *of_what);

/*
 * Adds what was sent to the run's list, beside each other, if there is more than
 * the run itself.
 */
extern void add_variants(StringInfo page, const ReportedRun *run);

/* The page of a run; phones: whether numbers and texts of recipients are shown. */
extern void write_run_page(StringInfo page, const ReportedRun *run, bool phones);

/* The overview of the latest runs. */
extern void write_overview(StringInfo page);

#endif /* SENDCAMPAIGN_PAGE_H */
