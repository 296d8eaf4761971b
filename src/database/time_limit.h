/*-------------------------------------------------------------------------
 *
 * time_limit.h
 *	  A limit to the time that a role's code may take.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TIME_LIMIT_H
#define SENDCAMPAIGN_TIME_LIMIT_H

/*
 * Starts a limit, in ms; 0 is none.  When it is reached, the code is cancelled.  It
 * may catch that, so it is cancelled again and again, and in the end the connection
 * is closed.  Returns false, and changes nothing, if a limit is in force already:
 * code that calls us must not get more time by that.
 */
extern bool time_limit_start(int64 ms);

/*
 * Ends the limit, for whom time_limit_start() has returned true, after an error as
 * well.  A cancellation that comes too late hits nobody else.
 */
extern void time_limit_end(void);

/* Tells whether the limit that was started last has been reached. */
extern bool time_limit_was_reached(void);

#endif /* SENDCAMPAIGN_TIME_LIMIT_H */
