/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  What send_campaign() and its sisters have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_QUEUE_H
#define SENDCAMPAIGN_QUEUE_H

/* Throws, with a hint, on a standby and in a read-only transaction. */
extern void check_writable(const char *function);

#endif							/* SENDCAMPAIGN_QUEUE_H */
