/*-------------------------------------------------------------------------
 *
 * recipient.c
 *	  Somebody who gets a text or is skipped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/recipient.h"

bool
is_too_late(TimestampTz until, TimestampTz now)
{
	return until != 0 && until < now + MIN_VALIDITY * USECS_PER_SEC;
}

void
recipient_skip(Recipient *recipient, SkipKind kind, const char *reason)
{
	if (recipient->skip != NOT_SKIPPED)
		return;
	recipient->skip = kind;
	recipient->reason = reason;
}
