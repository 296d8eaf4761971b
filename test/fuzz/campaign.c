/*
 * campaign.c
 *		What a campaign sends.  Parts: message, base URL, two URLs of media, SID
 *		of a content template, two of its variables, values.
 */
#include "fuzz.h"

#include "../../src/campaign/campaign.h"
#include "../../src/database/columns.h"
#include "../../src/twilio/json.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#define NUM_VARIABLES 2
#define FIRST_VALUE	  7
#define MAX_VALUES	  8

static const char *input;
static size_t	   input_size;

static char *
part(int n)
{
	return fuzz_part(input, input_size, n);
}

/* As the server's function does. */
void
escape_json(StringInfo buf, const char *text)
{
	appendStringInfoChar(buf, '"');
	for (; *text; text++)
	{
		if (*text == '"' || *text == '\\')
			appendStringInfo(buf, "\\%c", *text);
		else if ((unsigned char) *text < ' ')
			appendStringInfo(buf, "\\u%04x", *text);
		else
			appendStringInfoChar(buf, *text);
	}
	appendStringInfoChar(buf, '"');
}

/* Returns the variables as jsonb shows them; NULL if there are none. */
static char *
variables(void)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int i = 0; i < NUM_VARIABLES && part(5 + i); i++)
	{
		appendStringInfo(&json, "%s\"%d\": ", i == 0 ? "{" : ", ", i);
		escape_json(&json, part(5 + i));
	}
	if (json.len == 0)
		return NULL;
	appendStringInfoChar(&json, '}');
	return json.data;
}

Datum
make_array(Datum *values, bool *nulls, int count, Oid type)
{
	return (Datum) 0;
}

CampaignRow *
tables_read_campaigns(AppTables *tables, Datum ids, int count)
{
	CampaignRow *row = palloc(sizeof(CampaignRow));

	promise(count == 1);
	*row = (CampaignRow){.exists = true,
						 .message = part(0),
						 .base_url = part(1),
						 .content_sid = part(4),
						 .content_variables = variables(),
						 .variables_are_texts = true,
						 .has_list = true};
	row->media_urls = palloc(2 * sizeof(char *));
	while (row->num_media < 2 && part(2 + row->num_media) && part(2 + row->num_media)[0])
	{
		row->media_urls[row->num_media] = part(2 + row->num_media);
		row->num_media++;
	}
	return row;
}

void
tables_fail_no_campaign(const AppTables *tables, int64 campaign_id)
{
	promise(false);
	abort();
}

const char *
column_for(Oid table, const char *key)
{
	return NULL;
}

List *
lappend(List *list, void *datum)
{
	return NIL;
}

char *
pg_any_to_server(const char *text, int length, int encoding)
{
	return unconstify(char *, text);
}

int
pg_mbstrlen(const char *text)
{
	return strlen(text);
}

int
pg_encoding_mbcliplen(int encoding, const char *text, int length, int limit)
{
	return pg_mbcliplen(text, length, limit);
}

char *
to_utf8(char *text)
{
	return text;
}

/* The variables that Twilio reads. */
typedef struct Read
{
	char *values[NUM_VARIABLES];
	int	  count;
} Read;

static void
read_member(void *arg, int depth, const char *key, const char *value)
{
	Read *read = arg;

	promise(depth == 1 && strlen(key) == 1 && value != NULL);
	promise(key[0] - '0' == read->count && read->count < NUM_VARIABLES);
	read->values[read->count++] = pstrdup(value);
}

/* Returns the value of a placeholder: those of the campaign's keys are parts. */
static char *
value_of(const Campaign *campaign, const char *key)
{
	for (int i = 0; i < template_num_keys(campaign->template); i++)
	{
		if (i < MAX_VALUES && strcmp(template_key(campaign->template, i), key) == 0)
			return part(FIRST_VALUE + i);
	}
	return NULL;
}

/* Returns what a variable is as a text of its own; NULL if a value is missing. */
static char *
render_alone(const Campaign *campaign, const char *variable, const char *link)
{
	Template	*alone = template_parse(variable);
	const char **values = palloc0((template_num_keys(alone) + 1) * sizeof(char *));
	const char	*missing;

	for (int i = 0; i < template_num_keys(alone); i++)
		values[i] = value_of(campaign, template_key(alone, i));
	return template_render(alone, values, link, &missing);
}

/* Twilio reads what each variable would be as a text of its own. */
static void
check_variables(const Campaign *campaign, const char *text, const char *link)
{
	Read read = {.count = 0};

	if (pg_encoding_verifymbstr(PG_UTF8, text, strlen(text)) != strlen(text))
		return;
	promise(json_scan(text, strlen(text), read_member, NULL, &read));
	for (int i = 0; i < read.count; i++)
	{
		/* around keys and defaults, JSON has no line ends and tabs to be ignored */
		if (strpbrk(part(5 + i), "\t\r\n"))
			return;
	}
	for (int i = 0; i < read.count; i++)
	{
		char *expected = render_alone(campaign, part(5 + i), link);

		if (expected)
			promise(strcmp(read.values[i], expected) == 0);
	}
}

static void
check_media(const Campaign *campaign)
{
	for (int i = 0; i < campaign->text.num_media; i++)
	{
		const char *url = campaign->media_urls[i];

		promise(pg_strncasecmp(url, "https://", 8) == 0 && url[8] != '/' && url[8] != '\0');
		promise(strpbrk(url, " \t\r\n") == NULL);
	}
}

void
fuzz_one(const char *data, size_t size)
{
	AppTables	tables = {.schema = "public"};
	Campaign	campaign = {.id = 1, .tables = &tables};
	char	   *values[MAX_VALUES + 1] = {NULL};
	const char *missing;
	char	   *link;
	char	   *text;

	input = data;
	input_size = size;
	campaign_read(&campaign);
	if (template_num_keys(campaign.template) > MAX_VALUES)
		return;
	check_media(&campaign);
	for (int i = 0; i < template_num_keys(campaign.template); i++)
		values[i] = part(FIRST_VALUE + i);
	link = campaign_link(&campaign, 7);
	text = campaign_render(&campaign, values, link, &missing);
	promise((text == NULL) == (missing != NULL));
	if (text == NULL)
		return;
	promise(link == NULL || strstr(text, link) != NULL);
	promise(text[0] != '\0' || campaign.text.num_media > 0 || link == NULL);
	if (campaign.text.content_sid)
		check_variables(&campaign, text, link);
}
