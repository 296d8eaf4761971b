/*-------------------------------------------------------------------------
 *
 * scan.h
 *	  Unfinished runs of a database get workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SCAN_H
#define SENDCAMPAIGN_SCAN_H

/*
 * Starts or wakes a worker for each role that has unfinished runs in this
 * database, of which the current role is a member (with all: for every
 * role).  A role that cannot work has its runs fail, with the reason.  In a
 * transaction with SPI connected.  Returns how many workers were started or
 * woken.
 */
extern int start_workers_for_queue(bool all);

#endif /* SENDCAMPAIGN_SCAN_H */
