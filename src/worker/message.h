/*-------------------------------------------------------------------------
 *
 * message.h
 *	  Messages of a worker and their states, and the claims that hold them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_MESSAGE_H
#define SENDCAMPAIGN_MESSAGE_H

#include "worker/run.h"

/* Takes a message from where it is and sets its outcome. */
extern void message_done(Message *message, Outcome outcome);
/* Puts a message into the agenda, as MESSAGE_WAITING, _IN_DOUBT or _LOCKED. */
extern void message_wait(Message *message, MessageState state, TimestampTz due);
extern void message_ready(Message *message);
/* HTTP has its request, or that of its look-up; and has it no more. */
extern void message_sending(Message *message, Account *account);
extern void message_looking_up(Message *message, Account *account);
extern void message_answered(Message *message);
extern void message_lookup_ready(Message *message);
/* Recorded, in a list for those that are, until that is committed. */
extern void message_recorded(Message *message, dlist_head *list);
/* Takes one that HTTP does not have out of whatever list it is in. */
extern void message_drop(Message *message);
/* A string in the memory of the message's claim; NULL for NULL. */
extern char *message_strdup(Message *message, const char *string);

/*
 * Has nothing of it left, since this worker has it?  What may have left before
 * is looked up all the same where the run is cancelled: nobody else will.
 */
static inline bool
message_is_unsent(const Message *message)
{
	return message->state == MESSAGE_READY || message->state == MESSAGE_WAITING ||
		   (message->suspect && !message->claim->run->cancelled &&
			(message->state == MESSAGE_IN_DOUBT || message->state == MESSAGE_LOOKUP_READY));
}

/*
 * May it have been sent before commits were lost?  One that an earlier worker
 * has left may have been suspect.
 */
static inline bool
may_be_of_lost_past(const Message *message)
{
	return message->suspect || (message->claim->recovered && message->claim->run->was_read_back);
}

/* Which of the senders it goes by; its claim has the account. */
extern void message_set_sender(Message *message, char *const *names, int count);

/* A claim with so many messages, in no list and state yet; its number is the next one. */
extern Claim *create_claim(Run *run, int count);

/* Takes a claim's messages, none of them with HTTP, out of all lists; frees it. */
extern void drop_claim(Claim *claim);

/* Frees a claim all of whose outcomes are durable. */
extern void free_claim(Claim *claim);

#endif /* SENDCAMPAIGN_MESSAGE_H */
