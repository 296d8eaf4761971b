/*-------------------------------------------------------------------------
 *
 * event_table.h
 *	  What recipients have done with their links, and all SQL that writes it.
 *
 * All functions need a transaction and a connection to SPI, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_EVENT_TABLE_H
#define SENDCAMPAIGN_EVENT_TABLE_H

#include "postgres.h"

/* Whose link it is, as the link says. */
typedef struct TrackedLink
{
	const char *schema;
	int64		campaign_id;
	int64		list_user_id;
	bool		is_signed; /* true if it has the right signature */
} TrackedLink;

/* The run whose message had the link. */
typedef struct TrackedRun
{
	int64 id;
	int64 list_id;
	Oid	  list_users; /* the table with which the run started; 0: not known */
} TrackedRun;

/*
 * Finds the latest of the runs that the current role may see which has, or may
 * have, sent this recipient a message with the link.  Its message is kept from
 * being forgotten until the end of the transaction.  Returns false if there is
 * none, or if all of them have signed their links and this one is not.
 */
extern bool events_find_run(const TrackedLink *link, TrackedRun *run);

/*
 * Records these events (text[]) of a recipient, in this order.  Returns those
 * that are new, palloc'd.
 */
extern char **events_add(int64 run_id, int64 list_user_id, Datum events, int *count);

/* Removes them. */
extern void events_remove(int64 run_id, int64 list_user_id, Datum events);

/* Removes all events of the caller's messages to these phone numbers (text[]). */
extern void events_forget_phones(Datum phones);

#endif /* SENDCAMPAIGN_EVENT_TABLE_H */
