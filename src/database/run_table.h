/*-------------------------------------------------------------------------
 *
 * run_table.h
 *	  The extension's table of runs, and all SQL that writes it.
 *
 * A run's state is changed here and nowhere else:
 *
 *	queued ──> running ──> completed ──> running	runs_reopen()
 *	   │          │
 *	   │          ├──> failed ──> queued			runs_requeue()
 *	   └──────────┼──> paused ──> as it was			runs_resume()
 *	              └──> cancelled
 *
 * All functions need a transaction and a connection to SPI, and all may throw.
 * Strings that they return are palloc'd in the current memory context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_TABLE_H
#define SENDCAMPAIGN_RUN_TABLE_H

#include "database/home.h"
#include "datatype/timestamp.h"

/* What the table says of a run's recipients and its state. */
typedef struct RunCounts
{
	int64 total;
	int64 sent;
	int64 failed;
	int64 skipped;
	int64 in_doubt;
	char *state;
	char *error;	   /* or NULL */
	int64 delivered;   /* of those sent, like the two below */
	int64 undelivered; /* undelivered, failed, canceled */
	int64 unconfirmed; /* nothing final is known, and no longer asked for */
} RunCounts;

/* Returns the number of recipients with an outcome, in_doubt included. */
static inline int64
run_num_known(const RunCounts *counts)
{
	return counts->sent + counts->failed + counts->skipped + counts->in_doubt;
}

/* A run to be queued. */
typedef struct NewRun
{
	int64		campaign_id;
	int64		job_id;
	Oid			role;
	const char *schema;
	Oid			list_users; /* the table that the role has chosen by the call */
	const char *test_phone; /* of send_test(); else NULL */
	const char *recipients; /* the query that selects them; or NULL */
	int64		query_list; /* the list whose users it selects; 0: the campaign's */
	const char *given;		/* the query that the caller has passed; or NULL */
} NewRun;

/*
 * Queues a run.  Returns false if the job has a run already, or the campaign
 * one that prevents it.
 */
extern bool runs_insert(const NewRun *run);

/*
 * Queues a run of send_test(), which has no job; returns the number that it
 * has in place of the job's id.
 */
extern int64 runs_insert_test(const NewRun *run);

/*
 * Queues a failed run again, which belongs to this role from now on, and uses
 * this table of list users; and this query, if there is one and the run has not
 * begun.  Returns false if the campaign has another active run; tests may run
 * beside that.
 */
extern bool runs_requeue(int64 id, const NewRun *run, bool *is_test);

/* The query that selects a run's recipients, palloc'd, and how it has failed; or NULL. */
typedef struct RunQuery
{
	char *sql;
	char *error;
} RunQuery;

extern RunQuery runs_read_query(int64 id);

/*
 * Throws if a query is still to select the recipients, and comes from a dump or a
 * copy: it may be anybody's.
 */
extern void runs_check_query(int64 id);

/* Records how the query has failed, if the run has not been changed since this version. */
extern void runs_set_query_error(int64 id, int64 version, const char *error);

/* Tells whether the run's row still is this version (xmin). */
extern bool runs_is_unchanged(int64 id, int64 version);

/* What is recorded when a run begins, or when its campaign is read anew. */
typedef struct RunBeginning
{
	int64		list_id;
	const char *message;
	const char *base_url; /* or NULL */
	char	  **media_urls;
	int			num_media;
	const char *content_sid;  /* or NULL */
	const char *country_code; /* or NULL; ignored, like the total */
	int64		total;		  /* ignored if the run has a total already */
	Oid			list_users;
	int64		version; /* xmin that the row must still have; or 0, if it is locked */
} RunBeginning;

/*
 * Sets the run's state to "running", and records the above.  Returns false if
 * somebody has changed the run since.
 */
extern bool runs_begin(int64 id, const RunBeginning *beginning);

/* Locks the run's row, and reads its counts and state.  Returns false if the run is gone. */
extern bool runs_lock_counts(int64 id, RunCounts *counts);

/* Does the same without locking it. */
extern bool runs_read_counts(int64 id, RunCounts *counts);

/* Outcomes of a run's messages. */
typedef struct RunOutcomes
{
	int64	  run_id;
	RunCounts more;			/* only the outcomes of sending */
	bool	  is_last;		/* true if all of its recipients have an outcome now */
	RunCounts counts;		/* set by the function below, as of then */
	bool	  completed;	/* set to true if it has completed by that */
	char	 *announcement; /* set to what is to be announced then, palloc'd; or NULL */
} RunOutcomes;

