/*-------------------------------------------------------------------------
 *
 * group.h
 *	  What a campaign's group says: whose account, which senders, how fast,
 *	  and when not.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_GROUP_H
#define SENDCAMPAIGN_GROUP_H

#include "database/app_tables.h"
#include "pgtime.h"

/* Hours of the night, in seconds of the recipient's day. */
typedef struct QuietHours
{
	int from; /* as late as it begins: the night may go over midnight */
	int to;	  /* the same as from where there is no night */
} QuietHours;

typedef struct GroupConfig
{
	int64		id; /* 0 where the list has none */
	char	   *account_sid;
	char	   *user; /* the account's or an API key's sid */
	char	   *secret;
	int			num_senders;
	char	  **senders; /* E.164, alphanumeric or MG... */
	double		rate;	 /* segments a second of each, 0: no limit */
	QuietHours	quiet_hours;
	pg_tz	   *time_zone;	/* of recipients who have none */
	bool		says_zone;	/* it is the group's own and not just UTC */
	TimestampTz send_until; /* the campaign's; 0: none */
} GroupConfig;

/*
 * Reads it for a list; palloc'd in the current memory context.  In a
 * transaction with SPI connected.  Throws where something is missing or makes
 * no sense.
 */
extern GroupConfig *read_group(AppTables *tables, int64 campaign_id, int64 list_id);

/* A zone of the time zone database; NULL where it has none of that name. */
extern pg_tz *find_time_zone(char *name);

#endif /* SENDCAMPAIGN_GROUP_H */
