/*-------------------------------------------------------------------------
 *
 * quiet.h
 *	  Is it night where a recipient is?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_QUIET_H
#define SENDCAMPAIGN_QUIET_H

#include "campaign/group.h"

/*
 * When the night that it is now ends there; 0 where it is day, and then
 * *night is when the next one begins, 0 for never.
 */
extern TimestampTz end_of_night(const QuietHours *hours, pg_tz *zone, TimestampTz now,
								TimestampTz *night);

#endif /* SENDCAMPAIGN_QUIET_H */
