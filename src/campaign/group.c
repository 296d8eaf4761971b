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
#include "campaign/national.h"
#include "campaign/phone.h"
#include "campaign/render.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "settings.h"
#include "twilio/request.h"
#include "utils/palloc.h"

#define BLANKS " \t\r\n"

/* Length of a value, in bytes, and number of senders. */
#define MAX_LENGTH 1000

/* Of a limit of messages, as in MAX_MESSAGES_HINT. */
#define MOST_MESSAGES 1000
#define MOST_DAYS	  365

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
	[REGION] = "twilioRegion",
	[EDGE] = "twilioEdge",
	[SMART_ENCODED] = "twilioSmartEncoded",
	[MAX_MESSAGES] = "maxMessages",
	[MAX_MESSAGES_DAYS] = "maxMessages",
	[STATUS_CALLBACK] = "twilioStatusCallback",
	[INBOUND_URL] = "twilioInboundUrl",
	[COUNTRY_CODE] = "countryCode",
	[SIGN_LINKS] = "signLinks",
	[STOP_WORDS] = "stopWords",
	[START_WORDS] = "startWords",
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

pg_noreturn static void fail_no_group(const AppTables *tables, int64 list_id);

static void
fail_no_group(const AppTables *tables, int64 list_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("list %lld has no group", (long long) list_id),
			 errdetail("Its \"group_id\" names no row of \"%s.groups\" that role \"%s\" may"
					   " see.",
					   tables->schema, GetUserNameFromId(GetUserId(), false)),
			 errhint("Set it to the id of the group whose configuration has the Twilio"
					 " account.")));
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
		fail_no_group(tables, list_id);
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
	group->auth_token = trimmed(row, AUTH_TOKEN);
	group->secret = group->auth_token;
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

#define EDGE_HINT "Use the name of one of Twilio's edges, such as \"dublin\"."

/* The region in which an account is if none is configured. */
static const char home_region[] = "us1";

/*
 * A region without an edge is refused: Twilio has hosts with such names, too,
 * but these lead to us1.
 */
static void
read_region(GroupConfig *group, const GroupRow *row)
{
	char *region = trimmed(row, REGION);
	char *edge = trimmed(row, EDGE);

	group->account = group->account_sid;
	if (region == NULL && edge == NULL)
		return;
	if (region && regional_host("edge", region) == NULL)
		wrong_configuration("twilioRegion", region,
							"Use the name of one of Twilio's regions, such as \"ie1\".");
	if (edge == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the group's configuration has \"twilioRegion\", but no \"twilioEdge\""),
				 errhint(EDGE_HINT)));
	group->api_host = regional_host(edge, region ? region : home_region);
	if (group->api_host == NULL)
		wrong_configuration("twilioEdge", edge, EDGE_HINT);
	if (!api_url_is_twilios())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(REGION_ELSEWHERE),
				 errhint(REGION_ELSEWHERE_HINT)));
	if (region && strcmp(region, home_region) != 0)
		group->account = psprintf("%s@%s", group->account_sid, region);
}

/* Returns a number in E.164; others, such as names, as they are. */
static char *
sender_name(char *name)
{
	char *e164;

	if (pg_strncasecmp(name, WHATSAPP, strlen(WHATSAPP)) == 0)
	{
		e164 = normalize_phone(name + strlen(WHATSAPP));
		if (e164 == NULL)
			wrong_configuration("twilioFromSmsNumber", name,
								"Write a sender of WhatsApp as \"whatsapp:\" and a phone number in"
								" E.164 form.");
		return psprintf(WHATSAPP "%s", e164);
	}
	e164 = normalize_phone(name);
	return e164 ? e164 : name;
}

/* Reads the numbers, or else the messaging service.  Phone numbers are put into E.164. */
static void
read_senders(GroupConfig *group, const GroupRow *row)
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

		check_length(name, NUMBERS);
		if (name)
			group->senders[group->num_senders++] = sender_name(name);
	}
	if (group->num_senders == 0 && service)
		group->senders[group->num_senders++] = service;
}

static void
check_has_sender(const GroupConfig *group, int64 list_id)
{
	if (group->num_senders == 0)
		missing_configuration(list_id,
							  "the group's configuration has neither \"twilioFromSmsNumber\" nor"
							  " \"twilioMessagingServiceSid\"");
}

