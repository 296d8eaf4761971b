/*-------------------------------------------------------------------------
 *
 * long_lists.h
 *	  Which runs begin in a process of their own, because their list is long.
 *
 * None of these functions throws, unless that is stated or memory is short.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LONG_LISTS_H
#define SENDCAMPAIGN_LONG_LISTS_H

/* What a list worker is passed, in bgw_extra. */
typedef struct ListWorkerStart
{
	Oid	  database;
	Oid	  role;
	int64 run_id;
	int64 version;		 /* xmin of its row then */
	bool  has_query;	 /* true if a query selects its recipients */
	bool  beside_others; /* true if other runs are being sent, which must not become slow */
} ListWorkerStart;

/* A run in the queue. */
typedef struct QueuedVersion
{
	int64 run_id;
	int64 version;	 /* xmin of its row */
	bool  has_query; /* true if a query selects its recipients */
} QueuedVersion;

/*
 * Returns how many recipients the run may have if this process begins it; see
 * store_recipients().  If it has more, leave_to_list_worker() is to be called
 * instead.
 */
extern int64 most_recipients_here(QueuedVersion run);

/*
 * Tells whether there may be a list worker for a run whose recipients a query
 * selects, which nobody else runs.  The same run gets one every three seconds at most.
 */
extern bool list_worker_is_free(QueuedVersion run);

/*
 * Makes a list worker begin the run, when its turn comes; until it has ended,
 * the run is not to be taken from the queue.  Nothing bad happens if the
 * open transaction is rolled back.
 */
extern void leave_to_list_worker(QueuedVersion run);

/*
 * Ends the list worker if it runs the query of a run that has been changed
 * since, as by somebody who cancels it.  In a transaction with SPI connected;
 * throws.
 */
extern void end_changed_query(void);

/* Return the ids of these runs as a bigint[], palloc'd, and their number. */
extern Datum ids_with_long_lists(void);
extern int	 num_long_lists(void);

/*
 * Starts the next list worker if there is none; to be called between
 * transactions.  Our latch is set when one ends.
 */
extern void store_long_lists(void);

#endif /* SENDCAMPAIGN_LONG_LISTS_H */
