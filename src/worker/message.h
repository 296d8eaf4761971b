/*-------------------------------------------------------------------------
 *
 * message.h
 *	  A worker's messages and their states, and the claims that hold them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_MESSAGE_H
#define SENDCAMPAIGN_MESSAGE_H

#include "worker/run.h"

/* Takes a message out of its state, and sets its outcome. */
extern void message_done(Message *message, Outcome outcome);

/* Adds a message to the agenda, as MESSAGE_WAITING, _IN_DOUBT or _LOCKED. */
extern void message_wait(Message *message, MessageState state, TimestampTz due);

/* Makes a message ready to be sent. */
extern void message_ready(Message *message);

/* Note that HTTP has its request, or that of its lookup, and that this has ended. */
extern void message_sending(Message *message, Account *account);
extern void message_looking_up(Message *message, Account *account);
extern void message_answered(Message *message);

/* Makes its lookup ready to be started. */
extern void message_lookup_ready(Message *message);

/* Notes that it is recorded, and adds it to the list of those until the commit. */
extern void message_recorded(Message *message, dlist_head *list);

/* Removes a message that HTTP does not have from the list that it is in. */
extern void message_drop(Message *message);

/* Sets what it sends, with the tracking link in it (or NULL); both are copied. */
extern void message_set_text(Message *message, const char *text, const char *link);

/* Copies a string into the memory of the message's claim; NULL stays NULL. */
extern char *message_strdup(Message *message, const char *string);

/*
 * Tells whether nothing of it has been sent by this worker.  What may have
 * been sent before is looked up even if the run is cancelled, since nobody
 * else will do that.
 */
static inline bool
message_is_unsent(const Message *message)
{
	return message->state == MESSAGE_READY || message->state == MESSAGE_WAITING ||
		   (message->suspect && !run_is_cancelled(message->claim->run) &&
			(message->state == MESSAGE_IN_DOUBT || message->state == MESSAGE_LOOKUP_READY));
}

/*
 * Tells whether it may have been sent before commits were lost.  One that an
 * earlier worker has left may have been suspect.
 */
static inline bool
may_be_of_lost_past(const Message *message)
{
	return message->suspect || (message->claim->recovered && message->claim->run->was_read_back);
}

/* Sets which of the senders it uses, for the account of its claim. */
extern void message_set_sender(Message *message, char *const *names, int count);

/* Creates a claim with this many messages, in no list and state yet, and with the next number. */
extern Claim *create_claim(Run *run, int count);

/* Removes a claim's messages, none of which HTTP may have, from all lists, and frees the claim. */
extern void drop_claim(Claim *claim);

/* Frees a claim whose outcomes are all durable. */
extern void free_claim(Claim *claim);

#endif /* SENDCAMPAIGN_MESSAGE_H */
