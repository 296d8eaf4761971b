/*-------------------------------------------------------------------------
 *
 * receipt.h
 *	  Twilio's names for what became of a message, and ours.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECEIPT_H
#define SENDCAMPAIGN_RECEIPT_H

/*
 * Returns the status that is kept for a status of Twilio's: queued, sent,
 * delivered, undelivered, failed, read or canceled; NULL for one that says
 * nothing about an outbound message, or is unknown.  A constant; does not
 * throw.
 */
extern const char *receipt_status(const char *twilio_status);

/*
 * Returns the price if it is a number of sensible length, without its sign
 * (Twilio reports what is charged as negative); palloc'd.  NULL otherwise.
 */
extern char *receipt_price(const char *price);

/* Returns the currency if it is three letters, in upper case, palloc'd.  NULL otherwise. */
extern char *receipt_price_unit(const char *unit);

#endif /* SENDCAMPAIGN_RECEIPT_H */
