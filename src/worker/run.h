/*-------------------------------------------------------------------------
 *
 * run.h
 *	  What a worker holds in memory: accounts, runs, claims, messages.
 *
 *	  Account  1 ── n  Run  1 ── n  Claim  1 ── n  Message
 *
 * A message is in memory from its claim until its outcome is durable, so
 * memory is bounded by what is claimed, and not by the length of a list.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_H
#define SENDCAMPAIGN_RUN_H

#include "campaign/campaign.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "pgtime.h"
#include "utils/timestamp.h"
#include "worker/account.h"
#include "worker/backoff.h"
#include "worker/phase.h"
#include "worker/sender.h"

/* The messages of a run that are to be sent by one sender. */
typedef struct SendQueue
{
	dlist_node node; /* in run->queues */
	Sender	  *sender;
	dlist_head ready; /* of Message, to be sent */
	int		   num_ready;
} SendQueue;

/* Twilio's verdicts on a run's messages (see failure_limit.c). */
typedef struct Verdicts
{
	int			count;
	int			failures; /* because of the recipient or the text */
	TimestampTz since;	  /* when counting began */
} Verdicts;

/* What became of a run's messages since a person last let it continue (the same). */
typedef struct Deliveries
{
	int64 delivered;
	int64 undelivered;
} Deliveries;

/* What people see while a run has to wait (see trouble.c). */
typedef struct Notice
{
	char	   *trouble;  /* the error because of which it is waiting, or NULL */
	char	   *of_run;	  /* what sendcampaign.run.error shows meanwhile, or NULL */
	char	   *of_job;	  /* what the job's error shows meanwhile, or NULL */
	bool		written;  /* true if one of them was written in the open transaction */
	bool		lost;	  /* true if of_run must be written again after a rollback */
	bool		job_lost; /* the same for of_job */
	TimestampTz tell_at;  /* the job is not written to before this */
} Notice;

typedef struct Run
{
	dlist_node		 node; /* in worker.runs */
	RunPhase		 phase;
	RunPhase		 written; /* its phase if the open transaction commits; or RUN_NO_PHASE */
	Verdicts		 verdicts;
	Deliveries		 deliveries;
	Notice			 notice;
	MemoryContext	 context;
	int64			 id;
	int64			 job_id; /* unique only in its schema */
	char			*schema;
	Oid				 list_users;	/* the table used since the start; or 0 if not known */
	Oid				 counted_in;	/* the only table in which sentCount is incremented; 0: any */
	Campaign		 campaign;		/* with its group as of the last claim */
	MemoryContext	 group_context; /* for the group */
	bool			 group_is_new;	/* true if read in this transaction */
	bool			 group_stored;	/* true if the tables have its account */
	Account			*account;		/* of the group; NULL if none was read */
	int				 last_batch;	/* number of the batch after which the next one is looked for */
	int				 last_claim;	/* highest number of its claims */
	TimestampTz		 claimed_at;  /* when the last transaction with claims of it made them; or 0 */
	int				 num_claimed; /* how many these were */
	bool			 exhausted;	  /* true if no batches are left */
	TimestampTz		 next_at;	  /* when the next batch is due, if none is now; or 0 */
	TimestampTz		 queued_at;
	TimestampTz		 started_at;
	bool			 commits_lost;	 /* true if commits may have been lost since it was written */
	struct ReadBack *read_back;		 /* in progress (see read_back.c); or NULL */
	bool			 was_read_back;	 /* true if its messages may be in read_back_message */
	bool			 may_overlap;	 /* true if recipients may be in several batches or claims */
	bool			 tentative;		 /* true if adopted in the open transaction */
	bool			 taken_up;		 /* true if its adoption has read it into memory */
	bool			 waits_for_room; /* true if it is to leave again, see begin.h */
	bool			 has_query;		 /* true if a query selects its recipients */
	dlist_head		 claims;		 /* of Claim, with outcomes that are not durable */
	dlist_head		 queues;		 /* of SendQueue */
	int				 num_ready;		 /* messages in its queues */
	dlist_head		 lookups;		 /* of Message, to be looked up */
	bool			 lookup_turn;	 /* true if a lookup was tried first the last time */
	int				 num_agenda;	 /* messages in the agenda or in lookups */
	dlist_head		 done;			 /* of Message, with an outcome to be recorded */
	int				 num_done;
	dlist_head		 recorded;		 /* of Message, recorded but not yet committed */
	dlist_head		 recorded_skips; /* the same, of those skipped when they were claimed */
	int				 open;			 /* messages in memory */
	int				 in_flight;		 /* those with a request under way */
	int				 num_doubtful;	 /* those in doubt, plus one for a read_back */
	int64			 doubt_until;	 /* the latest gone_at of those, monotonic us */
	bool			 locks_told;	 /* true if the log says that list users are locked */
	bool			 not_answered;	 /* true if Twilio refuses lookups, so none are made */
	int				 text_failures;	 /* messages refused for their text before any was sent */
	bool			 any_sent;		 /* true if Twilio has accepted one */
	bool			 uncounted;		 /* true if sentCount could not be incremented in some rows */

	Backoff claiming;
	Backoff recording;
	Backoff reporting;		 /* writing to the job */
	char   *stop_reason;	 /* why the run fails; or NULL */
	List   *announcements;	 /* to be sent after the commit, of char * */
	int		num_long_locked; /* messages with long_locked */
} Run;

