/*-------------------------------------------------------------------------
 *
 * send.h
 *	  Passes messages to HTTP and takes the answers.
 *
 * No function uses the database, and none throws except for lack of memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SEND_H
#define SENDCAMPAIGN_SEND_H

#include "worker/run.h"

/* Initializes what sending needs; must be called once per worker. */
extern void send_init(void);

/* Starts as many requests as may be in flight; the runs take turns. */
extern void send_ready(void);

/* Takes all answers that have arrived, and returns their number. */
extern int take_answers(void);

/* Moves on the messages in the agenda that are due: to be sent, looked up or recorded. */
extern void follow_agenda(void);

/* Returns when the agenda, a sender or an account next needs attention; 0: never. */
extern TimestampTz next_send_time(void);

/* Releases unsent messages; record_outcomes() then puts them back into a batch. */
extern void release_unsent(Run *run);

#endif /* SENDCAMPAIGN_SEND_H */
