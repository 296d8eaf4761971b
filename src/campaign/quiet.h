/*-------------------------------------------------------------------------
 *
 * quiet.h
 *	  Whether it is quiet hours where a recipient is, and when they end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_QUIET_H
#define SENDCAMPAIGN_QUIET_H

#include "campaign/group.h"

/*
 * If it is quiet hours in this zone, returns when they end.  Otherwise returns
 * 0, and sets *night to when they begin next, or to 0 if there are none.
 * Throws if a time is out of range.
 */
extern TimestampTz end_of_night(const QuietHours *hours, pg_tz *zone, TimestampTz now,
								TimestampTz *night);

#endif /* SENDCAMPAIGN_QUIET_H */
