/*-------------------------------------------------------------------------
 *
 * group.c
 *	  What a campaign's group configures: account, senders, rate, quiet hours.
 *
 * The worker reads it again for each claim, so that changes apply from then
 * on, and nothing more is sent once the campaign is gone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/group.h"
#include "campaign/phone.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/palloc.h"

#define BLANKS " \t\r\n"

/* Length of a value, in bytes, and number of senders. */
#define MAX_LENGTH 1000

/* Trims blanks off both ends, in place; returns NULL if nothing is left. */
static char *
trim(char *value)
{
	char *end;

	if (value == NULL)
		return NULL;
	value += strspn(value, BLANKS);
	for (end = value + strlen(value); end > value && strchr(BLANKS, end[-1]); end--)
		end[-1] = '\0';
	return value[0] ? value : NULL;
}

/* The keys' names, for people. */
static const char *const keys[] = {
	[ACCOUNT_SID] = "twilioAccountSid",
	[AUTH_TOKEN] = "twilioAuthToken",
	[API_KEY_SID] = "twilioApiKeySid",
	[API_KEY_SECRET] = "twilioApiKeySecret",
	[NUMBERS] = "twilioFromSmsNumber",
	[MESSAGING_SERVICE_SID] = "twilioMessagingServiceSid",
	[SEGMENTS_PER_SECOND] = "twilioSegmentsPerSecond",
	[QUIET_FROM] = "quietHours",
	[QUIET_TO] = "quietHours",
	[TIME_ZONE] = "timeZone",
};

/* The configuration is kept as long as the worker lives. */
static void
check_length(const char *value, GroupKey key)
{
	if (value && strlen(value) > MAX_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("the group's configuration has a value of more than %d bytes", MAX_LENGTH),
				 errhint("Shorten \"%s\".", keys[key])));
}

static char *
trimmed(const GroupRow *row, GroupKey key)
{
	char *value = trim(row->values[key]);

	check_length(value, key);
	return value;
}

static void
missing_configuration(int64 list_id, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg_internal("%s", message),
			 errdetail("This is the group of list %lld.", (long long) list_id),
			 errhint("Add what is missing to the group's \"private_access_configuration\" or"
					 " \"configuration\", and make sure that the sending role may read it.")));
}

static void
wrong_configuration(const char *key, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for \"%s\" in the group's configuration: \"%s\"", key, value),
			 errhint("%s", hint)));
}

/* The application keeps deleted rows, and marks them. */
static void
fail_deleted(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg_internal("%s", message),
			 errdetail("The application has marked it as deleted."),
			 errhint("Remove that mark if the campaign is to be sent.")));
}

static void
check_existence(const AppTables *tables, const GroupRow *row, int64 campaign_id, int64 list_id)
{
	if (!row->campaign_exists)
		tables_fail_no_campaign(tables, campaign_id);
	if (!row->list_exists)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("list %lld does not exist", (long long) list_id),
				 errdetail("It is the list of campaign %lld.", (long long) campaign_id),
				 errhint("Check that it is in \"%s.ac_lists\" and that role \"%s\" may see it.",
						 tables->schema, GetUserNameFromId(GetUserId(), false))));
	if (row->campaign_deleted)
		fail_deleted(psprintf("campaign %lld is deleted", (long long) campaign_id));
	if (row->list_deleted)
		fail_deleted(psprintf("list %lld is deleted", (long long) list_id));
	if (!row->group_exists)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("list %lld has no group", (long long) list_id),
				 errdetail("Its \"group_id\" names no row of \"%s.groups\" that role \"%s\" may"
						   " see.",
						   tables->schema, GetUserNameFromId(GetUserId(), false)),
				 errhint("Set it to the id of the group whose configuration has the Twilio"
						 " account.")));
	if (row->group_deleted)
		fail_deleted(psprintf("group %lld is deleted", (long long) row->group_id));
}

static void
read_account(GroupConfig *group, const GroupRow *row, int64 list_id)
{
	group->account_sid = trimmed(row, ACCOUNT_SID);
	if (group->account_sid == NULL)
		missing_configuration(list_id, "the group's configuration has no \"twilioAccountSid\"");
	group->user = group->account_sid;
	group->secret = trimmed(row, AUTH_TOKEN);
	if (group->secret == NULL)
	{
		group->user = trimmed(row, API_KEY_SID);
		group->secret = trimmed(row, API_KEY_SECRET);
	}
	if (group->user == NULL || group->secret == NULL)
		missing_configuration(list_id,
							  "the group's configuration has neither \"twilioAuthToken\" nor both"
							  " \"twilioApiKeySid\" and \"twilioApiKeySecret\"");
}