/*
 * Adds outcomes to the counts of runs.  If messages were sent, and
 * sendcampaign.receipts is on, they are swept soon.  Runs with the last of their
 * outcomes complete at once if there is nothing to be said about them: nothing
 * has failed or is in doubt, and not all were skipped.
 */
extern void runs_add_outcomes(RunOutcomes *outcomes, int count);

/* A small run that begins with all of its recipients claimed. */
typedef struct SmallBeginning
{
	int64		run_id;
	int64		list_id;
	const char *message;
	const char *base_url;	  /* or NULL */
	const char *content_sid;  /* or NULL */
	const char *country_code; /* or NULL */
	int64		total;
	int64		skipped;
	const char *account;
	int64		group_id;
	char	  **senders;
	int			num_senders;
	bool		links_signed;
} SmallBeginning;

/* Sets the state of these runs to "running", and records the above. */
extern void runs_begin_small(const SmallBeginning *beginnings, int count, Oid list_users);

/* What became of messages: how many more of each kind. */
typedef struct ReceiptCounts
{
	int64 run_id;
	int64 delivered;
	int64 undelivered;
	int64 unconfirmed; /* nothing final is known, and no longer asked for */
} ReceiptCounts;

/*
 * Adds these to the counts of a run that has ended, with what is still to be
 * added from before.  For one that is under way, or whose row is locked, they
 * are noted, and added later.  Returns what is to be announced, if it is now
 * known of each message what became of it; otherwise NULL.
 */
extern char *runs_add_receipts(const ReceiptCounts *more);

/*
 * Adds what is noted for the run.  Waits for its row if there is something.
 * Returns the same.
 */
extern char *runs_add_noted_receipts(int64 id);

/*
 * SQL expression on a row of sendcampaign.run_data: one of these counts, with
 * what is noted.
 */
#define WITH_NOTED(column)                                                                         \
	"(" column " + coalesce((SELECT sum(noted." column ")::int8"                                   \
	" FROM sendcampaign.receipt_count noted WHERE noted.run_id = run_data.id), 0))"

/* What has come of a sweep. */
typedef enum SweepResult
{
	SWEEP_READ,
	SWEEP_FAILED,  /* Twilio could not be reached, or has not answered */
	SWEEP_NOT_READ /* it was not asked */
} SweepResult;

/*
 * For runs whose sweep is over, which began at that time: determine when the
 * next one is due, if any.  Those that somebody has locked are left alone;
 * returns the others, and those that are gone, as a list of ids (int64 *),
 * palloc'd.
 */
extern struct List *runs_plan_sweep(Datum ids, TimestampTz began_at, SweepResult result);

/* Cancels the role's sweeps that are due, except those of runs that somebody has locked. */
extern void runs_cancel_sweeps(Oid role);

/* Counts a message that was in doubt as sent, or as failed. */
extern void runs_settle(int64 id, bool sent);

/*
 * Notes that a recipient may be in several batches or claims of the run, since
 * rows of it were loaded, or commits were lost.
 */
extern void runs_expect_overlaps(int64 id);

/* Records the OID of the table of list users that the run uses. */
extern void runs_set_list_users(int64 id, Oid list_users);

/*
 * Tells whether a run of the role has used that table of list users when this
 * was its owner: then the role has chosen to use this owner's tables.
 */
extern bool runs_chose_owner(Oid role, Oid list_users, Oid owner);

/*
 * Records with which account, of which group, the run's next messages are sent,
 * and adds that group's senders to those that the run has had.  The run's links
 * are signed if those of all its messages are.
 */
extern void runs_set_group(int64 id, const char *account, int64 group_id, char **senders,
						   int num_senders, bool links_signed);

/* Tells whether all links that the run has sent are signed, as far as there are some. */
extern bool runs_links_are_signed(int64 id);

/* Notes that what was sent before commits were lost has been read back. */
extern void runs_set_read_back(int64 id);

/* Notes that the run needs no worker until next_at; returns false if it is gone. */
extern bool runs_sleep(int64 id, TimestampTz next_at, RunCounts *counts);

