/*-------------------------------------------------------------------------
 *
 * sweep_queue.h
 *	  Which runs are to be swept: what became of their messages is asked.
 *
 * All functions need a transaction and a connection to SPI, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SWEEP_QUEUE_H
#define SENDCAMPAIGN_SWEEP_QUEUE_H

#include "datatype/timestamp.h"

/* The most runs of one group that are swept at once. */
#define MAX_DUE_RUNS 1000

/* A run that is due. */
typedef struct DueRun
{
	int64		id;
	int64		sent;
	int64		open; /* messages among those of which nothing final is known */
	TimestampTz began_at;
	TimestampTz since;	 /* messages before this are not asked for now */
	bool		is_last; /* true if what is open afterwards stays unknown */
	bool		is_over; /* true if that is so even if Twilio cannot be asked */
} DueRun;

/* Runs of one group that are due.  Palloc'd. */
typedef struct DueGroup
{
	char	   *schema;
	char	   *account; /* SID of the account to which they were sent; or NULL */
	int64		group_id;
	int64		campaign_id; /* of the newest of the runs, like its list */
	int64		list_id;
	Oid			list_users; /* table with which that run began; 0: not known */
	char	  **senders;	/* that the group had when the runs sent */
	int			num_senders;
	TimestampTz now;
	TimestampTz replies_since; /* replies from before this have been read, or are not wanted */
	int			num_runs;
	DueRun	   *runs;
} DueGroup;

/*
 * Returns the group with the run of this role that has been due for longest,
 * or NULL, leaving out these runs (bigint[]), these accounts (text[]), and runs
 * that somebody has locked.  Locks the runs to the end of the transaction.
 */
extern DueGroup *next_due_group(Oid role, Datum runs, Datum accounts);

/* Tells whether the role has a run that is due, and that nobody has locked. */
extern bool sweeps_are_due(Oid role);

/* Plans the next sweeps of the role's runs that are due, since none can be made now. */
extern void put_off_sweeps(Oid role);

#endif /* SENDCAMPAIGN_SWEEP_QUEUE_H */