/* Reads the numbers, or else the messaging service.  Phone numbers are put into E.164. */
static void
read_senders(GroupConfig *group, const GroupRow *row, int64 list_id)
{
	int	  count = row->num_numbers;
	char *service = trimmed(row, MESSAGING_SERVICE_SID);

	if (count > MAX_SENDERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the group's \"twilioFromSmsNumber\" has more than %d numbers",
						MAX_SENDERS),
				 errhint("Add them to a Twilio Messaging Service and put its SID into"
						 " \"twilioMessagingServiceSid\" instead.")));
	group->senders = palloc((count + 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
	{
		char *name = trim(row->numbers[i]);
		char *e164 = name ? normalize_phone(name) : NULL;

		check_length(name, NUMBERS);
		if (name)
			group->senders[group->num_senders++] = e164 ? e164 : name;
	}
	if (group->num_senders == 0 && service)
		group->senders[group->num_senders++] = service;
	if (group->num_senders == 0)
		missing_configuration(list_id,
							  "the group's configuration has neither \"twilioFromSmsNumber\" nor"
							  " \"twilioMessagingServiceSid\"");
}

static void
read_rate(GroupConfig *group, const GroupRow *row)
{
	char *text = trimmed(row, SEGMENTS_PER_SECOND);
	char *end;

	group->rate = sendcampaign_segments_per_second;
	if (text == NULL)
		return;
	errno = 0;
	group->rate = strtod(text, &end);
	/* strtod() accepts 1e-400 as 0, and hexadecimal numbers as well */
	if (errno != 0 || text[strspn(text, "0123456789.+-eE")] != '\0' || *end != '\0' ||
		!rate_is_valid(group->rate))
		wrong_configuration(
			"twilioSegmentsPerSecond", text,
			"Set it to the number of segments per second that each sender may send, from"
			" " CppAsString2(MIN_RATE) " to " CppAsString2(MAX_RATE) ", or to 0 for no limit.");
}

#define QUIET_HOURS_HINT "Write it as {\"from\": \"21:00\", \"to\": \"08:00\"}."

/* Returns "21:00" or "21:00:30" as seconds of the day; "24:00" is its end. */
static int
parse_time(const char *text)
{
	int hours;
	int minutes;
	int seconds = 0;
	int length = 0;

	if (sscanf(text, "%2d:%2d%n", &hours, &minutes, &length) < 2)
		length = -1;
	else if (text[length] == ':')
	{
		text += length;
		length = -1;
		(void) sscanf(text, ":%2d%n", &seconds, &length);
	}
	if (length < 0 || text[length] != '\0' || hours < 0 || minutes < 0 || minutes > 59 ||
		seconds < 0 || seconds > 59 || hours * 3600 + minutes * 60 + seconds > SECS_PER_DAY)
		wrong_configuration("quietHours", text, QUIET_HOURS_HINT);
	return hours * 3600 + minutes * 60 + seconds;
}

/* 00:00 to 24:00 must not be taken for no quiet hours: nothing could be sent. */
static void
check_not_always_quiet(int from, int to)
{
	if (from == 0 && to == SECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the group's \"quietHours\" cover the whole day"),
				 errhint("%s", QUIET_HOURS_HINT)));
}

static void
read_quiet_hours(GroupConfig *group, const GroupRow *row)
{
	char *from_text = trimmed(row, QUIET_FROM);
	char *to_text = trimmed(row, QUIET_TO);
	int	  from;
	int	  to;

	if (from_text == NULL && to_text == NULL)
		return;
	from = parse_time(from_text ? from_text : "");
	to = parse_time(to_text ? to_text : "");
	check_not_always_quiet(from, to);
	group->quiet_hours.from = from % SECS_PER_DAY;
	group->quiet_hours.to = to % SECS_PER_DAY;
}

/*
 * As POSIX zones, nearly all names with a digit would be accepted, and "UTC+3"
 * would mean three hours behind UTC.  Such names are rejected, except for
 * those in the time zone database.
 */
static bool
is_zone_name(const char *name)
{
	static const char *const with_digits[] = {"EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT",
											  "GMT0",	 "GMT+0",	"GMT-0"};

	if (strpbrk(name, "0123456789") == NULL)
		return true;
	for (int i = 0; i < lengthof(with_digits); i++)
	{
		if (pg_strcasecmp(name, with_digits[i]) == 0)
			return true;
	}
	return pg_strncasecmp(name, "Etc/GMT", 7) == 0 && strlen(name) <= strlen("Etc/GMT+12");
}

pg_tz *
find_time_zone(char *name)
{
	name = trim(name);
	return name && is_zone_name(name) ? pg_tzset(name) : NULL;
}

static void
read_time_zone(GroupConfig *group, const GroupRow *row)
{
	char *name = trimmed(row, TIME_ZONE);

	group->says_zone = name != NULL;
	group->time_zone = name ? find_time_zone(name) : pg_tzset("UTC");
	if (group->time_zone == NULL)
		wrong_configuration("timeZone", name, "Use one of the names in pg_timezone_names.");
}

/* PostgreSQL detects an invalid time, but does not know whose it is. */
static void
explain_send_until(void *campaign_id)
{
	int code = geterrcode();

	if (code == ERRCODE_INVALID_DATETIME_FORMAT || code == ERRCODE_DATETIME_FIELD_OVERFLOW ||
		code == ERRCODE_INVALID_PARAMETER_VALUE)
		errhint("Write \"sendUntil\" of campaign %lld as a date and time with a time zone,"
				" such as 2027-01-31 20:00+01.",
				(long long) *(int64 *) campaign_id);
}

GroupConfig *
read_group(AppTables *tables, int64 campaign_id, int64 list_id)
{
	GroupConfig			*group = palloc0(sizeof(GroupConfig));
	GroupRow			 row;
	ErrorContextCallback explain = {error_context_stack, explain_send_until, &campaign_id};

	error_context_stack = &explain;
	tables_read_group(tables, campaign_id, list_id, &row);
	error_context_stack = explain.previous;
	check_existence(tables, &row, campaign_id, list_id);
	group->id = row.group_id;
	read_account(group, &row, list_id);
	read_senders(group, &row, list_id);
	read_rate(group, &row);
	read_quiet_hours(group, &row);
	read_time_zone(group, &row);
	/* 0 means none, and any time in the past is equally over */
	if (row.has_end)
		group->send_until = Max(row.send_until, 1);
	return group;
}