/* Recipients of one batch, as one row of sendcampaign.claim. */
typedef struct Claim
{
	dlist_node		node;	 /* in run->claims */
	MemoryContext	context; /* of this struct, its messages and their strings */
	Run			   *run;
	int				number;
	int				batch;	   /* number of the batch it was taken from */
	int				open;	   /* messages whose outcomes are not durable */
	bool			tentative; /* true if made in the open transaction */
	bool			stored;	   /* true if it is complete, and written to the tables */
	bool			recovered; /* true if left by an earlier worker */
	char		   *account;   /* its name, see account.h */
	TimestampTz		claimed_at;
	pg_time_t		twilio_time; /* claimed_at by Twilio's clock; 0 if not known */
	int				num_messages;
	struct Message *messages;
} Claim;

typedef enum MessageState
{
	MESSAGE_READY,		  /* in its sender's queue */
	MESSAGE_SENDING,	  /* its request is under way */
	MESSAGE_WAITING,	  /* in the agenda, to be sent again */
	MESSAGE_IN_DOUBT,	  /* in the agenda, to be looked up */
	MESSAGE_LOOKUP_READY, /* in run->lookups */
	MESSAGE_LOOKING_UP,	  /* a request of its lookup is under way */
	MESSAGE_LOCKED,		  /* in the agenda, to be recorded once its list user may be free */
	MESSAGE_DONE,		  /* in run->done */
	MESSAGE_RECORDED	  /* recorded; or in no list, see message.c */
} MessageState;

typedef enum Outcome
{
	OUTCOME_NONE,
	OUTCOME_SENT,
	OUTCOME_FAILED,
	OUTCOME_SKIPPED,
	OUTCOME_IN_DOUBT,
	OUTCOME_FOUND,	 /* by a lookup; candidates are still to be checked */
	OUTCOME_RELEASED /* not sent; to be put back into a batch */
} Outcome;

/* What a request is for, which its tag begins with. */
typedef enum CallKind
{
	CALL_MESSAGE,
	CALL_READ_BACK,
	CALL_CONTROL,
	CALL_SWEEP
} CallKind;

typedef struct Message
{
	CallKind		 kind; /* CALL_MESSAGE; first, as the tag of its requests */
	MessageState	 state;
	dlist_node		 node; /* in queue->ready, run->lookups, ->done or ->recorded */
	pairingheap_node agenda_node;
	TimestampTz		 due; /* when the agenda moves it on, while it is there */
	Claim			*claim;
	SendQueue		*queue;	  /* of its sender; NULL if it is skipped */
	Account			*account; /* with which its last request was made */
	int64			 list_user_id;
	char			*phone;	  /* E.164; or as in the tables if skipped; or NULL */
	char			*text;	  /* UTF-8 */
	char			*link;	  /* the tracking link in the text; or NULL */
	bool			 content; /* true if the text is variables of a content template */
	bool			 has_media;
	TimestampTz		 until;		   /* when Twilio must have passed it on; 0: no limit */
	TimestampTz		 locked_since; /* when its list user was first found locked; or 0 */
	bool			 long_locked;  /* true if that is so long that people are told */
	int				 attempts;
	int64			 left_at;  /* when its last request began, monotonic us */
	bool			 doubtful; /* true if Twilio may have accepted it */
	bool			 suspect;  /* true if that was before commits were lost, not since */
	int64			 gone_at;  /* when its request has arrived or never will, monotonic us */
	struct Lookup	*lookup;   /* in progress (see lookup.c); or NULL */
	/* the outcome */
	Outcome outcome;
	char   *sid;
	int		error_code;
	char   *error_message;
	int		segments;
} Message;

