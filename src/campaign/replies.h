/*-------------------------------------------------------------------------
 *
 * replies.h
 *	  Takes inbound messages, wherever they were reported.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_REPLIES_H
#define SENDCAMPAIGN_REPLIES_H

#include "campaign/group.h"
#include "database/receipt_table.h"
#include "nodes/pg_list.h"

/* An inbound message as Twilio reports it; strings are in UTF-8. */
typedef struct Inbound
{
	const char *sid;
	const char *from;
	const char *to;
	const char *service; /* messaging service; or NULL */
	const char *body;	 /* or NULL */
	TimestampTz at;		 /* when Twilio received it */
} Inbound;

/* A group that inbound messages may be for, and what proves that. */
typedef struct ReplyGroup
{
	ReceiptScope scope;
	GroupConfig *group;
	bool		 any_sender;   /* also messages to senders that it does not have now, */
	List		*past_senders; /* or to these (char *) */
} ReplyGroup;

/*
 * Returns the phone number that Twilio names, of whatever channel, in E.164,
 * palloc'd; NULL if it is none.
 */
extern char *phone_of_number(const char *number);

/* Tells whether the message is to one of the group's senders. */
extern bool is_to_group(const Inbound *message, const GroupConfig *group);

/*
 * Stores inbound messages to senders of these groups (ReplyGroup *), past ones
 * included, which have one account, unless they are known already.  Of each role,
 * a message is for the group that has sent the latest message to that phone
 * number before it, from that sender; or if none has, for the one with that
 * sender that has sent something last.
 *
 * Stop and start words opt the phone number out of the messages of all of these
 * groups that have that sender, and in again: those of the group that the
 * message is for count for all of them, and others for the group that has them.
 * A message that was known may come again with more groups, for which it counts
 * then.
 *
 * Returns a list (char *) of what is to be announced, palloc'd: a line for each
 * message and role.
 *
 * In a transaction with SPI connected.  May wait for other transactions that
 * store the same messages, or opt the same phone numbers out or in; may throw.
 */
extern List *replies_take(List *groups, const Inbound *messages, int count);

#endif /* SENDCAMPAIGN_REPLIES_H */
