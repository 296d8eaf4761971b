/*-------------------------------------------------------------------------
 *
 * twin.h
 *	  Whose is what Twilio's list has?  Messages that it shows alike.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TWIN_H
#define SENDCAMPAIGN_TWIN_H

#include "run.h"

/* What another message says of one that has the same phone, and the same link or text. */
typedef enum Twin
{
	TWIN_NONE,
	TWIN_UNDER_WAY, /* what is found may be its, as will be seen */
	TWIN_IN_DOUBT	/* nobody can tell whose it is */
} Twin;

/* Among the messages that this worker has in memory. */
extern Twin find_twin(const Message *message);

/*
 * The messages to the phones of those that look-ups have found, which other
 * workers have claimed, or nobody works on, and which have no outcome.  Read
 * it before anything else that the tables say of outcomes: a message that ends
 * in between is then seen in one place or in both, and not in neither.
 */
typedef struct ClaimedElsewhere
{
	int				count;
	struct Message *messages; /* their phones, texts and links */
	char		  **accounts;
} ClaimedElsewhere;

/* In a transaction, with SPI connected; palloc'd. */
extern ClaimedElsewhere read_claimed_elsewhere(Run *run);

extern bool has_twin_elsewhere(const Message *message, const ClaimedElsewhere *elsewhere);

/* Has one been left in doubt?  Likewise. */
extern bool has_twin_in_tables(const Message *message);

#endif /* SENDCAMPAIGN_TWIN_H */
