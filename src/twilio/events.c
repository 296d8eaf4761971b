/*-------------------------------------------------------------------------
 *
 * events.c
 *	  Reads what Twilio's Event Streams post to a web server, from an untrusted
 *	  source.
 *
 * It is a CloudEvent, or an array of them.  An event's "type" says what has
 * happened, and its "data" to which message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "mb/pg_wchar.h"
#include "twilio/events.h"
#include "twilio/json.h"
#include "twilio/request.h"

#define MESSAGE_TYPE "com.twilio.messaging.message."
#define INBOUND_TYPE "com.twilio.messaging.inbound-message.received"

/* Takes the place of half a character. */
#define REPLACEMENT 0xFFFD

/* The members of an event that are used, all but the first in its data. */
typedef enum Member
{
	TYPE,
	ACCOUNT_SID,
	MESSAGE_SID,
	FROM,
	TO,
	SERVICE,
	BODY,
	ERROR_CODE,
	TIMESTAMP,
	NUM_MEMBERS
} Member;

static const char *const members[NUM_MEMBERS] = {"type", "accountSid", "messageSid",
												 "from", "to",		   "messagingServiceSid",
												 "body", "errorCode",  "timestamp"};

typedef struct Reading
{
	Events	   *events;
	int			event_depth; /* of the members of an event */
	bool		in_data;
	int			num_events; /* of all types */
	const char *values[NUM_MEMBERS];
	bool		seen[NUM_MEMBERS];
	bool		has_data;
	const char *wrong; /* NULL: nothing so far */
} Reading;

bool
is_json(const char *body)
{
	body += strspn(body, " \t\r\n");
	return *body == '{' || *body == '[';
}

/* Returns the value of four hexadecimal digits, or -1; the text ends with a NUL. */
static int
hex4(const char *text)
{
	int value = 0;

	for (int i = 0; i < 4; i++)
	{
		const char *digits = "0123456789abcdef";
		const char *digit = text[i] ? strchr(digits, pg_ascii_tolower(text[i])) : NULL;

		if (digit == NULL)
			return -1;
		value = value * 16 + (digit - digits);
	}
	return value;
}

/*
 * Returns the character of the escape at the text, and its length; one that
 * cannot be stored becomes a blank or REPLACEMENT.  -1: it is something else,
 * such as a quotation mark, and stays as it is.
 */
static int
escaped_character(const char *text, int *length)
{
	int code = text[1] == 'u' ? hex4(text + 2) : -1;
	int low;

	*length = 6;
	if (code == 0)
		return ' ';
	if (code < 0x80)
		return -1;
	if (code < 0xD800 || code > 0xDFFF)
		return code;
	low = code < 0xDC00 && text[6] == '\\' && text[7] == 'u' ? hex4(text + 8) : -1;
	if (low < 0xDC00 || low > 0xDFFF)
		return REPLACEMENT;
	*length = 12;
	return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

/*
 * Returns the JSON with characters in place of their escapes, as what comes of
 * an escape would have to exist in the database's encoding, and one text must
 * not make a whole body invalid.
 */
static char *
without_escapes(const char *json, int length)
{
	char *decoded = palloc(length + 1);
	char *out = decoded;

	while (*json)
	{
		int skip = 0;
		int code = *json == '\\' ? escaped_character(json, &skip) : -1;

		if (code >= 0)
		{
			unicode_to_utf8(code, (unsigned char *) out);
			out += pg_utf_mblen((unsigned char *) out);
			json += skip;
			continue;
		}
		/* a backslash belongs to what follows it */
		if (*json == '\\' && json[1])
			*out++ = *json++;
		*out++ = *json++;
	}
	*out = '\0';
	return decoded;
}

static void
start_object(void *arg, int depth, const char *key)
{
	Reading *reading = arg;

	if (depth == reading->event_depth)
	{
		memset(reading->values, 0, sizeof(reading->values));
		memset(reading->seen, 0, sizeof(reading->seen));
		reading->has_data = false;
		if (++reading->num_events > MAX_EVENTS)
			reading->wrong = "It has more than " CppAsString2(MAX_EVENTS) " events.";
	}
	else if (depth == reading->event_depth + 1 && key && strcmp(key, "data") == 0)
	{
		if (reading->has_data)
			reading->wrong = "An event has the member data more than once.";
		reading->in_data = reading->has_data = true;
	}
}

static void
add_member(void *arg, int depth, const char *key, const char *value)
{
	Reading *reading = arg;
	int		 first = depth == reading->event_depth ? TYPE : ACCOUNT_SID;
	int		 end = depth == reading->event_depth ? ACCOUNT_SID : NUM_MEMBERS;

	if (depth != reading->event_depth && (depth != reading->event_depth + 1 || !reading->in_data))
		return;
	for (int i = first; i < end; i++)
	{
		if (strcmp(members[i], key) != 0)
			continue;
		/* others might read the other value */
		if (reading->seen[i])
			reading->wrong = "An event has a member more than once.";
		reading->seen[i] = true;
		reading->values[i] = value == json_array ? NULL : value;
	}
}

/* Returns the time, as in 2025-01-01T00:00:00.000Z; 0 if it is another form. */
static TimestampTz
parse_time(const char *text)
{
	struct tm time = {0};
	int		  length = 0;
	double	  fraction = 0;
	char	 *end;

	if (text == NULL || strspn(text, "0123456789-:T.Z") != strlen(text) ||
		sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &time.tm_year, &time.tm_mon, &time.tm_mday,
			   &time.tm_hour, &time.tm_min, &time.tm_sec, &length) < 6)
		return 0;
	end = unconstify(char *, text + length);
	if (*end == '.')
		fraction = strtod(end, &end);
	if (strcmp(end, "Z") != 0 || time.tm_year < 2000 || time.tm_mon < 1 || time.tm_mon > 12 ||
		time.tm_mday < 1 || time.tm_mday > 31 || time.tm_hour < 0 || time.tm_hour > 23 ||
		time.tm_min < 0 || time.tm_min > 59 || time.tm_sec < 0 || time.tm_sec > 60)
		return 0;
	time.tm_year -= 1900;
	time.tm_mon -= 1;
	return (timegm(&time) - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY) *
			   USECS_PER_SEC +
		   (int64) (fraction * USECS_PER_SEC);
}

