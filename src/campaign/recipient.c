/*-------------------------------------------------------------------------
 *
 * recipient.c
 *	  Somebody who gets a text or is skipped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/recipient.h"

void
recipient_skip(Recipient *recipient, SkipKind kind, const char *reason)
{
	if (recipient->skip != NOT_SKIPPED)
		return;
	recipient->skip = kind;
	recipient->reason = reason;
}
