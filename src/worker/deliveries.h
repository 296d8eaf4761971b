/*-------------------------------------------------------------------------
 *
 * deliveries.h
 *	  Tells the job of a run that has ended what became of its messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_DELIVERIES_H
#define SENDCAMPAIGN_DELIVERIES_H

/*
 * Writes state and counts to the job of one of this worker's runs.  Does
 * nothing if that is still under way, since its job is told as it proceeds.
 * Errors of the application's tables, and a row that is locked, change nothing
 * for the run: they are logged.  In a transaction with SPI connected; throws
 * only if the worker is to end.
 */
extern void tell_deliveries(int64 run_id);

#endif /* SENDCAMPAIGN_DELIVERIES_H */
