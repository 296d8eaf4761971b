/*-------------------------------------------------------------------------
 *
 * group.h
 *	  What a campaign's group configures: account, senders, rate, quiet hours.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_GROUP_H
#define SENDCAMPAIGN_GROUP_H

#include "database/app_tables.h"
#include "pgtime.h"

/* Quiet hours, in seconds of the recipient's day. */
typedef struct QuietHours
{
	int from; /* may be later than "to": over midnight */
	int to;	  /* equal to "from" if there are none */
} QuietHours;

typedef struct GroupConfig
{
	int64		id; /* 0 if the list has none */
	char	   *account_sid;
	char	   *user; /* SID of the account or of an API key */
	char	   *secret;
	int			num_senders;
	char	  **senders; /* E.164, alphanumeric or MG... */
	double		rate;	 /* segments per second and sender; 0: no limit */
	QuietHours	quiet_hours;
	pg_tz	   *time_zone;	/* of recipients who have none */
	bool		says_zone;	/* true if the group configures the time zone; false: UTC */
	TimestampTz send_until; /* of the campaign; 0: none */
} GroupConfig;

/*
 * Reads the configuration for a list; palloc'd in the current memory context.
 * SPI must be connected.  Throws if something is missing or invalid.
 */
extern GroupConfig *read_group(AppTables *tables, int64 campaign_id, int64 list_id);

/*
 * Returns a zone of the time zone database, or NULL if it has none of that
 * name.  Blanks are trimmed off the name in place.
 */
extern pg_tz *find_time_zone(char *name);

#endif /* SENDCAMPAIGN_GROUP_H */
