/*-------------------------------------------------------------------------
 *
 * recipient.h
 *	  Who gets which text, when; and who gets none, and why.
 *
 * The same for a message that is claimed and for one that is only shown.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECIPIENT_H
#define SENDCAMPAIGN_RECIPIENT_H

#include "datatype/timestamp.h"

typedef enum SkipKind
{
	NOT_SKIPPED,
	SKIP_GONE,
	SKIP_NO_PHONE,
	SKIP_BAD_PHONE,
	SKIP_DUPLICATE,
	SKIP_OPTED_OUT,
	SKIP_NO_VALUE,
	SKIP_EXPIRED
} SkipKind;

/* Strings are palloc'd in the context that was current. */
typedef struct Recipient
{
	int64		list_user_id;
	char	   *phone;	/* E.164; as it is in the list where that gives none; or NULL */
	char	   *text;	/* UTF-8; NULL where nothing is sent */
	char	   *link;	/* the tracking link in it, or NULL */
	SkipKind	skip;	/* why nothing is sent */
	const char *reason; /* the same in words; NULL where it is sent */
	TimestampTz due;	/* it is night there, until then; 0: no */
	TimestampTz until;	/* it is to be sent before, or not at all; 0: whenever */
} Recipient;

/* It gets nothing, for this reason, where there is no other. */
extern void recipient_skip(Recipient *recipient, SkipKind kind, const char *reason);

#endif /* SENDCAMPAIGN_RECIPIENT_H */
