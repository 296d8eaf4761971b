/*-------------------------------------------------------------------------
 *
 * campaign.h
 *	  What a campaign sends, and to which list.
 *
 * Where nothing else is said, these palloc in the current memory context, are
 * to be called in a transaction with SPI connected, and throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CAMPAIGN_H
#define SENDCAMPAIGN_CAMPAIGN_H

#include "campaign/group.h"
#include "campaign/link.h"
#include "campaign/template.h"

typedef struct Campaign
{
	int64	  id;
	int64	  list_id;
	char	 *message;
	char	 *base_url;	 /* of the tracking link; NULL for none */
	LinkForm *link_form; /* of its links, in UTF-8; NULL for none */
	Template *template;	 /* of the message, in UTF-8 */
	AppTables	*tables;
	GroupConfig *group;
	char		*test_phone; /* all of it goes there; NULL: to the list's users */
	bool		 zone_told;	 /* of a zone that nobody knows, people have been told */
} Campaign;

/* Reads its list and message. */
extern void campaign_read(Campaign *campaign);

/* Takes the keys out of the message, and has the tables read them. */
extern void campaign_set_message(Campaign *campaign, const char *message, const char *base_url);

/* The tracking link of a list user, in UTF-8; NULL for none. */
extern char *campaign_link(const Campaign *campaign, int64 list_user_id);

/*
 * The text for a list user, in UTF-8, with the values of the template's keys and the link,
 * which become UTF-8 as well; NULL where one is missing, which is *missing
 * then.
 */
extern char *campaign_render(const Campaign *campaign, char **values, const char *link,
							 const char **missing);

/* The same for a text that is not personal; one that is comes as it is written. */
extern char *campaign_text(const Campaign *campaign, int64 list_user_id);

#endif /* SENDCAMPAIGN_CAMPAIGN_H */
