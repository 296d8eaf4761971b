/*-------------------------------------------------------------------------
 *
 * read_back.h
 *	  After lost commits, reads back from Twilio what a run has sent.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_READ_BACK_H
#define SENDCAMPAIGN_READ_BACK_H

#include "twilio/http.h"
#include "worker/run.h"

/* Makes the run read back what was sent before it does anything else.  Throws. */
extern void begin_reading_back(Run *run);

/* Starts the next request for that, if one is due. */
extern void read_back_more(Run *run, TimestampTz now);

/* Takes the answer to such a request. */
extern void take_read_back_answer(struct ReadBack *read_back, const HttpResponse *response);

/* Returns why reading back is impossible, or NULL. */
extern const char *why_not_read_back(const Run *run);

/*
 * For a run that is only to end: lets it continue without what cannot be read,
 * once no request is under way.
 */
extern void give_up_read_back(Run *run);

/* Tells whether HTTP has such a request of the run. */
extern bool read_back_is_under_way(const Run *run);

/* Writes what was read to the tables.  In a transaction with SPI connected; throws. */
extern void store_read_back(Run *run);

/* To be called after its commit, and after an abort. */
extern void keep_read_back(Run *run);
extern void unstore_read_back(Run *run);

/*
 * Sets the outcome of a claim's messages that were sent before, according to
 * what was read back.  In a transaction with SPI connected; throws.
 */
extern void recognize_sent(Claim *claim);

#endif /* SENDCAMPAIGN_READ_BACK_H */
