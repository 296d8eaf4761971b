/*-------------------------------------------------------------------------
 *
 * run.h
 *	  What a worker holds in memory: accounts, runs, claims, messages.
 *
 *	  Account  1 ── n  Run  1 ── n  Claim  1 ── n  Message
 *
 * A message is in memory from its claim until its outcome is durable, so
 * the memory is bounded by what is claimed, and not by the length of a list.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RUN_H
#define SENDCAMPAIGN_RUN_H

#include "campaign/campaign.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "lib/stringinfo.h"
#include "pgtime.h"
#include "utils/timestamp.h"
#include "worker/account.h"
#include "worker/backoff.h"
#include "worker/sender.h"

/* The messages of a run that one sender is to send. */
typedef struct SendQueue
{
	dlist_node node; /* in run->queues */
	Sender	  *sender;
	dlist_head ready; /* Message, to be sent */
	int		   num_ready;
} SendQueue;

typedef struct Run
{
	dlist_node		 node; /* in worker's runs */
	MemoryContext	 context;
	int64			 id;
	int64			 job_id; /* unique in its schema only */
	char			*schema;
	Oid				 list_users;	/* the table as of the start, where that is known */
	Campaign		 campaign;		/* its group as of the newest claim */
	MemoryContext	 group_context; /* of the group */
	bool			 group_is_new;	/* read in this transaction */
	Account			*account;		/* likewise */
	int				 last_batch;	/* number of the newest batch taken whole */
	int				 last_claim;	/* number of the newest claim */
	bool			 exhausted;		/* there are no more batches */
	TimestampTz		 next_at;		/* all batches left have to wait until then; or 0 */
	bool			 asleep;		/* that is in the tables, and no worker needed */
	TimestampTz		 queued_at;
	TimestampTz		 started_at;
	bool			 commits_lost;	/* commits may have been lost since it was written */
	struct ReadBack *read_back;		/* under way, see read_back.c; else NULL */
	bool			 was_read_back; /* messages of it may be in read_back_message */
	bool			 may_overlap;	/* recipients may be in several batches and claims */
	bool			 tentative;		/* adopted in the transaction now open */
	bool			 finished;		/* its end is in the tables */
	bool			 paused;		/* so it is in the tables, as are the two below */
	bool			 cancelled;		/* what is left is to be skipped */
	bool			 forgotten;		/* its row is gone */
	bool			 taken_up;		/* what its adoption reads is in memory */
	bool			 superseded;	/* what is in the tables counts: it is to be adopted anew */
	bool			 halted;		/* too many have failed: it is to be paused */
	int				 num_verdicts;	/* outcomes by Twilio, see failure_limit.c */
	int				 num_failures;	/* of them for recipient or text */
	TimestampTz		 verdicts_since;
	dlist_head		 claims; /* Claim, not all of whose outcomes are durable */
	dlist_head		 queues; /* SendQueue, with messages to be sent */
	int				 num_ready;
	dlist_head		 lookups;	  /* Message, to be looked up */
	bool			 lookup_turn; /* they take turns with ready ones */
	int				 num_agenda;  /* messages in the agenda or lookups */
	dlist_head		 done;		  /* Message, with an outcome to be recorded */
	int				 num_done;
	dlist_head		 recorded;		 /* Message, recorded but not yet committed */
	dlist_head		 recorded_skips; /* likewise, with their claims */
	int				 open;			 /* messages in memory */
	int				 in_flight;		 /* of them with HTTP */
	int				 num_doubtful;	 /* of them in doubt; and its read_back, likewise */
	int64			 doubt_until;	 /* their last gone_at */
	bool			 locks_told;	 /* the log has that list users are locked */
	bool			 not_answered;	 /* look-ups are refused: doubt stays claimed */
	int				 text_failures;	 /* refused for their text, with none sent yet */
	bool			 any_sent;
	bool			 uncounted; /* some rows have not taken their sentCount */

	Backoff		claiming;
	Backoff		recording;
	Backoff		reporting;		 /* of the job's progress */
	char	   *stop_reason;	 /* the run fails with this, or NULL */
	bool		stop_recorded;	 /* that is in the tables */
	bool		stop_durable;	 /* and committed */
	bool		unrecordable;	 /* its outcomes, for an error that will not pass */
	char	   *announcement;	 /* to be notified once this is committed, or NULL */
	int			num_long_locked; /* messages whose list users are */
	char	   *trouble;		 /* the error for which it has been waiting, or NULL */
	char	   *notice;			 /* what sendcampaign.run.error shows meanwhile, or NULL */
	char	   *job_notice;		 /* what the job's does */
	bool		notice_written;	 /* in the transaction now open */
	bool		notice_lost;	 /* that was undone: it is to be written again */
	bool		job_notice_lost; /* likewise */
	TimestampTz tell_job_at;	 /* it could not be told, and may be tried again then */
} Run;

/* Recipients of one batch, whose ids are in sendcampaign.claim. */
typedef struct Claim
{
	dlist_node		node;	 /* in run->claims */
	MemoryContext	context; /* this struct, its messages and their strings */
	Run			   *run;
	int				number;
	int				batch;	   /* that it was taken from */
	int				open;	   /* messages whose outcome is not durable */
	bool			tentative; /* made in the transaction now open */
	bool			stored;	   /* and in the tables, there */
	bool			recovered; /* left by an earlier worker */
	char		   *account_sid;
	TimestampTz		claimed_at;
	pg_time_t		twilio_time; /* by Twilio's clock, 0: not known then */
	int				num_messages;
	struct Message *messages;
} Claim;

