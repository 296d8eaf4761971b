/*-------------------------------------------------------------------------
 *
 * recipient.h
 *	  Who gets which text and when; who is skipped, and why.
 *
 * The same for messages that are claimed and for those that are only shown.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECIPIENT_H
#define SENDCAMPAIGN_RECIPIENT_H

#include "campaign/campaign.h"
#include "datatype/timestamp.h"

/*
 * Twilio needs some seconds to pass a message on: one whose time ends sooner is
 * not sent any more.
 */
#define MIN_VALIDITY 5

typedef enum SkipKind
{
	NOT_SKIPPED,
	SKIP_GONE,
	SKIP_NO_PHONE,
	SKIP_BAD_PHONE,
	SKIP_DUPLICATE,
	SKIP_OPTED_OUT,
	SKIP_NO_VALUE,
	SKIP_UNREACHABLE,
	SKIP_EXPIRED,
	SKIP_OVER_LIMIT
} SkipKind;

/* Strings are palloc'd in the memory context that was current. */
typedef struct Recipient
{
	int64		list_user_id;
	char	   *phone;		 /* E.164; if invalid, as in the list; or NULL */
	char	   *text;		 /* UTF-8; NULL if nothing is sent */
	char	   *link;		 /* the tracking link in the text; or NULL */
	SkipKind	skip;		 /* why nothing is sent */
	const char *reason;		 /* the same in words; NULL if the message is sent */
	TimestampTz due;		 /* when quiet hours end; 0: it is due now */
	TimestampTz until;		 /* when Twilio must have passed it on; 0: no limit */
	int			unreachable; /* Twilio's error code, see unreachable.h; 0: none, or not asked for */
} Recipient;

/* List users of a campaign, and what is to be done for each of them. */
typedef struct RecipientList
{
	Campaign  *campaign;
	Datum	  *ids; /* bigint */
	int		   count;
	Recipient *recipients; /* in the order of the ids; NULL: not read yet */
} RecipientList;

/* Tells whether it is too late to send what must have been passed on at that time (0: any). */
extern bool is_too_late(TimestampTz until, TimestampTz now);

/* Marks the recipient as skipped, unless it is already. */
extern void recipient_skip(Recipient *recipient, SkipKind kind, const char *reason);

#endif /* SENDCAMPAIGN_RECIPIENT_H */
