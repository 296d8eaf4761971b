/*-------------------------------------------------------------------------
 *
 * announce.h
 *	  Notifications that runs have ended or need a person.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ANNOUNCE_H
#define SENDCAMPAIGN_ANNOUNCE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/*
 * For the worker, after it has committed what the notification says: queues it
 * for announce().  Copies the payload.
 */
extern void announce_later(const char *payload);

/*
 * Sends the queued notifications that are due.  Must be called outside of
 * transactions.  Never throws.
 */
extern void announce(TimestampTz now);

/*
 * Returns the usage of PostgreSQL's queue of notifications (0 to 1), which
 * frees those that everybody has read.  Otherwise only NOTIFY does, which is
 * impossible while the queue is full.
 */
extern double notification_queue_usage(void);

/* Tells whether notifications are left to be sent.  They are given up after some seconds. */
extern bool announcements_are_left(void);

/*
 * Notify as part of the caller's transaction.  If the queue of notifications
 * is nearly full, they do nothing, since the transaction matters more.
 */
extern void announce_at_commit(const char *payload);
extern void announce_all_at_commit(List *payloads);

#endif /* SENDCAMPAIGN_ANNOUNCE_H */
