/*-------------------------------------------------------------------------
 *
 * campaign.c
 *	  What a campaign sends, and to which list.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/campaign.h"
#include "campaign/render.h"
#include "database/columns.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"

/* Returns the text in the server's encoding, palloc'd, or the text itself. */
static char *
from_utf8(const char *text)
{
	return pg_any_to_server(text, strlen(text), PG_UTF8);
}

/*
 * Twilio accepts UTF-8 only.  A database in SQL_ASCII can contain any bytes,
 * and casts and functions that do not check them can put invalid texts into
 * others.
 */
static void
check_encoding(const Campaign *campaign, const char *text, const char *key)
{
	int encoding = GetDatabaseEncoding() == PG_SQL_ASCII ? PG_UTF8 : GetDatabaseEncoding();
	int length = text ? pg_encoding_verifymbstr(encoding, text, strlen(text)) : 0;

	if (text && length < strlen(text))
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("\"%s\" of campaign %lld is not valid %s",
						key, (long long) campaign->id, pg_encoding_to_char(encoding)),
				 errdetail("Byte %d of it, 0x%02x, is not part of a character.",
						   length + 1, (unsigned char) text[length]),
				 errhint("Enter the text again.")));
}

/* Enough of a text to show a position in it. */
#define EXCERPT_BYTES 40

/* Returns the beginning of a text in UTF-8, palloc'd. */
static char *
excerpt(const char *text)
{
	int length = pg_encoding_mbcliplen(PG_UTF8, text, strlen(text), EXCERPT_BYTES);

	return psprintf("%.*s%s", length, text, text[length] ? "..." : "");
}

/* Returns the number of characters in a text in UTF-8 before a position. */
static int
characters_before(const char *text, const char *end)
{
	int count = 0;

	for (; text < end; text += pg_utf_mblen((const unsigned char *) text))
		count++;
	return count;
}

/* Recipients would read what looks like a placeholder but is none. */
static void
check_placeholders(const Campaign *campaign)
{
	const char *text = template_text(campaign->template);
	const char *problem = template_problem(campaign->template);

	if (problem == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the message of campaign %lld has, at character %d, a \"%.2s\" that belongs to"
					" no placeholder",
					(long long) campaign->id, characters_before(text, problem) + 1, problem),
			 errdetail("The text from there on is \"%s\".", from_utf8(excerpt(problem))),
			 errhint("A placeholder is {{key}} or {{key|default}}. Write {{\"{{\"}} and {{\"}}\"}}"
					 " for the braces themselves.")));
}

#define MAX_KEYS 2000

/* Checks the length of a text that is kept for the whole run. */
static void
check_length(const Campaign *campaign, const char *key, const char *text)
{
	if (text && pg_mbstrlen(text) > MAX_TEXT)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("\"%s\" of campaign %lld has more than %d characters",
						key, (long long) campaign->id, MAX_TEXT),
				 errhint("Shorten it. Twilio accepts messages of up to 1600 characters.")));
}

/* Each key is an expression in the statement that reads recipients. */
static void
check_keys(const Campaign *campaign)
{
	if (template_num_keys(campaign->template) > MAX_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the message of campaign %lld has more than %d different keys",
						(long long) campaign->id, MAX_KEYS),
				 errhint("Use fewer placeholders.")));
}

pg_noreturn static void fail_no_message(const Campaign *campaign);

static void
fail_no_message(const Campaign *campaign)
{
	const char *column = column_for(campaign->tables->campaigns, "message");

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("campaign %lld has no message", (long long) campaign->id),
			 column
				? errhint("Write its text into the column \"%s\".", column)
				: errhint("Write its text into the column \"data\", as the value of the key"
						  " \"message\".")));
}

void
campaign_read(Campaign *campaign)
{
	CampaignRow row;

	if (!tables_read_campaign(campaign->tables, campaign->id, &row))
		tables_fail_no_campaign(campaign->tables, campaign->id);
	if (!row.has_list)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("campaign %lld has no list", (long long) campaign->id),
				 errhint("Set its \"ac_list_id\" to the id of a row in \"%s.ac_lists\".",
						 campaign->tables->schema)));
	if (row.message == NULL || row.message[strspn(row.message, " \t\r\n")] == '\0')
		fail_no_message(campaign);
	campaign->list_id = row.list_id;
	check_encoding(campaign, row.message, "message");
	check_encoding(campaign, row.base_url, "baseUrl");
	check_length(campaign, "message", row.message);
	check_length(campaign, "baseUrl", row.base_url);
	campaign_set_message(campaign, row.message, row.base_url);
	check_placeholders(campaign);
	check_keys(campaign);
}

void
campaign_set_message(Campaign *campaign, const char *message, const char *base_url)
{
	List *keys = NIL;

	campaign->message = pstrdup(message);
	campaign->base_url = base_url && base_url[0] ? pstrdup(base_url) : NULL;
	/* in UTF-8, as it is also compared with texts in Twilio's list */
	campaign->template = template_parse(to_utf8(campaign->message));
	campaign->link_form = link_form(campaign->base_url ? to_utf8(campaign->base_url) : NULL,
									campaign->id);
	for (int i = 0; i < template_num_keys(campaign->template); i++)
		keys = lappend(keys, from_utf8(template_key(campaign->template, i)));
	if (campaign->tables)
		tables_want_keys(campaign->tables, keys);
}

char *
campaign_link(const Campaign *campaign, int64 list_user_id)
{
	return link_make(campaign->link_form, list_user_id);
}

/* Converts the values to UTF-8, in place. */
static void
values_to_utf8(const Template *template, char **values)
{
	for (int i = 0; i < template_num_keys(template); i++)
	{
		if (values[i])
			values[i] = to_utf8(values[i]);
	}
}

char *
campaign_render(const Campaign *campaign, char **values, const char *link, const char **missing)
{
	char *text;

	if (values)
		values_to_utf8(campaign->template, values);
	text = template_render(campaign->template, (const char *const *) values, link, missing);
	if (text == NULL)
		*missing = from_utf8(*missing);
	else if (link && !template_has_link(campaign->template))
		text = psprintf("%s %s", text, link);
	return text;
}

char *
campaign_text(const Campaign *campaign, int64 list_user_id)
{
	const char *missing;
	char *text = campaign_render(campaign, NULL, campaign_link(campaign, list_user_id), &missing);

	return text ? text : to_utf8(campaign->message);
}
