/*-------------------------------------------------------------------------
 *
 * campaign.h
 *	  What a campaign sends, and to which list.
 *
 * Unless stated otherwise, these functions palloc their results in the current
 * memory context, must be called in a transaction with SPI connected, and
 * throw.
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
	char	 *base_url;	 /* of the tracking link; or NULL */
	LinkForm *link_form; /* of its links, in UTF-8; or NULL */
	Template *template;	 /* of the message, in UTF-8 */
	AppTables	*tables;
	GroupConfig *group;
	char		*test_phone; /* receives everything; NULL: the list's users do */
	bool		 zone_told;	 /* true if people have been told of an unknown time zone */
} Campaign;

/* Reads the campaign's list and message, and checks them. */
extern void campaign_read(Campaign *campaign);

/* Sets the message, parses its placeholders, and makes the tables read the keys in them. */
extern void campaign_set_message(Campaign *campaign, const char *message, const char *base_url);

/* Returns the tracking link of a list user, in UTF-8; NULL if there is no base URL. */
extern char *campaign_link(const Campaign *campaign, int64 list_user_id);

/*
 * Returns the text for a list user, in UTF-8, with the link and the values of
 * the template's keys; converts values[] to UTF-8 in place.  If a value is
 * missing, returns NULL and sets *missing to its key.
 */
extern char *campaign_render(const Campaign *campaign, char **values, const char *link,
							 const char **missing);

/*
 * Returns the text of a campaign that is not personal.  A personal message is
 * returned as it was written.
 */
extern char *campaign_text(const Campaign *campaign, int64 list_user_id);

#endif /* SENDCAMPAIGN_CAMPAIGN_H */
