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
#include "campaign/link_signature.h"
#include "campaign/segments.h"
#include "campaign/template.h"
#include "database/list_query.h"

/* What a campaign sends, in the server's encoding. */
typedef struct CampaignText
{
	char  *message;	 /* may be empty if there are media; of a content template: its variables */
	char  *base_url; /* of the tracking link; or NULL */
	char **media_urls;
	int	   num_media;
	char  *content_sid; /* of a content template; or NULL */
} CampaignText;

typedef struct Campaign
{
	int64		 id;
	int64		 list_id;
	CampaignText text;
	char	   **media_urls;  /* the same in UTF-8 */
	LinkForm	*link_form;	  /* of its links, in UTF-8; or NULL */
	LinkForm	*listed_form; /* the same, after smart_text(), as texts in Twilio's list may be */
	LinkSigner	*signer;	  /* of its links; NULL: they are not signed */
	Template *template;		  /* of the message, in UTF-8 */
	List		*keys;		  /* char *, the keys in it, in the server's encoding */
	AppTables	*tables;
	GroupConfig *group;
	char		*test_phone; /* receives everything; NULL: the list's users do */
	const char	*country;	 /* of numbers without a country code, see group.h; or NULL */
	int64		 query_list; /* the list whose users that selects; 0: the campaign's own */
	ListQuery	*recipients; /* selects some of the list's users; NULL: all get it */
	bool		 zone_told;	 /* true if people have been told of an unknown time zone */
} Campaign;

/* Reads the campaign's list and message, and checks them. */
extern void campaign_read(Campaign *campaign);

/* Does the same with a row that has been read; the campaign copies what it keeps. */
extern void campaign_take_row(Campaign *campaign, CampaignRow *row);

/* Sets what it sends, which is copied, and parses the placeholders. */
extern void campaign_set_text(Campaign *campaign, const CampaignText *text);

/*
 * Tells whether its texts have tracking links: there is a base URL, and in a
 * content template, a variable that contains the link.
 */
extern bool campaign_has_links(const Campaign *campaign);

/*
 * Determines whether links are signed, as links of this schema.  What is needed
 * for that is palloc'd; results of earlier statements are gone afterwards.
 */
extern void campaign_sign_links(Campaign *campaign, const char *schema, bool signs);

/* Returns the tracking link of a list user, in UTF-8; NULL if texts have none. */
extern char *campaign_link(const Campaign *campaign, int64 list_user_id);

/*
 * Returns the text for a list user, in UTF-8, with the link and the values of
 * the template's keys; converts values[] to UTF-8 in place.  If a value is
 * missing, returns NULL and sets *missing to its key.
 */
extern char *campaign_render(const Campaign *campaign, char **values, const char *link,
							 const char **missing);

/*
 * Counts the segments in which a text of the campaign, in UTF-8, is sent from
 * this sender.  Returns false if it is not sent as SMS, or with a text that only
 * Twilio knows: then it counts as one segment.
 */
extern bool campaign_count_segments(const Campaign *campaign, const char *sender, const char *text,
									SegmentCount *count);

/*
 * Returns the text of a campaign that is not personal.  A personal message is
 * returned as it was written.
 */
extern char *campaign_text(const Campaign *campaign, int64 list_user_id);

#endif /* SENDCAMPAIGN_CAMPAIGN_H */
