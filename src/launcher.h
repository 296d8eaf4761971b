/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  With preload: brings unfinished runs back, in every database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LAUNCHER_H
#define SENDCAMPAIGN_LAUNCHER_H

/* To be called while shared_preload_libraries are loaded. */
extern void register_launcher(void);

/*
 * Starts or wakes a worker for each role that has unfinished runs in this
 * database, of which the current role is a member (with all: for every
 * role).  A role that cannot work has its runs fail, with the reason.  In a
 * transaction with SPI connected.  Returns how many workers were started or
 * woken.
 */
extern int start_workers_for_queue(bool all);

#endif /* SENDCAMPAIGN_LAUNCHER_H */
