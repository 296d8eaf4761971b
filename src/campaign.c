/*-------------------------------------------------------------------------
 *
 * campaign.c
 *	  What a campaign sends, and to which list.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign.h"
#include "nodes/pg_list.h"
#include "own.h"
#include "render.h"

void
campaign_read(Campaign *campaign)
{
	char		 *message;
	MemoryContext context = CurrentMemoryContext;

	if (tables_read_campaign(campaign->tables, campaign->id) == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg("campaign %lld no longer exists", (long long) campaign->id)));
	if (spi_isnull(0, 3))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("campaign %lld has no list", (long long) campaign->id)));
	message = spi_string(0, 1);
	if (message == NULL || message[strspn(message, " \t\r\n")] == '\0')
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("campaign %lld has no message", (long long) campaign->id)));
	MemoryContextSwitchTo(context); /* SPI leaves us in its own */
	campaign->list_id = spi_int64(0, 3);
	campaign_set_message(campaign, message, spi_string(0, 2));
}

void
campaign_set_message(Campaign *campaign, const char *message, const char *base_url)
{
	List *keys = NIL;

	campaign->message = pstrdup(message);
	campaign->base_url = base_url && base_url[0] ? pstrdup(base_url) : NULL;
	campaign->template = template_parse(message);
	for (int i = 0; i < template_num_keys(campaign->template); i++)
		keys = lappend(keys, (void *) template_key(campaign->template, i));
	if (campaign->tables)
		tables_want_keys(campaign->tables, keys);
}

char *
campaign_link(const Campaign *campaign, int64 list_user_id)
{
	char *link = render_link(campaign->base_url, list_user_id, campaign->id);

	return link ? to_utf8(link) : NULL;
}

char *
campaign_render(const Campaign *campaign, int64 list_user_id, char **values, const char **missing)
{
	char *link = render_link(campaign->base_url, list_user_id, campaign->id);
	char *text = template_render(campaign->template, (const char *const *) values, link, missing);

	if (text && link && !template_has_link(campaign->template))
		text = psprintf("%s %s", text, link);
	return text ? to_utf8(text) : NULL;
}

char *
campaign_text(const Campaign *campaign, int64 list_user_id)
{
	const char *missing;

	return campaign_render(campaign, list_user_id, NULL, &missing);
}
