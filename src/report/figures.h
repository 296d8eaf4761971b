/*-------------------------------------------------------------------------
 *
 * figures.h
 *	  What a report says: all SQL that reads it.
 *
 * Which runs and replies there are is read with the rights of the caller; what
 * a run that the caller sees consists of is added up as the extension's owner.
 * Everything is of one snapshot, the calling statement's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FIGURES_H
#define SENDCAMPAIGN_FIGURES_H

#include "datatype/timestamp.h"

/* A run, as sendcampaign.run has it. */
typedef struct ReportedRun
{
	int64		id;
	char	   *schema;
	int64		job_id;
	int64		campaign_id;
	char	   *role;
	char	   *state;
	int64		total; /* -1: not known yet */
	int64		sent;
	int64		failed;
	int64		skipped;
	int64		in_doubt;
	int64		delivered;
	int64		undelivered;
	int64		unconfirmed;
	TimestampTz queued_at;
	TimestampTz started_at; /* 0: not yet, like the next one */
	TimestampTz finished_at;
	char	   *message; /* NULL if it has not started, like the next one */
	char	   *base_url;
	bool		is_test;

	/* events of sendcampaign.event, and replies */
	int64 opened;
	int64 completed;
	int64 replies;
	int64 opted_out; /* of these, by a stop word */
} ReportedRun;

/* A line of a part of the report: what it is about, and its counts. */
typedef struct Figure
{
	char	   *part; /* "failed", "country", ... */
	char	   *name; /* NULL: not known */
	char	   *advice;
	int64		code; /* of an error; 0 if there is none */
	TimestampTz time;
	int64		counts[4];
} Figure;

typedef struct Figures
{
	int		n;
	Figure *lines;
} Figures;

typedef struct Reply
{
	char	   *phone;
	char	   *body;
	char	   *word;
	TimestampTz received_at;
} Reply;

/* When messages were sent and delivered, in steps. */
typedef struct Period
{
	TimestampTz start; /* 0: nothing was sent */
	TimestampTz last_sent;
	TimestampTz end;  /* what was delivered later counts in the last step */
	int64		step; /* in microseconds */
	int			num_steps;
} Period;

/* Returns the run of a job in the schema of sendcampaign.schema, palloc'd; NULL if there is none. */
extern ReportedRun *read_run_of_job(int64 job_id);

/* Returns the latest runs but for tests, at most so many, newest first. */
extern ReportedRun *read_latest_runs(int most, int *count);

/* Does the same for the runs of this one's list, itself among them. */
extern ReportedRun *read_runs_of_list(int64 run_id, int most, int *count);

/* Returns the totals of all of them, and sets their number. */
extern ReportedRun *read_all_runs(int64 *count);

/* The period of a run's messages. */
extern Period read_period(int64 run_id);

/*
 * The parts of a run's report, each with its lines in order.  counts are
 *	  sent, delivered (time: of each step)
 *	  failed, undelivered, in_doubt, skipped (name, advice, code): messages
 *	  sender, country (name): sent, delivered, not delivered
 *	  cost (name: sum in this currency, advice: the currency): messages with a price, segments
 *	  segments: messages whose segments are known, segments
 */
extern Figures read_messages(int64 run_id, const Period *period);

/* By the hour of the session's time zone (code): replies, opens, completions, stop words. */
extern Figures read_hours(int64 run_id);

/* Returns the latest replies to the run, at most so many, newest first. */
extern Reply *read_replies(int64 run_id, int most, int *count);

#endif /* SENDCAMPAIGN_FIGURES_H */
