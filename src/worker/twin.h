/*-------------------------------------------------------------------------
 *
 * twin.h
 *	  Whose is what Twilio's list has?  Messages that it shows alike.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TWIN_H
#define SENDCAMPAIGN_TWIN_H

#include "worker/run.h"

/* What another message says of one that has the same phone, and the same link or text. */
typedef enum Twin
{
	TWIN_NONE,
	TWIN_UNDER_WAY, /* what is found may be its, as will be seen */
	TWIN_IN_DOUBT	/* nobody can tell whose it is */
} Twin;

/* Among the messages that this worker has in memory. */
extern Twin find_twin(const Message *message);

/* One that another worker has claimed, or nobody works on, and that has no outcome. */
typedef struct ClaimedElsewhere
{
	int64	run_id;
	char   *account;
	Message message; /* its list user, phone, text and link */
} ClaimedElsewhere;

/* One that Twilio may have under a SID that nobody knows. */
typedef struct UnknownSid
{
	int64 run_id;
	int64 list_user_id;
	char *phone;
	char *account; /* NULL: not known */
} UnknownSid;

/*
 * What the tables say of other messages to the phones of those that look-ups
 * have found.  Read it before anything else that they say of outcomes: a
 * message that ends in between is then seen in one place or in both, and not
 * in neither.
 */
typedef struct Elsewhere
{
	int				  num_claimed;
	ClaimedElsewhere *claimed;
	int				  num_unknown;
	UnknownSid		 *unknown; /* for those without a link */
} Elsewhere;

/* In a transaction, with SPI connected; palloc'd. */
extern Elsewhere read_elsewhere(Run *run);

/* Is it perhaps one without an outcome? */
extern bool has_twin_elsewhere(const Message *message, const Elsewhere *elsewhere);

/* Or one whose outcome says that nobody knows, or that a person has settled?  Likewise. */
extern bool has_twin_in_tables(const Message *message, const Elsewhere *elsewhere);

/*
 * Commits were lost: has another run that was not over then the same link?
 * What Twilio's list has since may be its message.  Likewise.
 */
extern bool has_twin_since(const Message *message, pg_time_t since);

#endif /* SENDCAMPAIGN_TWIN_H */
