/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  A worker's transactions, and their settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TRANSACTION_H
#define SENDCAMPAIGN_TRANSACTION_H

/* Sets them.  Must be called between transactions; begin_transaction() does that. */
extern void settle_settings(void);

/* Sets them again if a trigger has changed one that would harm the next run. */
extern void settle_after_triggers(void);

/* Begins a transaction with SPI connected and a snapshot. */
extern void begin_transaction(void);

/* Ends it. */
extern void commit_transaction(void);

/* Ends it after an error. */
extern void abort_transaction(void);

/*
 * Calls the function in a transaction of its own.  If it raises an error,
 * returns that, palloc'd in the caller's memory context; otherwise NULL.  Must
 * be called between transactions.
 */
extern ErrorData *try_transaction(void (*function)(void *arg), void *arg);

/*
 * Makes triggers fire at once in the rest of this transaction, so that their
 * errors belong to the run that caused them, and not to the commit.
 */
extern void fire_deferred_triggers(void);

#endif /* SENDCAMPAIGN_TRANSACTION_H */