/* The state of this worker. */
typedef struct Worker
{
	Oid			 role;
	char		*role_name;
	dlist_head	 runs; /* of Run */
	int			 num_runs;
	int			 num_stuck;			/* tried in this transaction: all of their schema wait */
	pairingheap *agenda;			/* of Message, by due */
	int			 num_doubtful;		/* total of all runs */
	bool		 has_ticked;		/* true if the last tick was committed */
	bool		 recording_waits;	/* true if it has recorded nothing, because of new runs */
	bool		 foreign_runs_left; /* true if pause_foreign_runs() may have more to do */
	void (*give_way)(void);			/* called by the function below; or NULL */
	TimestampTz early_until;		/* no early receipts are taken over before this */
	TimestampTz pass;				/* of a worker that only sweeps, see WorkerStart; or 0 */
	bool		leaving;			/* true if it sends nothing more, records, and ends */
	pg_time_t	twilio_offset;		/* Twilio's clock minus ours, in seconds */
	bool		twilio_offset_known;
} Worker;

extern Worker worker;

/*
 * To be called during work in the database that takes long.  A worker takes
 * answers, and sends what is claimed already: the start of a run with many
 * recipients must neither hold up other runs nor make their answers time out.
 * A list worker may take a rest.  Does nothing in a caller's process.
 */
static inline void
give_way(void)
{
	if (worker.give_way)
		worker.give_way();
}

/*
 * Makes the run use this configuration of its group, which is in a memory
 * context of its own: that belongs to the run from now on.
 */
extern void run_use_group(Run *run, GroupConfig *group, MemoryContext context);

/* Returns the run's queue for the sender with that name, which is created if it is new. */
extern SendQueue *run_queue(Run *run, const char *account, const char *sender);

/* Returns the number of messages that are ready, but whose sender is paused. */
extern int run_num_blocked(Run *run, TimestampTz now);

/* Notes that the number of the run's messages in doubt has changed by this much. */
extern void run_count_doubt(Run *run, int change);

/*
 * The phase of a run is changed only by the functions below.  What the worker
 * itself writes to the tables takes effect once it is committed; what it
 * learns from Twilio, or by looking at the tables, takes effect at once.
 */

/* Returns what the worker does for the run in its present phase. */
static inline const PhaseRules *
run_rules(const Run *run)
{
	return &phase_rules[run->phase];
}

/* Returns the phase that the run has if the open transaction commits. */
static inline RunPhase
run_next_phase(const Run *run)
{
	return run->written != RUN_NO_PHASE ? run->written : run->phase;
}

/* Tells whether more of its messages may be sent.  If not, unsent ones are put back. */
static inline bool
run_may_send(const Run *run)
{
	return run_rules(run)->sends;
}

static inline bool
run_is_cancelled(const Run *run)
{
	return run->phase == RUN_CANCELLED;
}

/* Sets the first phase of a run that was just read from the tables. */
extern void run_begin(Run *run, bool cancelled);

/* Makes the run fail for this reason, which is copied; the first one counts. */
extern void run_stop(Run *run, const char *reason);

/* Makes the run pause itself, since too many of its messages have failed. */
extern void run_halt(Run *run);

/* Adapts the phase to the state found in the tables; returns true if the phase changes. */
extern bool run_follow(Run *run, RunState state);

/* Notes that the open transaction has written what leads to this phase. */
extern void run_wrote(Run *run, RunPhase phase);

/* To be called after that transaction has committed, or has been aborted. */
extern void run_committed(Run *run);
extern void run_rolled_back(Run *run);

/* Returns a time, by our clock, before which none of the run's messages was sent. */
static inline TimestampTz
run_began_at(const Run *run)
{
	return run->started_at ? run->started_at : run->queued_at;
}

/* Returns the same in whole seconds. */
static inline pg_time_t
run_start(const Run *run)
{
	return timestamptz_to_time_t(run_began_at(run));
}

/* Returns the ids of the worker's runs as a bigint[], palloc'd. */
extern Datum ids_of_runs(void);

/* Notes what is to be announced once the open transaction has committed; it is copied. */
extern void run_announce(Run *run, const char *announcement);

/* Sets the temporary error that people are told, as the run waits for long; it is copied. */
extern void run_set_trouble(Run *run, const char *reason);

/* Replaces a string, which is freed, with a copy of the value; both may be NULL. */
extern void replace_string(MemoryContext context, char **place, const char *value);

#endif /* SENDCAMPAIGN_RUN_H */