/* Checks whose event it is. */
static void
check_account(Reading *reading, bool needed)
{
	const char *account = reading->values[ACCOUNT_SID];

	if (account == NULL)
	{
		if (needed)
			reading->wrong = "An event has no accountSid.";
	}
	else if (!sid_is_valid(account))
		reading->wrong = "An accountSid of an event is no SID.";
	else if (reading->events->account == NULL)
		reading->events->account = account;
	else if (strcmp(reading->events->account, account) != 0)
		reading->wrong = "Its events are of several accounts.";
}

static void
add_event(Reading *reading, const char *status)
{
	const char **values = reading->values;
	Event		*event = &reading->events->events[reading->events->count];

	if (values[MESSAGE_SID] == NULL || !sid_is_valid(values[MESSAGE_SID]))
	{
		reading->wrong = "A messageSid of an event is missing, or no SID.";
		return;
	}
	*event = (Event){.sid = values[MESSAGE_SID],
					 .status = status,
					 .from = values[FROM],
					 .to = values[TO],
					 .service = values[SERVICE],
					 .body = values[BODY],
					 .error_code = values[ERROR_CODE],
					 .at = parse_time(values[TIMESTAMP])};
	reading->events->count++;
}

/* The type of an event says what messageStatus in its data says, too. */
static void
end_object(void *arg, int depth)
{
	Reading	   *reading = arg;
	const char *type = reading->values[TYPE] ? reading->values[TYPE] : "";
	bool		is_inbound = strcmp(type, INBOUND_TYPE) == 0;
	bool		is_status = strncmp(type, MESSAGE_TYPE, strlen(MESSAGE_TYPE)) == 0;

	if (depth == reading->event_depth + 1)
		reading->in_data = false;
	if (depth != reading->event_depth || reading->wrong)
		return;
	check_account(reading, is_inbound || is_status);
	if (reading->wrong == NULL && (is_inbound || is_status))
		add_event(reading, is_status ? type + strlen(MESSAGE_TYPE) : NULL);
}

const char *
events_parse(const char *body, int length, Events *events)
{
	static const JsonCallbacks callbacks = {add_member, start_object, end_object};
	Reading					   reading = {.events = events};
	char					  *json;

	*events = (Events){0};
	if (length > MAX_EVENTS_LENGTH)
		return "It is longer than " CppAsString2(MAX_EVENTS_LENGTH) " bytes.";
	json = without_escapes(body, length);
	events->events = palloc(MAX_EVENTS * sizeof(Event));
	reading.event_depth = body[strspn(body, " \t\r\n")] == '[' ? 2 : 1;
	if (!json_scan_objects(json, strlen(json), &callbacks, &reading))
		return "It is not JSON.";
	if (reading.wrong)
		return reading.wrong;
	return events->account ? NULL : "It has no event with an accountSid.";
}
