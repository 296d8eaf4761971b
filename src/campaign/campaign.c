/*-------------------------------------------------------------------------
 *
 * campaign.c
 *	  What a campaign sends, and what that costs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/campaign.h"
#include "campaign/render.h"
#include "campaign/smart_encoding.h"
#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"
#include "twilio/request.h"
#include "utils/json.h"

/* Returns the text in the server's encoding, palloc'd, or the text itself. */
static char *
from_utf8(const char *text)
{
	return pg_any_to_server(text, strlen(text), PG_UTF8);
}

/* Copies the text, which may be the campaign's own. */
static void
copy_text(Campaign *campaign, CampaignText text)
{
	const char *base_url = text.base_url;

	campaign->text = text;
	campaign->text.message = pstrdup(text.message);
	campaign->text.base_url = base_url && base_url[0] ? pstrdup(base_url) : NULL;
	campaign->text.content_sid = text.content_sid ? pstrdup(text.content_sid) : NULL;
	campaign->text.media_urls = palloc(Max(text.num_media, 1) * sizeof(char *));
	campaign->media_urls = palloc(Max(text.num_media, 1) * sizeof(char *));
	for (int i = 0; i < text.num_media; i++)
	{
		campaign->text.media_urls[i] = pstrdup(text.media_urls[i]);
		campaign->media_urls[i] = to_utf8(campaign->text.media_urls[i]);
	}
}

void
campaign_set_text(Campaign *campaign, const CampaignText *text)
{
	const char *base_url;

	if (text->message == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the run of campaign %lld has begun, but its text is not recorded",
						(long long) campaign->id),
				 errdetail("Its row in sendcampaign.run_data was not written by sendcampaign."),
				 errhint("Send the campaign with another background job.")));
	copy_text(campaign, *text);
	/* in UTF-8, as it is also compared with texts in Twilio's list */
	campaign->template = template_parse(to_utf8(campaign->text.message));
	base_url = campaign->text.base_url ? to_utf8(campaign->text.base_url) : NULL;
	campaign->link_form = link_form(base_url, campaign->id);
	campaign->listed_form = link_form(base_url ? smart_text(base_url) : NULL, campaign->id);
	campaign->keys = NIL;
	for (int i = 0; i < template_num_keys(campaign->template); i++)
		campaign->keys = lappend(campaign->keys, from_utf8(template_key(campaign->template, i)));
}

bool
campaign_has_links(const Campaign *campaign)
{
	return campaign->link_form &&
		   (campaign->text.content_sid == NULL || template_has_link(campaign->template));
}

void
campaign_sign_links(Campaign *campaign, const char *schema, bool signs)
{
	if (!signs)
		campaign->signer = NULL;
	else if (campaign->signer == NULL)
		campaign->signer = link_signer(schema);
}

char *
campaign_link(const Campaign *campaign, int64 list_user_id)
{
	const LinkSigner *signer = campaign->signer;

	if (!campaign_has_links(campaign))
		return NULL;
	return link_make(campaign->link_form, list_user_id,
					 signer ? link_sign(signer, campaign->id, list_user_id) : NULL);
}

/* Returns the value as it is written within a string of JSON; a blank one stays blank. */
static char *
escaped_for_json(char *value)
{
	StringInfoData quoted;

	if (value[strspn(value, " \t\r\n")] == '\0')
		return value;
	initStringInfo(&quoted);
	escape_json(&quoted, value);
	return pnstrdup(quoted.data + 1, quoted.len - 2);
}

/* Converts the values to UTF-8, and for a content template to JSON, in place. */
static void
convert_values(const Campaign *campaign, char **values)
{
	for (int i = 0; i < template_num_keys(campaign->template); i++)
	{
		if (values[i])
			values[i] = to_utf8(values[i]);
		if (values[i] && campaign->text.content_sid)
			values[i] = escaped_for_json(values[i]);
	}
}

char *
campaign_render(const Campaign *campaign, char **values, const char *link, const char **missing)
{
	char *text;

	if (values)
		convert_values(campaign, values);
	text = template_render(campaign->template, (const char *const *) values, link, missing);
	if (text == NULL)
		*missing = from_utf8(*missing);
	else if (link && !template_has_link(campaign->template))
		text = text[0] ? psprintf("%s %s", text, link) : pstrdup(link);
	return text;
}

bool
campaign_count_segments(const Campaign *campaign, const char *sender, const char *text,
						SegmentCount *count)
{
	if (campaign->text.content_sid || campaign->text.num_media > 0 || is_whatsapp(sender))
	{
		*count = (SegmentCount){.segments = 1};
		return false;
	}
	count_segments(campaign->group->smart_encoded ? smart_encoded(text) : text, count);
	return true;
}

char *
campaign_text(const Campaign *campaign, int64 list_user_id)
{
	const char *missing;
	char *text = campaign_render(campaign, NULL, campaign_link(campaign, list_user_id), &missing);

	return text ? text : to_utf8(campaign->text.message);
}
