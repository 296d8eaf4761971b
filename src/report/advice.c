/*-------------------------------------------------------------------------
 *
 * advice.c
 *	  What to do about recipients who were skipped.
 *
 * Twilio's codes have theirs in sendcampaign.error_code.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/advice.h"

typedef struct Advice
{
	const char *beginning; /* of a reason */
	const char *what_to_do;
} Advice;

static const Advice advices[] = {
	{"no phone number", "Enter a phone number for these list users."},
	{"phone number is not", "Correct the phone numbers in the list, with their country code."},
	{"duplicate:", "Nothing needs to be done: the phone number got the message once."},
	{"opted out", "Leave these recipients alone: only they can opt in again."},
	{"expired:", "Start earlier, send faster, or let sendUntil be later."},
	{"the phone number cannot be reached", "Ask these recipients for another number."},
	{"no value for", "Enter the value for these list users, or give the placeholder a default."},
	{"the value of", "Shorten the value."},
	{"a value", "Correct the text of the value."},
	{"the text is far longer", "Shorten the text, or the values in it."},
	{"the list user cannot be read", "Correct the list user's row."},
	{"list user", "Nothing needs to be done, unless they were removed by mistake."},
	{"cancelled", "Send the campaign with a new job if these recipients should still get it."},
};

const char *
advice_for_skipped(const char *reason)
{
	for (int i = 0; reason && i < lengthof(advices); i++)
		if (strncmp(reason, advices[i].beginning, strlen(advices[i].beginning)) == 0)
			return advices[i].what_to_do;
	return NULL;
}
