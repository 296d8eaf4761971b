/*-------------------------------------------------------------------------
 *
 * freshness.h
 *	  The control question: does Twilio's list show what it has now?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FRESHNESS_H
#define SENDCAMPAIGN_FRESHNESS_H

#include "twilio/http.h"
#include "worker/run.h"

struct Control;

/* What an answer to a control question tells. */
typedef enum ControlResult
{
	CONTROL_PENDING,   /* it is asked again */
	CONTROL_FRESH,	   /* list_is_fresh() is true for later moments than before */
	CONTROL_UNREADABLE /* the list shows messages, and not what is in them */
} ControlResult;

/* Twilio has accepted it: it can be asked for. */
extern void remember_accepted(const Message *message);

/*
 * Is it known that the account's list shows all that Twilio took up to this
 * moment of monotonic_time(), with its text; or, with links, with its link?
 */
extern bool list_is_fresh(const Account *account, bool links, int64 moment);

/* Has that found out, as soon as there is a message to ask for. */
extern void want_freshness(Account *account, bool links, int64 moment);

/* Starts the control questions that are due. */
extern void ask_control_questions(TimestampTz now);

/* Takes the answer to one; *why is set where the list cannot be read. */
extern ControlResult take_control_answer(struct Control *control, const HttpResponse *response,
										 const char **why);

/* The account that a control question is about. */
extern Account *account_of_control(const struct Control *control);

#endif /* SENDCAMPAIGN_FRESHNESS_H */
