/*-------------------------------------------------------------------------
 *
 * debug_point.c
 *	  Places where a test can stop the worker, and kill it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "debug_point.h"

#ifdef SENDCAMPAIGN_DEBUG_POINTS

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"

void
debug_point(DebugPoint point)
{
	bool	outside = !IsTransactionState();
	int		lock_timeout = LockTimeout;
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, DEBUG_POINT_CLASS, point, 2);
	if (outside)
		StartTransactionCommand();
	LockTimeout = 0;
	(void) LockAcquire(&tag, ShareLock, false, false);
	(void) LockRelease(&tag, ShareLock, false);
	LockTimeout = lock_timeout;
	if (outside)
		CommitTransactionCommand();
}

#endif /* SENDCAMPAIGN_DEBUG_POINTS */
