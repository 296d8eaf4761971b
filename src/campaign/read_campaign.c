/*-------------------------------------------------------------------------
 *
 * read_campaign.c
 *	  Reads a campaign's list and text, and checks them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/campaign.h"
#include "catalog/pg_type.h"
#include "database/columns.h"
#include "mb/pg_wchar.h"
#include "twilio/request.h"

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

/* Returns the beginning of a text in UTF-8, in the server's encoding, palloc'd. */
static char *
excerpt(const char *text)
{
	int	  length = pg_encoding_mbcliplen(PG_UTF8, text, strlen(text), EXCERPT_BYTES);
	char *beginning = psprintf("%.*s%s", length, text, text[length] ? "..." : "");

	return pg_any_to_server(beginning, strlen(beginning), PG_UTF8);
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
			 errdetail("The text from there on is \"%s\".", excerpt(problem)),
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

static bool
is_blank(const char *text)
{
	return text == NULL || text[strspn(text, " \t\r\n")] == '\0';
}

/* Twilio fetches media, so their addresses are not ours to reach; they must only be URLs. */
static bool
is_media_url(const char *url)
{
	static const char scheme[] = "https://";

	if (url == NULL || pg_strncasecmp(url, scheme, strlen(scheme)) != 0)
		return false;
	for (const char *c = url; *c; c++)
	{
		if ((unsigned char) *c <= ' ' || *c == 0x7f)
			return false;
	}
	url += strlen(scheme);
	return strcspn(url, "/?#") > 0;
}

static void
check_media(const Campaign *campaign, const CampaignRow *row)
{
	if (row->num_media > MAX_MEDIA)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("\"mediaUrl\" of campaign %lld has more than %d URLs",
						(long long) campaign->id, MAX_MEDIA),
				 errhint("Twilio accepts no more in one message.")));
	for (int i = 0; i < row->num_media; i++)
	{
		check_encoding(campaign, row->media_urls[i], "mediaUrl");
		check_length(campaign, "mediaUrl", row->media_urls[i]);
		if (!is_media_url(row->media_urls[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for \"mediaUrl\" of campaign %lld",
							(long long) campaign->id),
					 errdetail("URL %d of %d cannot be used.", i + 1, row->num_media),
					 errhint("Write an https: URL from which Twilio can fetch the media, or an"
							 " array of such URLs.")));
	}
}

/* Twilio's are "HX" and 32 hexadecimal digits. */
static bool
is_content_sid(const char *sid)
{
	return strncmp(sid, "HX", 2) == 0 && strlen(sid) == 34 &&
		   strspn(sid + 2, "0123456789abcdefABCDEF") == 32;
}

static void
check_content(const Campaign *campaign, const CampaignRow *row)
{
	if (!is_content_sid(row->content_sid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"contentSid\" of campaign %lld",
						(long long) campaign->id),
				 errhint("Write the SID of a content template, which is HX and 32 hexadecimal"
						 " digits.")));
	if (!row->variables_are_texts)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"contentVariables\" of campaign %lld",
						(long long) campaign->id),
				 errhint("Write an object whose values are texts, such as"
						 " {\"1\": \"{{name}}\", \"2\": \"{{link}}\"}.")));
	if (row->num_media > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("campaign %lld has both \"contentSid\" and \"mediaUrl\"",
						(long long) campaign->id),
				 errhint("Put the media into the content template.")));
	/* it becomes part of a string in JSON, where it is looked for as well */
	if (row->base_url && strpbrk(row->base_url, "\"\\\t\r\n"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"baseUrl\" of campaign %lld is not a URL", (long long) campaign->id),
				 errhint("Remove quotation marks, backslashes and line ends from it.")));
}

/* Replaces all occurrences in place; the new text is the shorter one. */
static void
replace_all(char *text, const char *old, const char *new)
{
	while ((text = strstr(text, old)) != NULL)
	{
		memcpy(text, new, strlen(new));
		text += strlen(new);
		memmove(text, text + strlen(old) - strlen(new),
				strlen(text + strlen(old) - strlen(new)) + 1);
	}
}

