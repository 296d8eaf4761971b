/*-------------------------------------------------------------------------
 *
 * audience.h
 *	  Whom a call means: a campaign's list, or what a query selects of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_AUDIENCE_H
#define SENDCAMPAIGN_AUDIENCE_H

#include "database/app_tables.h"

typedef struct Audience
{
	char *query;   /* selects the recipients; or NULL */
	int64 list_id; /* the list whose users it selects; 0: the campaign's */
} Audience;

/*
 * Returns whom a campaign is for, with the query that was passed to the call, or
 * NULL.  If the setting sendcampaign.list_queries is on, the campaign's list may
 * have a query of its own.  To be called as the role that sends, with SPI
 * connected; throws.
 */
extern Audience find_audience(const AppTables *tables, int64 campaign_id, char *query);

#endif /* SENDCAMPAIGN_AUDIENCE_H */
