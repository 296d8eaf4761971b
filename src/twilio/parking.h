/*-------------------------------------------------------------------------
 *
 * parking.h
 *	  Requests that wait for the first connection of a host, to share it.
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
	long	   timeout; /* ms, of the request */
	instr_time started;
	bool	   tls;
	bool	   asked;  /* it was to wait */
	bool	   parked; /* it may be waiting still */
} Parked;

/*
 * Has the request, whose handle has its URL and is not yet in a multi handle,
 * wait where that makes sense.
 */
extern void park(Parked *request, CURL *easy, const char *url, long timeout);

/* It waits no more: it opens a connection, or has ended.  Callbacks may call it. */
extern void unpark(Parked *request);

/* Its first byte is about to leave.  Callbacks may call it. */
extern void parked_begins(Parked *request);

/* It has ended; the handle still tells of the answer. */
extern void answer_came(Parked *request);

/* The longest time to wait for the network, of the time given; ms, -1: any. */
extern long parking_wait(long timeout);

/* To be called after libcurl: lets those go that wait in vain. */
extern void end_parking(CURLM *multi);

#endif /* SENDCAMPAIGN_PARKING_H */
