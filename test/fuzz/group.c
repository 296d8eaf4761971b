/*
 * group.c
 *		The configuration of a group: each part is a column of what is read of
 *		it, and the first one's bits say which are null.
 */
#include "fuzz.h"

#include <math.h>

#include "../../src/campaign.h"
#include "../../src/group.h"
#include "../../src/own.h"
#include "../../src/settings.h"
#include "miscadmin.h"
#include "pgtime.h"

#define MAX_NUMBERS 4

double sendcampaign_messages_per_second = 0;

static const char *input;
static size_t	   input_size;

void
tables_read_group(AppTables *tables, int64 campaign_id, int64 list_id)
{
}

bool
spi_isnull(uint64 row, int column)
{
	return column < input_size && (input[column / 6] >> column % 6) & 1;
}

char *
spi_string(uint64 row, int column)
{
	return spi_isnull(row, column) ? NULL : fuzz_part(input, input_size, column);
}

bool
spi_bool(uint64 row, int column)
{
	return spi_string(row, column) != NULL;
}

int64
spi_int64(uint64 row, int column)
{
	char *text = spi_string(row, column);

	return text ? atoll(text) : 0;
}

TimestampTz
spi_timestamptz(uint64 row, int column)
{
	return spi_int64(row, column);
}

/* Parts of a part, by commas; "-" is a null. */
char **
spi_nullable_strings(uint64 row, int column, int *count)
{
	char  *text = spi_string(row, column);
	char **strings = palloc(MAX_NUMBERS * sizeof(char *));

	for (*count = 0; text && *count < MAX_NUMBERS; (*count)++)
	{
		char *string = strsep(&text, ",");

		strings[*count] = strcmp(string, "-") == 0 ? NULL : string;
	}
	return strings;
}

char **
spi_strings(uint64 row, int column, int *count)
{
	int	   all;
	char **strings = spi_nullable_strings(row, column, &all);

	*count = 0;
	for (int i = 0; i < all; i++)
	{
		if (strings[i])
			strings[(*count)++] = strings[i];
	}
	return strings;
}

/* A server would look into the time zone database. */
pg_tz *
pg_tzset(const char *name)
{
	static int zone;

	promise(name[0] != '\0');
	return strchr(name, '!') ? NULL : (pg_tz *) &zone;
}

void
fail_campaign_is_gone(const AppTables *tables, int64 campaign_id)
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
}

void
fuzz_one(const char *data, size_t size)
{
	AppTables tables = {.schema = "public"};

	input = data;
	input_size = size;
	check(read_group(&tables, 1, 1));
}
