/*-------------------------------------------------------------------------
 *
 * lookup.h
 *	  Resolves doubt: asks Twilio's own message list what it took.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LOOKUP_H
#define SENDCAMPAIGN_LOOKUP_H

#include "twilio/http.h"
#include "worker/run.h"

/* Puts a message whose request may have reached Twilio into doubt. */
extern void doubt(Message *message, const char *reason);

/*
 * Commits were lost that may have told that it was sent, and what was read
 * back does not: it is looked up before it is sent.
 */
extern void suspect(Message *message);

/* Leaves in doubt, for this reason, what is not being looked up just now. */
extern void give_up_lookups(Run *run, const char *why);

/*
 * Has it surely not left, so that it can be given back?  Not where a look-up has
 * found what may be it, of which more is to be known, whatever becomes of its run.
 */
extern bool may_be_released(const Message *message);

/* Leaves such ones in doubt, of a run that is cancelled. */
extern void give_up_found(Run *run);

/* Starts the look-up of a message in doubt; false where HTTP has no room. */
extern bool start_lookup(Message *message);

/* Takes the answer to a look-up's request. */
extern void take_lookup_answer(Message *message, const HttpResponse *response);

/* Takes the answer to a control question (see freshness.h). */
struct Control;
extern void follow_control_answer(struct Control *control, const HttpResponse *response);

/* Do all that are open wait for what becomes of other messages? */
extern bool only_others_are_waited_for(Run *run);

/*
 * Decides what the look-ups found, by what the tables know already: a SID
 * that another message has is not this one's.  In a transaction, with SPI
 * connected.
 */
extern void settle_lookups(Run *run);

#endif /* SENDCAMPAIGN_LOOKUP_H */