static double
read_rate(const GroupRow *row)
{
	char  *text = trimmed(row, SEGMENTS_PER_SECOND);
	char  *end;
	double rate;

	if (text == NULL)
		return sendcampaign_segments_per_second;
	errno = 0;
	rate = strtod(text, &end);
	/* strtod() accepts 1e-400 as 0, and hexadecimal numbers as well */
	if (errno != 0 || text[strspn(text, "0123456789.+-eE")] != '\0' || *end != '\0' ||
		!rate_is_valid(rate))
		wrong_configuration(
			"twilioSegmentsPerSecond", text,
			"Set it to the number of segments per second that each sender may send, from"
			" " CppAsString2(MIN_RATE) " to " CppAsString2(MAX_RATE) ", or to 0 for no limit.");
	return rate;
}

/* Returns a value that is true or false. */
static bool
read_flag(const GroupRow *row, GroupKey key)
{
	char *text = trimmed(row, key);
	bool  flag = text && strcmp(text, "true") == 0;

	if (text && !flag && strcmp(text, "false") != 0)
		wrong_configuration(keys[key], text, "Set it to true or false.");
	return flag;
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

#define MAX_MESSAGES_HINT                                                                          \
	"Write it as {\"count\": 2, \"days\": 7}, with a count of up to 1000 and up to 365 days."

/* Returns a whole number from 1 to most. */
static int
parse_limit(const char *text, int most)
{
	int	 number = 0;
	bool valid = text && text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';

	for (const char *c = text; valid && *c; c++)
		number = Min(number * 10 + (*c - '0'), most + 1);
	if (!valid || number < 1 || number > most)
		wrong_configuration("maxMessages", text ? text : "", MAX_MESSAGES_HINT);
	return number;
}

static void
read_limit(GroupConfig *group, const GroupRow *row)
{
	char *messages = trimmed(row, MAX_MESSAGES);
	char *days = trimmed(row, MAX_MESSAGES_DAYS);

	if (messages == NULL && days == NULL)
		return;
	group->limit.messages = parse_limit(messages, MOST_MESSAGES);
	group->limit.days = parse_limit(days, MOST_DAYS);
}

/* Returns NULL for NULL; throws if the country's national numbers are not known. */
static const char *
country_of_code(const char *code)
{
	const char *country = code ? find_country(code) : NULL;

	if (code && country == NULL)
		wrong_configuration("countryCode", code,
							"Write a country code whose national numbers are known, such as"
							" \"+354\"; or remove it, and write phone numbers with a plus sign and"
							" their country code.");
	return country;
}

#define CALLBACK_HINT                                                                              \
	"Write it as an absolute URL with https, without a user name, with a host name that Twilio"    \
	" accepts, which has no underscore."

/* As Twilio does, which refuses others with error 21609; but https is required. */
static bool
is_callback_url(const char *url)
{
	const char *host = url + strlen("https://");
	int			host_length;

	if (pg_strncasecmp(url, "https://", strlen("https://")) != 0)
		return false;
	for (const char *c = url; *c; c++)
	{
		if (*c <= ' ' || *c > '~')
			return false;
	}
	host_length = strcspn(host, "/?#");
	return host_length > 0 && host[0] != ':' &&
		   strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:[]") >=
			   host_length;
}

static char *
read_callback(const GroupRow *row, GroupKey key)
{
	char *url = trimmed(row, key);

	if (url && !is_callback_url(url))
		wrong_configuration(keys[key], url, CALLBACK_HINT);
	return url;
}

/* Adds the word, folded, unless it is blank; returns by how much the number increases. */
static int
read_word(GroupKey key, char *word, char **folded)
{
	check_length(word, key);
	word = trim(word);
	if (word == NULL)
		return 0;
	*folded = fold_stop_word(to_utf8(word));
	if (*folded == NULL)
		wrong_configuration(keys[key], word,
							"Write each word as a text of at most"
							" " CppAsString2(MAX_STOP_WORD_LENGTH) " characters.");
	return 1;
}

/* Returns the words, folded. */
static char **
read_words(GroupKey key, char *const *words, int count, int *num_words)
{
	char **folded = palloc(Max(count, 1) * sizeof(char *));

	if (count > MAX_WORDS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the group's \"%s\" has more than %d words", keys[key], MAX_WORDS),
				 errhint("Remove those that nobody needs.")));
	*num_words = 0;
	for (int i = 0; i < count; i++)
		*num_words += read_word(key, words[i], &folded[*num_words]);
	return folded;
}

