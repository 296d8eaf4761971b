/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  Starts workers for the unfinished runs of a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SCAN_H
#define SENDCAMPAIGN_SCAN_H

/*
 * Starts or wakes a worker for each role with unfinished runs in this database
 * of which the current role is a member (if "all": for every role).  Fails the
 * runs of a role that cannot work, with the reason.  In a transaction with SPI
 * connected; throws.  Returns the number of workers that were started or
 * woken.
 */
extern int start_workers_for_queue(bool all);

/*
 * For a worker that only sweeps and is about to leave: starts workers for the
 * next roles that have runs to be swept, as far as there may be more of these
 * workers.  For try_transaction(); throws.
 */
extern void start_next_sweepers(void *unused);

#endif /* SENDCAMPAIGN_SCAN_H */
