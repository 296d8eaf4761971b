/*-------------------------------------------------------------------------
 *
 * parking.h
 *	  Requests that wait for the first connection to a host, to share it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_PARKING_H
#define SENDCAMPAIGN_PARKING_H

#include <curl/curl.h>

#include "lib/ilist.h"
#include "portability/instr_time.h"

/* Part of a request. */
typedef struct Parked
{
	dlist_node node;
	CURL	  *easy;
	long	   timeout; /* in ms, of the request */
	instr_time started;
	bool	   tls;
	bool	   asked;  /* true if libcurl was asked to wait */
	bool	   parked; /* true if it may still be waiting */
} Parked;

/*
 * Makes the request wait, if that is useful.  Its handle must have its URL,
 * and must not yet be in a multi handle.
 */
extern void park(Parked *request, CURL *easy, const char *url, long timeout);

/*
 * Ends the waiting: the request opens a connection, or has ended.  May be
 * called from callbacks.
 */
extern void unpark(Parked *request);

/* Notes that the request's first byte is about to leave.  May be called from callbacks. */
extern void parked_begins(Parked *request);

/* Notes that the exchange has ended; the handle must still describe the answer. */
extern void answer_came(Parked *request);

/* Returns how long to wait for the network, at most timeout; in ms, -1: no limit. */
extern long parking_wait(long timeout);

/* Releases requests that wait in vain.  Must be called after each call of libcurl. */
extern void end_parking(CURLM *multi);

#endif /* SENDCAMPAIGN_PARKING_H */
