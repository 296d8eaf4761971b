/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  A worker's transactions, and the settings that they have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TRANSACTION_H
#define SENDCAMPAIGN_TRANSACTION_H

/* To be called between transactions; begin_transaction() does. */
extern void settle_settings(void);

/* Has a trigger changed one that the next run would suffer from? */
extern void settle_after_triggers(void);

/* A transaction with SPI connected and a snapshot. */
extern void begin_transaction(void);
extern void commit_transaction(void);

/*
 * In the rest of this transaction triggers fire at once, so that their errors
 * are those of the run that they are about, and not of the commit.
 */
extern void fire_deferred_triggers(void);

#endif /* SENDCAMPAIGN_TRANSACTION_H */
