/*-------------------------------------------------------------------------
 *
 * classify.c
 *	  What an exchange with Twilio means for the message.
 *
 * Twilio's error code takes precedence over the HTTP status, which decides if
 * the code is unknown.  For everything unforeseen: a message that may have
 * been accepted is in doubt, and only one that is known to be refused fails.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "mb/pg_wchar.h"
#include "twilio/classify.h"
#include "twilio/json.h"
#include "twilio/request.h"

/* No error code, and no message, exceeds these. */
#define MAX_CODE		999999
#define MAX_SEGMENTS	1000
#define MAX_ERROR_BYTES 500

typedef struct CodeClass
{
	int			code;
	VerdictKind kind;
	const char *description;
} CodeClass;

/* Sorted by code. */
static const CodeClass code_classes[] = {
	{20003, VERDICT_STOP, "authentication failed"},
	{20005, VERDICT_STOP, "account not active"},
	{20006, VERDICT_STOP, "access denied"},
	{20008, VERDICT_STOP, "test credentials cannot do this"},
	{20403, VERDICT_STOP, "forbidden"},
	{20404, VERDICT_STOP, "account not found"},
	{20429, VERDICT_RETRY, "too many requests"},
	{20500, VERDICT_DOUBT, "internal error at Twilio"},
	{20503, VERDICT_RETRY, "service unavailable"},
	{21211, VERDICT_FAILED, "invalid 'To' number"},
	{21212, VERDICT_STOP, "invalid 'From' number"},
	{21214, VERDICT_FAILED, "'To' number cannot be reached"},
	{21217, VERDICT_FAILED, "'To' number not valid"},
	{21219, VERDICT_STOP, "'To' number not verified"},
	{21265, VERDICT_FAILED, "'To' number cannot be a short code"},
	{21266, VERDICT_FAILED, "'To' and 'From' number the same"},
	{21408, VERDICT_FAILED, "country not enabled"},
	{21421, VERDICT_FAILED, "phone number invalid"},
	{21601, VERDICT_STOP, "'From' number cannot send messages"},
	{21602, VERDICT_TEXT_FAILED, "message has no body"},
	{21603, VERDICT_STOP, "'From' number missing"},
	{21604, VERDICT_TEXT_FAILED, "'To' number missing"},
	{21606, VERDICT_STOP, "'From' number not of this account"},
	{21608, VERDICT_STOP, "trial account, 'To' number not verified"},
	{21609, VERDICT_STOP, "invalid status callback"},
	{21610, VERDICT_FAILED, "recipient has opted out"},
	{21611, VERDICT_RETRY, "sender's queue full"},
	{21612, VERDICT_FAILED, "'To' number cannot be reached from this sender"},
	{21614, VERDICT_FAILED, "'To' number not a mobile number"},
	{21617, VERDICT_TEXT_FAILED, "message body over 1600 characters"},
	{21619, VERDICT_TEXT_FAILED, "message has no body"},
	{21620, VERDICT_TEXT_FAILED, "invalid media URL"},
	{21623, VERDICT_TEXT_FAILED, "invalid media"},
	{21624, VERDICT_STOP, "invalid validity period"},
	{21635, VERDICT_FAILED, "'To' number a landline"},
	{21654, VERDICT_STOP, "content template missing"},
	{21655, VERDICT_STOP, "content template not of this account"},
	{21656, VERDICT_TEXT_FAILED, "invalid variables of the content template"},
	{21659, VERDICT_STOP, "'From' not a number or short code of this account"},
	{21701, VERDICT_STOP, "messaging service does not exist"},
	{21703, VERDICT_FAILED, "messaging service has no number for this country"},
	{21704, VERDICT_STOP, "messaging service has no numbers"},
	{21705, VERDICT_STOP, "messaging service invalid"},
	{21730, VERDICT_RETRY, "sender's queue full"},
	{21910, VERDICT_STOP, "'From' and 'To' not of the same channel"},
	{30001, VERDICT_RETRY, "queue overflow"},
	{30002, VERDICT_STOP, "account suspended"},
	{30003, VERDICT_RETRY, "handset unreachable"},
	{30004, VERDICT_FAILED, "message blocked"},
	{30005, VERDICT_FAILED, "unknown handset"},
	{30006, VERDICT_FAILED, "landline or unreachable carrier"},
	{30007, VERDICT_FAILED, "message filtered"},
	{30008, VERDICT_RETRY, "unknown error"},
	{30009, VERDICT_FAILED, "a segment is missing"},
	{30010, VERDICT_FAILED, "price over the maximum"},
	{30011, VERDICT_FAILED, "MMS not supported by this number"},
	{30012, VERDICT_FAILED, "validity period too short"},
	{30017, VERDICT_RETRY, "carrier network congestion"},
	{30018, VERDICT_FAILED, "carrier requires a registered sender"},
	{30019, VERDICT_FAILED, "content over the carrier's limit"},
	{30022, VERDICT_RETRY, "rate limit of the US carriers"},
	{30023, VERDICT_FAILED, "daily limit of the US carriers"},
	{30024, VERDICT_FAILED, "sender not set up at the carrier"},
	{30032, VERDICT_STOP, "toll-free number not verified"},
	{30033, VERDICT_STOP, "10DLC campaign suspended"},
	{30034, VERDICT_STOP, "'From' number not registered for 10DLC"},
	{30035, VERDICT_STOP, "'From' number's 10DLC registration pending"},
	{30036, VERDICT_FAILED, "validity period over"},
	{30410, VERDICT_RETRY, "provider time-out"},
	{30450, VERDICT_RETRY, "message delivery blocked"},
	{30453, VERDICT_RETRY, "message could not be delivered"},
	{35114, VERDICT_TEXT_FAILED, "scheduling not possible"},
	{35115, VERDICT_TEXT_FAILED, "scheduling not possible"},
	{35117, VERDICT_TEXT_FAILED, "scheduling not possible"},
	{63001, VERDICT_STOP, "channel refuses the credentials"},
	{63003, VERDICT_FAILED, "channel has no such 'To' address"},
	{63005, VERDICT_TEXT_FAILED, "channel does not accept the content"},
	{63007, VERDICT_STOP, "channel has no such 'From' address"},
	{63008, VERDICT_STOP, "channel misconfigured"},
	{63013, VERDICT_TEXT_FAILED, "channel's policy violated"},
	{63015, VERDICT_FAILED, "recipient has not joined the sandbox"},
	{63016, VERDICT_TEXT_FAILED, "outside of the window for messages without a template"},
	{63017, VERDICT_RETRY, "rate limit of the account"},
	{63018, VERDICT_RETRY, "rate limit of the channel"},
	{63020, VERDICT_STOP, "invitation of the channel not accepted"},
	{63021, VERDICT_TEXT_FAILED, "channel does not support the content"},
	{63024, VERDICT_FAILED, "channel cannot reach the recipient"},
	{63027, VERDICT_STOP, "content template does not exist in this language"},
	{63028, VERDICT_TEXT_FAILED, "wrong number of variables of the content template"},
	{63030, VERDICT_TEXT_FAILED, "parameter not supported by the channel"},
	{63031, VERDICT_FAILED, "'To' and 'From' address the same"},
	{63032, VERDICT_FAILED, "recipient not eligible at WhatsApp"},
	{63033, VERDICT_FAILED, "recipient blocked at WhatsApp"},
	{63038, VERDICT_STOP, "daily limit of the account reached"},
	{572002, VERDICT_STOP, "trial account, text not one of the templates"},
	{572006, VERDICT_STOP, "trial account, 'To' number not verified"},
};

