/*-------------------------------------------------------------------------
 *
 * witness.h
 *	  By what Twilio's list shows a message, and whether it shows this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_WITNESS_H
#define SENDCAMPAIGN_WITNESS_H

#include "twilio/listing.h"
#include "worker/run.h"

/* By what it is recognized if it is in the list, and missed if it is not. */
typedef enum ListedBy
{
	LISTED_BY_TEXT,
	LISTED_BY_LINK,	  /* in its text */
	LISTED_BY_NUMBER, /* nobody knows its text: any message to the number may be it */
	NUM_LISTED_BY
} ListedBy;

extern ListedBy listed_by(const Message *message);

/*
 * Tells whether a listed message can be this one, which was claimed at that
 * time by the clock of Twilio's answers (0: not known).  If the list cannot
 * tell, sets *why, a string constant; otherwise sets it to NULL.  Does not
 * throw unless memory runs out.
 */
extern bool can_be_listed_as(const Message *message, const ListedMessage *listed, pg_time_t claimed,
							 const char **why);

/*
 * Tells whether the body can be that of a message with media and this text: a
 * link to the media may follow it, where they cannot be delivered.
 */
extern bool is_shown_without_media(const char *text, const char *body);

#endif /* SENDCAMPAIGN_WITNESS_H */