/* Ends that sleep, so that a worker may work on the run at once. */
extern void runs_wake(int64 id);

/*
 * Sets (or with NULL, clears) what the run is waiting for, in its error.
 * Returns false if somebody has locked the row, or the run is neither queued
 * nor running.
 */
extern bool runs_set_notice(int64 id, const char *notice);

/*
 * Ends the run: state is completed, failed or cancelled, and error may be
 * NULL.  Returns what is to be announced, or NULL if the run is gone.
 */
extern char *runs_end(int64 id, const char *state, const char *error);

/*
 * Sets what a person should know about a completed run; returns false if the
 * run is not completed.
 */
extern bool runs_set_summary(int64 id, const char *error);

/*
 * Pauses the run for a reason other than a person's call.  paused_from is the
 * state to which runs_resume() returns it, or NULL if runs_resume() must not.
 * Returns false if the run is neither queued nor running.
 */
extern bool runs_pause_itself(int64 id, const char *reason, const char *paused_from,
							  RunCounts *counts);

/*
 * Pause and cancel the run for the current role, whose name is put into its
 * error.  If the run has not begun, its total is set to 0.
 */
extern void runs_pause(int64 id);
extern void runs_cancel(int64 id, bool begun);

/* Returns a paused run to its previous state; returns false if that is not recorded. */
extern bool runs_resume(int64 id);

/* Makes the run go on with the contents of the tables, wherever they come from. */
extern void runs_resume_anew(int64 id);

/* Has what Twilio has accepted read back before anything is sent. */
extern void runs_read_back_first(int64 id);

/*
 * Makes the run go on as runs_resume_anew() does, and makes this database the
 * run's home; returns its role.
 */
extern Oid runs_bring_home(int64 id);

/*
 * Reopens a completed run, so that so many messages that failed, and so many
 * that were sent but not delivered, are sent again.
 */
extern void runs_reopen(int64 id, int64 failed, int64 undelivered);

/*
 * Skips the recipients of some batches of a cancelled run; returns false if
 * there are none left.
 */
extern bool runs_skip_batches(int64 id, int batches);

/*
 * Records the role's new name.  Of its runs that have ended, only those in ids
 * (bigint[]) are changed.  Returns false if some are left, as somebody has locked
 * them.
 */
extern bool runs_rename_role(Oid role, const char *name, Datum ids);

/* Returns what is to be announced of a run that has not ended, or NULL if it is gone. */
extern char *runs_announcement(int64 id);

/*
 * Locks the role's cancelled runs that have not ended, but none that somebody else
 * has locked; returns their ids, bigint[].
 */
extern Datum runs_lock_cancelled(Oid role);

/*
 * For runs that no worker can work on: fail the role's unfinished ones, except
 * those that somebody has locked; or bring cancelled ones (bigint[]), which the
 * caller has locked and no worker has, to their end.  Return a list (char *) of what
 * is to be announced.
 */
extern struct List *runs_fail_of_role(Oid role, const char *reason);
extern struct List *runs_wind_up(Datum ids, const char *reason);

/*
 * Deletes those of the caller's runs that ended before this time, with
 * everything that is recorded about them; returns their number.
 */
extern int64 runs_forget(TimestampTz before);

/* Removes these phone numbers (text[]) from the caller's finished tests. */
extern void runs_forget_test_phones(Datum phones);

/*
 * SQL condition on a row of sendcampaign.run_data: the caller ($1) is a
 * superuser ($2), or a member of the run's role in this cluster ($4) and
 * database ($5).
 */
#define IS_FOR_CALLER  " ($2 OR pg_has_role($1, (" ROLE_HERE("$4", "$5") "), 'MEMBER')) "
#define RUNS_OF_CALLER "(SELECT * FROM sendcampaign.run_data WHERE" IS_FOR_CALLER ") r"

/*
 * SQL condition on runs: there is something to do now.  False for runs whose
 * recipients all have quiet hours.
 */
#define IS_WAITING                                                                                 \
	" AND finished_at IS NULL AND state <> 'paused'"                                               \
	" AND (next_at IS NULL OR next_at <= clock_timestamp() OR state = 'cancelled')"

/* SQL condition on runs: Twilio is to be asked now what became of their messages. */
#define SWEEP_IS_DUE " AND sweep_at <= now()"

#endif /* SENDCAMPAIGN_RUN_TABLE_H */
