/*-------------------------------------------------------------------------
 *
 * read_back.h
 *	  Reads back from Twilio what a run has sent, after lost commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_READ_BACK_H
#define SENDCAMPAIGN_READ_BACK_H

#include "twilio/http.h"
#include "worker/run.h"

/* Has the run read back what was sent before anything else.  Throws. */
extern void begin_reading_back(Run *run);

/* Starts the next request of it, where one is due. */
extern void read_back_more(Run *run, TimestampTz now);

/* Takes the answer to such a request. */
extern void take_read_back_answer(struct ReadBack *read_back, const HttpResponse *response);

/* Why it cannot be read at all, or NULL while it can. */
extern const char *why_not_read_back(const Run *run);

/*
 * For a run that only has to come to its end: goes on without what cannot be
 * read, once no request is under way.
 */
extern void give_up_read_back(Run *run);

/* Is a request of it with HTTP? */
extern bool read_back_is_under_way(const Run *run);

/* Writes what was read to the tables; in a transaction with SPI connected. */
extern void store_read_back(Run *run);
/* After the commit, and after an abort. */
extern void keep_read_back(Run *run);
extern void unstore_read_back(Run *run);

/*
 * Ends those of a batch's messages that were sent before, by what was read
 * back.  In a transaction with SPI connected.
 */
extern void recognize_sent(Claim *claim);

#endif /* SENDCAMPAIGN_READ_BACK_H */
