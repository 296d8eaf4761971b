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
 * All in a transaction with SPI connected; all throw.  Strings that are
 * returned are palloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_TABLE_H
#define SENDCAMPAIGN_RUN_TABLE_H

#include "database/home.h"
#include "datatype/timestamp.h"

/* What the table says of a run's recipients, and of its state. */
typedef struct RunCounts
{
	int64 total;
	int64 sent;
	int64 failed;
	int64 skipped;
	int64 in_doubt;
	char *state;
	char *error; /* or NULL */
} RunCounts;

/* Recipients whose outcome is known, or known to be in doubt. */
static inline int64
run_num_known(const RunCounts *counts)
{
	return counts->sent + counts->failed + counts->skipped + counts->in_doubt;
}

/* A run that is to be queued. */
typedef struct NewRun
{
	int64		campaign_id;
	int64		job_id;
	Oid			role;
	const char *schema;
	const char *test_phone; /* of send_test() */
} NewRun;

/* False where the job, or the campaign, has a run that keeps it from being. */
extern bool runs_insert(const NewRun *run);

/* For send_test(): a run that no job stands for; returns the number given in place of one. */
extern int64 runs_insert_test(const NewRun *run);

/*
 * A failed run is the role's now, and queued; false where the campaign has
 * another one.  A test goes on beside the campaign's own run.
 */
extern bool runs_requeue(int64 id, Oid role, bool *is_test);

/* The run has begun, or has been read anew, with this to be sent. */
typedef struct RunBeginning
{
	int64		list_id;
	const char *message;
	const char *base_url; /* or NULL */
	int64		total;	  /* kept where there is one */
	Oid			list_users;
} RunBeginning;

extern void runs_begin(int64 id, const RunBeginning *beginning);

/* Counts and state of a run, whose row is locked; false where it is gone. */
extern bool runs_lock_counts(int64 id, RunCounts *counts);

/* Adds outcomes to the counts, and returns what they are then. */
extern RunCounts runs_add_outcomes(int64 id, const RunCounts *more);

/* One that was in doubt was sent, or has failed. */
extern void runs_settle(int64 id, bool sent);

/* For a run whose recipients have changed in a way that may make them overlap. */
extern void runs_expect_overlaps(int64 id);
extern void runs_set_list_users(int64 id, Oid list_users);

/* What was sent under lost commits is known now. */
extern void runs_set_read_back(int64 id);

/* No worker needs it until then; false where it is gone.  And: it is awake. */
extern bool runs_sleep(int64 id, TimestampTz next_at, RunCounts *counts);
extern void runs_wake(int64 id);

/* What the run waits for, or NULL; false where that is not known to be written. */
extern bool runs_set_notice(int64 id, const char *notice);

/*
 * It is completed, failed or cancelled now; error may be NULL.  Returns what is
 * announced of it, or NULL where it is gone.
 */
extern char *runs_end(int64 id, const char *state, const char *error);

/* What a person should know of a completed run; false where it is no such run. */
extern bool runs_set_summary(int64 id, const char *error);

/*
 * It pauses itself, and goes on from paused_from, or NULL; false where it
 * neither waits nor runs.
 */
extern bool runs_pause_itself(int64 id, const char *reason, const char *paused_from,
							  RunCounts *counts);

/* A person does so, whose name is in the error. */
extern void runs_pause(int64 id);
extern void runs_cancel(int64 id, bool begun);

/* It goes on as it was before a person had paused it; false where none had. */
extern bool runs_resume(int64 id);

/* It goes on with what is in the tables, from wherever that has come. */
extern void runs_resume_anew(int64 id);

/* Likewise, here from now on; returns its role. */
extern Oid runs_bring_home(int64 id);

/* A completed run goes on with so many that had failed. */
extern void runs_reopen(int64 id, int64 count);

/* Skips the recipients of some batches of a cancelled run; false where there are none. */
extern bool runs_skip_batches(int64 id, int batches);

/* The role has a new name.  Of runs that have ended, only those in ids (bigint[]) get it. */
extern void runs_rename_role(Oid role, const char *name, Datum ids);

/* The same of a run that has not ended. */
extern char *runs_announcement(int64 id);

/*
 * For runs that no worker can work for; those that somebody has locked are
 * left.  Unfinished ones fail, cancelled ones come to their end; a list of what
 * is to be announced of them (char *).
 */
extern struct List *runs_fail_of_role(Oid role, const char *reason);
extern struct List *runs_wind_up_of_role(Oid role, const char *reason);
extern struct List *runs_wind_up(int64 id, const char *reason);

/* Deletes runs of the caller that ended before, with all that is known of them; returns how many. */
extern int64 runs_forget(TimestampTz before);

/* Numbers (text[]) that tests of the caller's went to. */
extern void runs_forget_test_phones(Datum phones);

/*
 * As SQL, of a row of sendcampaign.run_data: is it a run of the caller ($1, a
 * superuser if $2), in this cluster ($4) and database ($5)?
 */
#define IS_FOR_CALLER  " ($2 OR pg_has_role($1, (" ROLE_HERE("$4", "$5") "), 'MEMBER')) "
#define RUNS_OF_CALLER "(SELECT * FROM sendcampaign.run_data WHERE" IS_FOR_CALLER ") r"

/*
 * Of runs: is there something to do now?  Not for those whose recipients are
 * all in their quiet hours.
 */
#define IS_WAITING                                                                                 \
	" AND finished_at IS NULL AND state <> 'paused'"                                               \
	" AND (next_at IS NULL OR next_at <= clock_timestamp() OR state = 'cancelled')"

#endif /* SENDCAMPAIGN_RUN_TABLE_H */