/*
 * JSON has escaped the quotation marks in literal braces, {{"{{"}}.  They are
 * put back, in place.
 */
static void
restore_braces(char *json)
{
	replace_all(json, "{{\\\"{{\\\"}}", "{{\"{{\"}}");
	replace_all(json, "{{\\\"}}\\\"}}", "{{\"}}\"}}");
}

/* Returns the length of a string in JSON, up to its closing quotation mark. */
static size_t
length_of_string(const char *json)
{
	size_t length = 0;

	while (json[length] && json[length] != '"')
		length += json[length] == '\\' && json[length + 1] ? 2 : 1;
	return length;
}

/*
 * Tells whether a string in JSON has placeholders that end in it, and keys in
 * which JSON has escaped nothing.
 */
static bool
has_good_placeholders(char *string)
{
	Template *template;

	restore_braces(string);
	template = template_parse(string);
	for (int i = 0; i < template_num_keys(template); i++)
	{
		if (strpbrk(template_key(template, i), "\"\\"))
			return false;
	}
	return template_problem(template) == NULL;
}

static void
check_strings(const Campaign *campaign, const char *json)
{
	while ((json = strchr(json, '"')) != NULL)
	{
		size_t length = length_of_string(++json);

		if (!has_good_placeholders(pnstrdup(json, length)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"contentVariables\" of campaign %lld have a placeholder that is not"
							" closed, or whose key has a quotation mark or a backslash",
							(long long) campaign->id),
					 errhint("Close each placeholder with }} in the same variable, and use other"
							 " keys.")));
		json += length;
		json += *json == '"';
	}
}

/*
 * The variables of a content template are an object in JSON.  Each is a text
 * with placeholders, and so they are together.
 */
static char *
text_of_variables(const Campaign *campaign, char *json)
{
	if (json == NULL)
		return pstrdup("{}");
	check_strings(campaign, json);
	restore_braces(json);
	return json;
}

/* Returns the text to be sent; of a content template, its variables. */
static char *
text_of_row(const Campaign *campaign, const CampaignRow *row)
{
	if (row->content_sid)
		return text_of_variables(campaign, row->content_variables);
	if (!is_blank(row->message))
		return row->message;
	if (row->num_media == 0)
		fail_no_message(campaign);
	return pstrdup("");
}

static void
check_row(const Campaign *campaign, CampaignRow *row)
{
	if (!row->has_list)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("campaign %lld has no list", (long long) campaign->id),
				 errhint("Set its \"ac_list_id\" to the id of a row in \"%s.ac_lists\".",
						 campaign->tables->schema)));
	if (is_blank(row->content_sid))
		row->content_sid = NULL;
	check_media(campaign, row);
	if (row->content_sid)
		check_content(campaign, row);
	check_encoding(campaign, row->base_url, "baseUrl");
	check_length(campaign, "baseUrl", row->base_url);
}

void
campaign_take_row(Campaign *campaign, CampaignRow *row)
{
	CampaignText text;
	const char	*key;

	if (!row->exists)
		tables_fail_no_campaign(campaign->tables, campaign->id);
	check_row(campaign, row);
	text = (CampaignText){.message = text_of_row(campaign, row),
						  .base_url = row->base_url,
						  .media_urls = row->media_urls,
						  .num_media = row->num_media,
						  .content_sid = row->content_sid};
	key = row->content_sid ? "contentVariables" : "message";
	campaign->list_id = campaign->query_list ? campaign->query_list : row->list_id;
	check_encoding(campaign, text.message, key);
	check_length(campaign, key, text.message);
	campaign_set_text(campaign, &text);
	check_placeholders(campaign);
	check_keys(campaign);
}

void
campaign_read(Campaign *campaign)
{
	Datum id = Int64GetDatum(campaign->id);

	campaign_take_row(
		campaign, tables_read_campaigns(campaign->tables, make_array(&id, NULL, 1, INT8OID), 1));
}
