/*-------------------------------------------------------------------------
 *
 * twin.h
 *	  Whose message it is that Twilio's list has: other messages that look the
 *	  same there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TWIN_H
#define SENDCAMPAIGN_TWIN_H

#include "worker/run.h"

/* What another message with the same phone number, and the same link or text, means. */
typedef enum Twin
{
	TWIN_NONE,
	TWIN_UNDER_WAY, /* what is found may be that message, as will turn out */
	TWIN_IN_DOUBT	/* nobody can tell whose it is */
} Twin;

/* Searches the messages that this worker has in memory. */
extern Twin find_twin(const Message *message);

/* A message without an outcome that another worker, or none, has claimed. */
typedef struct ClaimedElsewhere
{
	int64	run_id;
	char   *account;
	Message message; /* its list user, phone, text and link */
} ClaimedElsewhere;

/* A message that Twilio may have under a SID that nobody knows. */
typedef struct UnknownSid
{
	int64 run_id;
	int64 list_user_id;
	char *phone;
	char *account; /* NULL: not known */
} UnknownSid;

/*
 * What the tables say about other messages to the phone numbers of those that
 * lookups have found.  Must be read before other outcomes: then a message that
 * ends in between is seen in one place or both, but never in neither.
 */
typedef struct Elsewhere
{
	int				  num_claimed;
	ClaimedElsewhere *claimed;
	int				  num_unknown;
	UnknownSid		 *unknown; /* for messages without a link */
} Elsewhere;

/* Reads them.  In a transaction with SPI connected; throws.  Palloc'd. */
extern Elsewhere read_elsewhere(Run *run);

/* Tells whether what was found may be one of them without an outcome. */
extern bool has_twin_elsewhere(const Message *message, const Elsewhere *elsewhere);

/*
 * Tells whether it may be one whose outcome is in doubt, or was settled by a
 * person.  In a transaction with SPI connected; throws.
 */
extern bool has_twin_in_tables(const Message *message, const Elsewhere *elsewhere);

/*
 * After lost commits: tells whether another run that had not ended by "since"
 * has the same link.  What Twilio's list has since then may be its message.
 * In a transaction with SPI connected; throws.
 */
extern bool has_twin_since(const Message *message, pg_time_t since);

#endif /* SENDCAMPAIGN_TWIN_H */
