/*-------------------------------------------------------------------------
 *
 * freshness.h
 *	  The control question: is Twilio's list up to date?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FRESHNESS_H
#define SENDCAMPAIGN_FRESHNESS_H

#include "twilio/http.h"
#include "worker/witness.h"

struct Control;

/* The result of an answer to a control question. */
typedef enum ControlResult
{
	CONTROL_PENDING,   /* not known yet; it will be asked again */
	CONTROL_FRESH,	   /* list_is_fresh() is now true for later moments */
	CONTROL_UNREADABLE /* the list shows messages without their content */
} ControlResult;

/* Remembers a message that Twilio has accepted, so that it can be asked for. */
extern void remember_accepted(const Message *message);

/*
 * Tells whether the account's list is known to show everything that Twilio
 * accepted before this moment of monotonic_time(), with its text, its link or
 * its number.
 */
extern bool list_is_fresh(const Account *account, ListedBy by, int64 moment);

/* Makes the worker find that out, as soon as there is a message to ask for. */
extern void want_freshness(Account *account, ListedBy by, int64 moment);

/* Starts the control questions that are due. */
extern void ask_control_questions(TimestampTz now);

/* Takes an answer to one; sets *why if the list cannot be read. */
extern ControlResult take_control_answer(struct Control *control, const HttpResponse *response,
										 const char **why);

/* Returns the account that a control question is about. */
extern Account *account_of_control(const struct Control *control);

#endif /* SENDCAMPAIGN_FRESHNESS_H */