static int
compare_code(const void *key, const void *element)
{
	int code = *(const int *) key;
	int other = ((const CodeClass *) element)->code;

	return code < other ? -1 : code > other;
}

static const CodeClass *
find_code(int code)
{
	return bsearch(&code, code_classes, lengthof(code_classes), sizeof(CodeClass), compare_code);
}

const char *
describe_error_code(int code)
{
	const CodeClass *known = find_code(code);

	return known ? known->description : NULL;
}

int
known_error_code(int number)
{
	return number < lengthof(code_classes) ? code_classes[number].code : 0;
}

/* Members of Twilio's answer, which is a message or an error. */
typedef struct Answer
{
	const char *sid;
	int			code;
	const char *message;
	int			segments;
} Answer;

/* Returns a number from 1 to the greatest sensible one; 0 for others. */
static int
read_number(const char *value, int greatest)
{
	long number = strtol(value, NULL, 10);

	return number > 0 && number <= greatest ? (int) number : 0;
}

static void
answer_member(void *arg, int depth, const char *key, const char *value)
{
	Answer *answer = arg;

	if (depth != 1 || value == NULL)
		return;
	if (strcmp(key, "sid") == 0)
		answer->sid = value;
	else if (strcmp(key, "code") == 0)
		answer->code = read_number(value, MAX_CODE);
	else if (strcmp(key, "message") == 0)
		answer->message = value;
	else if (strcmp(key, "num_segments") == 0)
		answer->segments = read_number(value, MAX_SEGMENTS);
}