typedef enum MessageState
{
	MESSAGE_READY,		  /* in its queue */
	MESSAGE_SENDING,	  /* with libcurl */
	MESSAGE_WAITING,	  /* in the agenda, to be sent again */
	MESSAGE_IN_DOUBT,	  /* in the agenda, to be looked up */
	MESSAGE_LOOKUP_READY, /* in run->lookups, its look-up is to be started */
	MESSAGE_LOOKING_UP,	  /* its look-up is with libcurl */
	MESSAGE_LOCKED,		  /* in the agenda, its outcome to be recorded then */
	MESSAGE_DONE,		  /* in run->done */
	MESSAGE_RECORDED	  /* durable; waits for others of its claim */
} MessageState;

typedef enum Outcome
{
	OUTCOME_NONE,
	OUTCOME_SENT,
	OUTCOME_FAILED,
	OUTCOME_SKIPPED,
	OUTCOME_IN_DOUBT,
	OUTCOME_FOUND,	 /* by a look-up; candidates not yet checked */
	OUTCOME_RELEASED /* not sent: back into a batch */
} Outcome;

/* What libcurl's answers belong to. */
typedef enum CallKind
{
	CALL_MESSAGE,
	CALL_READ_BACK,
	CALL_CONTROL
} CallKind;

typedef struct Message
{
	CallKind		 kind; /* CALL_MESSAGE; first, as the tag of a request */
	MessageState	 state;
	dlist_node		 node; /* in queue->ready, run->lookups, ->done or ->recorded */
	pairingheap_node agenda_node;
	TimestampTz		 due; /* when the agenda has it */
	Claim			*claim;
	SendQueue		*queue;	  /* of its sender; NULL where it is skipped */
	Account			*account; /* of the request under way */
	int64			 list_user_id;
	char			*phone;		   /* E.164; or as it was, when skipped for it */
	char			*text;		   /* UTF-8 */
	char			*link;		   /* the tracking link in it, or NULL */
	TimestampTz		 until;		   /* it is to leave before; 0: whenever */
	TimestampTz		 locked_since; /* its list user, when it was to be recorded; or 0 */
	bool			 long_locked;  /* for so long that people are told */
	int				 attempts;
	int64			 left_at;  /* the newest request, monotonic us */
	bool			 doubtful; /* Twilio may have taken it */
	bool			 suspect;  /* ... before commits were lost; nothing was sent since */
	int64			 gone_at;  /* then its request has arrived, or never will; likewise */
	struct Lookup	*lookup;   /* see lookup.c */
	/* the outcome */
	Outcome outcome;
	char   *sid;
	int		error_code;
	char   *error_message;
	int		segments;
} Message;

/* All of one worker. */
typedef struct Worker
{
	Oid			 role;
	char		*role_name;
	dlist_head	 runs;
	int			 num_runs;
	pairingheap *agenda; /* Message, by due */
	int			 in_flight;
	int			 num_doubtful;		/* of all runs */
	bool		 has_ticked;		/* what is done once is done */
	bool		 foreign_runs_left; /* and what is not all done at once, is not */
	void (*serve_network)(void);	/* see below */
	bool	  leaving;				/* send nothing more, record and go */
	pg_time_t twilio_offset;		/* Twilio's clock minus ours, s */
	bool	  twilio_offset_known;
} Worker;

extern Worker worker;

/*
 * Takes answers, and sends what is claimed already, in the middle of work in
 * the database that takes long: a run of a million recipients that begins
 * must not hold the others up, nor have their answers come too late.  Nothing
 * where there is no worker, as in a caller's process.
 */
static inline void
serve_network(void)
{
	if (worker.serve_network)
		worker.serve_network();
}

/*
 * Takes over what a group says, which is in memory of its own: the run's from
 * then on.
 */
extern void run_use_group(Run *run, GroupConfig *group, MemoryContext context);

/* The run's queue for a sender of that name, made if it is new. */
extern SendQueue *run_queue(Run *run, const char *account_sid, const char *sender);

/* Messages that wait for a sender who pauses. */
extern int run_num_blocked(Run *run, TimestampTz now);

/* The number of the run's that are in doubt has changed by so many. */
extern void run_count_doubt(Run *run, int change);

/* May more of its messages leave?  If not, those that have not are given back. */
static inline bool
run_may_send(const Run *run)
{
	return run->stop_reason == NULL && !run->paused && !run->cancelled && !run->halted;
}

/* Nothing of it was sent before, by our clock. */
static inline TimestampTz
run_began_at(const Run *run)
{
	return run->started_at ? run->started_at : run->queued_at;
}

static inline pg_time_t
run_start(const Run *run)
{
	return timestamptz_to_time_t(run_began_at(run));
}

/* The ids of the worker's runs, a bigint[]. */
extern Datum ids_of_runs(void);

/* The run has been waiting for some time, for an error that may pass. */
extern void run_set_trouble(Run *run, const char *reason);

/* A copy of the value in place of what was there; both may be NULL. */
extern void replace_string(MemoryContext context, char **place, const char *value);

/* Has the run fail with this reason; the first one counts. */
extern void run_stop(Run *run, const char *reason);

#endif /* SENDCAMPAIGN_RUN_H */
