/*-------------------------------------------------------------------------
 *
 * lookup.h
 *	  Resolves doubt: looks up in Twilio's list what Twilio accepted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LOOKUP_H
#define SENDCAMPAIGN_LOOKUP_H

#include "twilio/http.h"
#include "worker/run.h"

/* Marks a message as in doubt, since its request may have reached Twilio. */
extern void doubt(Message *message, const char *reason);

/*
 * Marks a message as in doubt because lost commits may have recorded that it
 * was sent, and it was not found when the list was read back.  It is looked up
 * before it is sent.
 */
extern void suspect(Message *message);

/*
 * Leaves all messages of the run in doubt that are not being looked up just
 * now, for this reason.
 */
extern void give_up_lookups(Run *run, const char *why);

/*
 * Tells whether the message certainly has not been sent, and may be put back.
 * If a lookup has found what may be it, more must be known first, whatever
 * becomes of its run.
 */
extern bool may_be_released(const Message *message);

/* For a run that is cancelled: leaves suspect messages in doubt if a lookup has found any. */
extern void give_up_found(Run *run);

/* Starts the lookup of a message in doubt; returns false if HTTP has no room. */
extern bool start_lookup(Message *message);

/* Takes the answer to a lookup's request. */
extern void take_lookup_answer(Message *message, const HttpResponse *response);

/* Takes the answer to a control question (see freshness.h). */
struct Control;
extern void follow_control_answer(struct Control *control, const HttpResponse *response);

/* Tells whether all of the run's open messages wait for the outcome of others. */
extern bool only_others_are_waited_for(Run *run);

/*
 * Decides what the lookups have found, using what the tables know: a SID that
 * belongs to another message is not this one's.  In a transaction with SPI
 * connected; throws.
 */
extern void settle_lookups(Run *run);

#endif /* SENDCAMPAIGN_LOOKUP_H */
