/*-------------------------------------------------------------------------
 *
 * courier.h
 *	  With Citus: the process that tells opt-outs to other nodes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_COURIER_H
#define SENDCAMPAIGN_COURIER_H

/* Must be called once, when the library is loaded. */
extern void register_courier_callbacks(void);

/*
 * For a new worker, before it sends anything: has the other nodes tell what this
 * one has missed, as long as they do; not those that are down.  Must be called
 * between transactions.  Never throws.
 */
extern void fetch_opt_outs(void);

/* For whoever looks for unfinished runs, in a transaction: tells what is left to be told. */
extern void start_courier_if_needed(void);

#endif /* SENDCAMPAIGN_COURIER_H */