/* Classifies a refusal without a known code. */
static VerdictKind
kind_of_status(long status)
{
	switch (status)
	{
		case 401:
		case 403:
		case 404:
		case 405:
		case 407:
			return VERDICT_STOP;
		case 429:
			return VERDICT_RETRY;
		case 408:
		case 409:
			return VERDICT_DOUBT;
		default:
			return status >= 400 && status < 500 ? VERDICT_FAILED : VERDICT_DOUBT;
	}
}

Retry
retry_after_code(int code)
{
	const CodeClass *known = find_code(code);
	VerdictKind		 kind;

	if (code == 0)
		return RETRY_ALLOWED;
	if (known == NULL && code > 999)
		return RETRY_UNKNOWN;
	kind = known ? known->kind : kind_of_status(code);
	return kind == VERDICT_RETRY || kind == VERDICT_DOUBT ? RETRY_ALLOWED : RETRY_NEVER;
}

/* Tells whether the text has something that people can read, rather than replacements. */
static bool
is_readable(const char *text)
{
	for (; *text; text++)
	{
		if (isalnum((unsigned char) *text))
			return true;
	}
	return false;
}

static void
classify_refusal(const Answer *answer, long status, Verdict *verdict)
{
	const CodeClass *known = find_code(answer->code);

	verdict->error_code = answer->code ? answer->code : (int) status;
	if (answer->message && is_readable(answer->message))
		verdict->error_message = pstrdup(answer->message);
	else if (known)
		verdict->error_message = pstrdup(known->description);
	else
		verdict->error_message = psprintf("HTTP status %ld", status);
	verdict->kind = known ? known->kind : kind_of_status(status);
}

static void
classify_answer(const HttpResponse *response, Verdict *verdict)
{
	Answer answer = {0};
	bool   valid = !response->truncated &&
				 json_scan(response->body, response->body_length, answer_member, NULL, &answer);

	if (response->status < 200 || response->status >= 300)
	{
		if (!valid)
			memset(&answer, 0, sizeof(answer));
		classify_refusal(&answer, response->status, verdict);
	}
	else if (valid && answer.sid && sid_is_valid(answer.sid))
	{
		verdict->kind = VERDICT_SENT;
		verdict->sid = pstrdup(answer.sid);
		verdict->segments = answer.segments;
	}
	else
	{
		verdict->kind = VERDICT_DOUBT;
		verdict->error_code = (int) response->status;
		verdict->error_message = pstrdup(response->truncated ? "answer too long"
										 : valid			 ? "answer contains no SID"
															 : "answer is not valid JSON");
	}
}

/*
 * Makes a text storable in the database's encoding, or at least in ASCII, and
 * readable: in one line, and not too long.
 */
static void
make_storable(char *text)
{
	int	 length = strlen(text);
	bool valid = GetDatabaseEncoding() == PG_UTF8 && pg_verify_mbstr(PG_UTF8, text, length, true);

	if (length > MAX_ERROR_BYTES)
		text[valid ? pg_mbcliplen(text, length, MAX_ERROR_BYTES) : MAX_ERROR_BYTES] = '\0';
	for (unsigned char *c = (unsigned char *) text; *c; c++)
	{
		if (IS_HIGHBIT_SET(*c) && !valid)
			*c = '?';
		else if (*c < ' ' || *c == 0x7f)
			*c = ' ';
	}
}

static void
classify_failure(const HttpResponse *response, Verdict *verdict)
{
	verdict->error_message = pstrdup(response->error);
	if (response->result == HTTP_NOT_SENT)
		verdict->kind = VERDICT_UNREACHABLE;
	else if (response->status == 429)
		verdict->kind = VERDICT_RETRY; /* never processed, whatever failed afterwards */
	else
		verdict->kind = VERDICT_DOUBT;
	verdict->error_code = (int) response->status;
}

void
classify(const HttpResponse *response, Verdict *verdict)
{
	memset(verdict, 0, sizeof(*verdict));
	verdict->retry_after = response->retry_after;
	if (response->result == HTTP_ANSWERED)
		classify_answer(response, verdict);
	else
		classify_failure(response, verdict);
	if (verdict->error_message)
		make_storable(verdict->error_message);
}
