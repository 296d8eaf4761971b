/*
 * group.c
 *		A group's configuration: each part is a column of what is read of it,
 *		and the bits of the first bytes say which are null.
 */
#include "fuzz.h"

#include <math.h>

#include "../../src/campaign/campaign.h"
#include "../../src/campaign/group.h"
#include "../../src/database/own_tables.h"
#include "../../src/settings.h"
#include "miscadmin.h"
#include "pgtime.h"

#define MAX_NUMBERS 4

double sendcampaign_segments_per_second = 0;
char  *sendcampaign_api_url = "https://api.twilio.com";

double
rate_here(double rate)
{
	return rate;
}

static const char *input;
static size_t	   input_size;

static char *
part(int column)
{
	if (column < input_size && (input[column / 6] >> column % 6) & 1)
		return NULL;
	return fuzz_part(input, input_size, column);
}

static int64
number(int column)
{
	char *text = part(column);

	return text ? atoll(text) : 0;
}

/* Splits a part at commas; "-" is none. */
static char **
numbers(char *text, int *count)
{
	char **strings = palloc(MAX_NUMBERS * sizeof(char *));

	*count = 0;
	for (int i = 0; text && i < MAX_NUMBERS; i++)
	{
		char *string = strsep(&text, ",");

		if (strcmp(string, "-") != 0)
			strings[(*count)++] = string;
	}
	return strings;
}

Datum
array_of_ids(const int64 *ids, int count)
{
	return (Datum) 0;
}

GroupRow *
tables_read_groups(AppTables *tables, Datum campaign_ids, Datum list_ids, MemoryContext *contexts,
				   int count)
{
	GroupRow *row = palloc(sizeof(GroupRow));

	promise(count == 1);
	*row = (GroupRow){.campaign_exists = part(1) != NULL,
					  .campaign_deleted = part(2) != NULL,
					  .list_exists = part(3) != NULL,
					  .list_deleted = part(4) != NULL,
					  .group_exists = part(5) != NULL,
					  .group_deleted = part(6) != NULL,
					  .group_id = number(5),
					  .has_end = part(17) != NULL,
					  .send_until = number(17)};
	/* the end of sending is between the first ten keys and later ones */
	for (int key = 0; key < NUM_GROUP_KEYS; key++)
		row->values[key] =
			key == NUMBERS || key >= STOP_WORDS ? NULL : part((key < REGION ? 7 : 8) + key);
	row->numbers = numbers(part(7 + NUMBERS), &row->num_numbers);
	row->stop_words = numbers(part(8 + STOP_WORDS), &row->num_stop_words);
	row->start_words = numbers(part(8 + START_WORDS), &row->num_start_words);
	return row;
}

/* A server would look in the time zone database. */
pg_tz *
pg_tzset(const char *name)
{
	static int zone;

	promise(name[0] != '\0');
	return strchr(name, '!') ? NULL : (pg_tz *) &zone;
}

void
tables_fail_no_campaign(const AppTables *tables, int64 campaign_id)
{
	ereport(ERROR, (errmsg("campaign %lld no longer exists", (long long) campaign_id)));
}

Oid
GetUserId(void)
{
	return 10;
}

char *
GetUserNameFromId(Oid role, bool noerr)
{
	return pstrdup("role");
}

static void
check(const GroupConfig *group)
{
	promise(group->account_sid && group->account_sid[0] && group->user && group->secret);
	promise(group->num_senders > 0);
	for (int i = 0; i < group->num_senders; i++)
		promise(group->senders[i] != NULL && group->senders[i][0] != '\0');
	promise(isfinite(group->rate) && group->rate >= 0);
	promise(group->quiet_hours.from >= 0 && group->quiet_hours.from < SECS_PER_DAY);
	promise(group->quiet_hours.to >= 0 && group->quiet_hours.to < SECS_PER_DAY);
	promise(group->time_zone != NULL);
	promise(strncmp(group->account, group->account_sid, strlen(group->account_sid)) == 0);
	if (group->api_host)
		promise(strspn(group->api_host, "abcdefghijklmnopqrstuvwxyz0123456789-.") ==
				strlen(group->api_host));
	promise(group->status_callback == NULL || strncasecmp(group->status_callback, "https://", 8) == 0);
	promise(group->inbound_url != NULL || group->status_callback == NULL);
	for (int i = 0; i < group->stop_words.num_stop; i++)
		promise(group->stop_words.stop[i][0] != '\0');
}

void
fuzz_one(const char *data, size_t size)
{
	AppTables tables = {.schema = "public"};

	input = data;
	input_size = size;
	check(read_group(&tables, 1, 1));
}