/* Reads what concerns callbacks and replies. */
static void
read_webhook(GroupConfig *group, const GroupRow *row)
{
	group->status_callback = read_callback(row, STATUS_CALLBACK);
	group->inbound_url = read_callback(row, INBOUND_URL);
	if (group->inbound_url == NULL)
		group->inbound_url = group->status_callback;
	group->stop_words.stop = read_words(STOP_WORDS, row->stop_words, row->num_stop_words,
										&group->stop_words.num_stop);
	group->stop_words.start = read_words(START_WORDS, row->start_words, row->num_start_words,
										 &group->stop_words.num_start);
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

/* Returns the configuration in a row, palloc'd, which points into it. */
static GroupConfig *
group_of_row(const AppTables *tables, const GroupRow *row, int64 campaign_id, int64 list_id)
{
	GroupConfig *group = palloc0(sizeof(GroupConfig));

	check_existence(tables, row, campaign_id, list_id);
	group->id = row->group_id;
	read_account(group, row, list_id);
	read_region(group, row);
	read_senders(group, row);
	check_has_sender(group, list_id);
	group->rate = rate_here(read_rate(row));
	group->smart_encoded = read_flag(row, SMART_ENCODED);
	group->sign_links = read_flag(row, SIGN_LINKS);
	read_quiet_hours(group, row);
	read_time_zone(group, row);
	read_limit(group, row);
	group->country = country_of_code(trimmed(row, COUNTRY_CODE));
	/* 0 means none, and any time in the past is equally over */
	if (row->has_end)
		group->send_until = Max(row->send_until, 1);
	read_webhook(group, row);
	return group;
}

void
read_groups(AppTables *tables, WantedGroup *wanted, int count)
{
	int64				*campaign_ids = palloc(Max(count, 1) * sizeof(int64));
	int64				*list_ids = palloc(Max(count, 1) * sizeof(int64));
	MemoryContext		*contexts = palloc(Max(count, 1) * sizeof(MemoryContext));
	GroupRow			*rows;
	ErrorContextCallback explain = {error_context_stack, explain_send_until, campaign_ids};

	for (int i = 0; i < count; i++)
	{
		campaign_ids[i] = wanted[i].campaign_id;
		list_ids[i] = wanted[i].list_id;
		contexts[i] = wanted[i].context;
	}
	error_context_stack = &explain;
	rows = tables_read_groups(tables, array_of_ids(campaign_ids, count),
							  array_of_ids(list_ids, count), contexts, count);
	error_context_stack = explain.previous;
	for (int i = 0; i < count; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(wanted[i].context);

		wanted[i].group = group_of_row(tables, &rows[i], campaign_ids[i], list_ids[i]);
		MemoryContextSwitchTo(old);
	}
}

GroupConfig *
read_group(AppTables *tables, int64 campaign_id, int64 list_id)
{
	WantedGroup wanted = {campaign_id, list_id, CurrentMemoryContext};

	read_groups(tables, &wanted, 1);
	return wanted.group;
}

GroupConfig *
read_group_of_messages(AppTables *tables, int64 group_id, int64 list_id)
{
	GroupConfig *group = palloc0(sizeof(GroupConfig));
	GroupRow	 row;

	if (!tables_read_group_by_id(tables, group_id, &row))
		fail_no_group(tables, list_id);
	if (row.group_deleted)
		fail_deleted(psprintf("group %lld is deleted", (long long) group_id));
	group->id = row.group_id;
	read_account(group, &row, list_id);
	read_region(group, &row);
	read_senders(group, &row);
	read_webhook(group, &row);
	return group;
}

GroupConfig *
read_group_by_id(AppTables *tables, int64 group_id)
{
	GroupConfig *group = palloc0(sizeof(GroupConfig));
	GroupRow	 row;

	if (!tables_read_group_by_id(tables, group_id, &row) || row.group_deleted)
		return NULL;
	group->id = row.group_id;
	group->account_sid = trimmed(&row, ACCOUNT_SID);
	group->auth_token = trimmed(&row, AUTH_TOKEN);
	if (group->account_sid == NULL)
		return NULL;
	read_senders(group, &row);
	read_webhook(group, &row);
	return group;
}

const char *
read_country_of_list(const AppTables *tables, int64 list_id)
{
	char *code = trim(tables_read_country(tables, list_id));

	check_length(code, COUNTRY_CODE);
	return country_of_code(code);
}

int
choose_sender(char *const *names, int count, const char *phone)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) phone, strlen(phone), 0);
	uint64 highest = 0;
	int	   chosen = 0;

	for (int i = 0; i < count; i++)
	{
		uint64 weight = hash_bytes_extended((const unsigned char *) names[i], strlen(names[i]),
											hash);

		if (weight >= highest)
		{
			highest = weight;
			chosen = i;
		}
	}
	return chosen;
}

const char *
sender_of_phone(const GroupConfig *group, const char *phone)
{
	return group->senders[choose_sender(group->senders, group->num_senders, phone)];
}
