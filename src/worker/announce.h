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

/* For the worker, after the commit of what it says: it is sent soon. */
extern void announce_later(const char *payload);

/* Sends what is to be sent now; between transactions.  Never throws. */
extern void announce(TimestampTz now);

/*
 * PostgreSQL lets go of notifications that all have read when somebody notifies,
 * which nobody can do while the queue is full, or when it is asked for the
 * queue's usage, as here.
 */
extern double notification_queue_usage(void);

/* Is there anything left to be sent?  Given up after some seconds. */
extern bool announcements_are_left(void);

/*
 * In somebody's transaction, as part of it.  Where the queue for notifications
 * is nearly full there is none: what the transaction does counts for more.
 */
extern void announce_at_commit(const char *payload);
extern void announce_all_at_commit(List *payloads);

#endif /* SENDCAMPAIGN_ANNOUNCE_H */
