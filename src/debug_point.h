/*-------------------------------------------------------------------------
 *
 * debug_point.h
 *	  Places at which a test can stop the worker, and kill it there.
 *
 * In builds with SENDCAMPAIGN_DEBUG_POINTS only: the worker waits at a point
 * while somebody holds the advisory lock (DEBUG_POINT_CLASS, point).
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_DEBUG_POINT_H
#define SENDCAMPAIGN_DEBUG_POINT_H

#define DEBUG_POINT_CLASS 5005

typedef enum DebugPoint
{
	DEBUG_CLAIMED = 1, /* the claim is committed, nothing has left */
	DEBUG_ANSWERED,	   /* answers have come, nothing is recorded */
	DEBUG_RECORDING,   /* within the transaction that records */
	DEBUG_RECORDED	   /* it is committed */
} DebugPoint;

#ifdef SENDCAMPAIGN_DEBUG_POINTS
extern void debug_point(DebugPoint point);
#else
#define debug_point(point) ((void) 0)
#endif

#endif /* SENDCAMPAIGN_DEBUG_POINT_H */
