/*-------------------------------------------------------------------------
 *
 * send.h
 *	  Hands messages to HTTP and takes the answers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SEND_H
#define SENDCAMPAIGN_SEND_H

#include "worker/run.h"

/* Sets up what sending needs; to be called once a process. */
extern void send_init(void);

/* Starts as many requests as may be in flight, by turns of the runs. */
extern void send_ready(void);

/* Takes all answers that have come; returns how many. */
extern int take_answers(void);

/* Moves on what is due in the agenda: repeats and look-ups. */
extern void follow_agenda(void);

/* When the agenda or an account's pause wants attention; 0 for never. */
extern TimestampTz next_send_time(void);

/* Gives back what has not been sent: back into a batch at the next record. */
extern void release_unsent(Run *run);

#endif /* SENDCAMPAIGN_SEND_H */
