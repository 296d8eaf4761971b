/*-------------------------------------------------------------------------
 *
 * debug_point.h
 *	  Places where a test can stop the worker, and kill it.
 *
 * Only in builds with SENDCAMPAIGN_DEBUG_POINTS: the worker waits at a point
 * while somebody holds the advisory lock (DEBUG_POINT_CLASS, point).
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_DEBUG_POINT_H
#define SENDCAMPAIGN_DEBUG_POINT_H

#define DEBUG_POINT_CLASS 5005

typedef enum DebugPoint
{
	DEBUG_CLAIMED = 1, /* the claim is committed, but nothing has left */
	DEBUG_ANSWERED,	   /* answers have come, but nothing is recorded */
	DEBUG_RECORDING,   /* within the transaction that records */
	DEBUG_RECORDED,	   /* after its commit */
	DEBUG_SWEPT,	   /* receipts of a page of Twilio's list are committed */
	DEBUG_LINGERED,	   /* a worker has lingered, and is about to look once more */
	DEBUG_LEAVING,	   /* it has seen no run, and is about to leave */
	DEBUG_STORED	   /* a list worker has stored the list, and is about to begin the run */
} DebugPoint;

#ifdef SENDCAMPAIGN_DEBUG_POINTS

/* Waits at the point if a test wants that; inside or outside of a transaction. */
extern void debug_point(DebugPoint point);
#else
#define debug_point(point) ((void) 0)
#endif

#endif /* SENDCAMPAIGN_DEBUG_POINT_H */
