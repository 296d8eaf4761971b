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
	const char *what_to_do;
} CodeClass;

/* Sorted by code. */
static const CodeClass code_classes[] = {
	{20003, VERDICT_STOP, "authentication failed",
	 "Check the account SID and the auth token or API key in the group's configuration, then"
	 " call sendcampaign.resume()."},
	{20005, VERDICT_STOP, "account not active",
	 "Open the Twilio console: the account is suspended, closed or not yet activated."},
	{20006, VERDICT_STOP, "access denied",
	 "Give the API key the right to send messages, or use the account's auth token."},
	{20008, VERDICT_STOP, "test credentials cannot do this",
	 "Use the live credentials of the account, as test credentials send nothing."},
	{20403, VERDICT_STOP, "forbidden",
	 "Check in the Twilio console what the account and the API key may do."},
	{20404, VERDICT_STOP, "account not found",
	 "Check the account SID in the group's configuration, and that it is in the region that"
	 " is asked."},
	{20429, VERDICT_RETRY, "too many requests",
	 "Nothing needs to be done: it is sent again, more slowly."},
	{20500, VERDICT_DOUBT, "internal error at Twilio",
	 "Nothing needs to be done: Twilio's list of messages is asked whether it was sent."},
	{20503, VERDICT_RETRY, "service unavailable",
	 "Nothing needs to be done: it is sent again as soon as Twilio answers."},
	{21211, VERDICT_FAILED, "invalid 'To' number",
	 "Correct the phone number in the list, with its country code."},
	{21212, VERDICT_STOP, "invalid 'From' number",
	 "Correct the sender's number in the group's configuration."},
	{21214, VERDICT_FAILED, "'To' number cannot be reached",
	 "Check the phone number: it is a landline, or not in use."},
	{21217, VERDICT_FAILED, "'To' number not valid",
	 "Correct the phone number in the list, with its country code."},
	{21219, VERDICT_STOP, "'To' number not verified",
	 "Verify the number in the Twilio console, or upgrade the trial account."},
	{21265, VERDICT_FAILED, "'To' number cannot be a short code",
	 "Remove the short code from the list."},
	{21266, VERDICT_FAILED, "'To' and 'From' number the same",
	 "Remove the sender's own number from the list."},
	{21408, VERDICT_FAILED, "country not enabled",
	 "Allow the country under the account's geographic permissions for SMS, then send to"
	 " these recipients again."},
	{21421, VERDICT_FAILED, "phone number invalid", "Correct the phone number in the list."},
	{21601, VERDICT_STOP, "'From' number cannot send messages",
	 "Choose a sender that can send SMS."},
	{21602, VERDICT_TEXT_FAILED, "message has no body",
	 "Write a text: the message of the campaign is empty."},
	{21603, VERDICT_STOP, "'From' number missing", "Enter a sender in the group's configuration."},
	{21604, VERDICT_TEXT_FAILED, "'To' number missing", "Enter the phone number in the list."},
	{21606, VERDICT_STOP, "'From' number not of this account",
	 "Use a sender of this account that can send to this country."},
	{21608, VERDICT_STOP, "trial account, 'To' number not verified",
	 "Verify the number in the Twilio console, or upgrade the trial account."},
	{21609, VERDICT_STOP, "invalid status callback",
	 "Correct the status callback, which has to be a complete URL that Twilio can reach."},
	{21610, VERDICT_FAILED, "recipient has opted out",
	 "Leave the recipient alone: only they can opt in again, by replying START."},
	{21611, VERDICT_RETRY, "sender's queue full",
	 "Nothing needs to be done: it is sent again when the queue has room. More senders, or a"
	 " lower rate, keep it from filling."},
	{21612, VERDICT_FAILED, "'To' number cannot be reached from this sender",
	 "Use a sender that can reach this country or carrier, such as one of the same country."},
	{21614, VERDICT_FAILED, "'To' number not a mobile number",
	 "Ask the recipient for a mobile number."},
	{21617, VERDICT_TEXT_FAILED, "message body over 1600 characters",
	 "Shorten the text to at most 1600 characters."},
	{21619, VERDICT_TEXT_FAILED, "message has no body",
	 "Write a text, or name a medium or a content template."},
	{21620, VERDICT_TEXT_FAILED, "invalid media URL",
	 "Correct the media URL, which has to be complete."},
	{21623, VERDICT_TEXT_FAILED, "invalid media",
	 "Use media of a type and size that Twilio accepts, at an address that it can read."},
	{21624, VERDICT_STOP, "invalid validity period",
	 "Correct the validity period, which may be from 1 to 36000 seconds."},
	{21635, VERDICT_FAILED, "'To' number a landline", "Ask the recipient for a mobile number."},
	{21654, VERDICT_STOP, "content template missing",
	 "Enter the content template's SID in the campaign."},
	{21655, VERDICT_STOP, "content template not of this account",
	 "Use a content template of this account."},
	{21656, VERDICT_TEXT_FAILED, "invalid variables of the content template",
	 "Correct the variables of the content template, which have to be a JSON object with"
	 " values that are not empty."},
	{21659, VERDICT_STOP, "'From' not a number or short code of this account",
	 "Use a number or a short code of this account as the sender."},
	{21701, VERDICT_STOP, "messaging service does not exist",
	 "Correct the messaging service's SID in the group's configuration."},
	{21703, VERDICT_FAILED, "messaging service has no number for this country",
	 "Add a sender for this country to the messaging service."},
	{21704, VERDICT_STOP, "messaging service has no numbers",
	 "Add a sender to the messaging service."},
	{21705, VERDICT_STOP, "messaging service invalid",
	 "Correct the messaging service's SID in the group's configuration."},
	{21730, VERDICT_RETRY, "sender's queue full",
	 "Nothing needs to be done: it is sent again when the queue has room. More senders, or a"
	 " lower rate, keep it from filling."},
	{21910, VERDICT_STOP, "'From' and 'To' not of the same channel",
	 "Use a sender of the same channel as the recipients, such as whatsapp: for WhatsApp."},
	{30001, VERDICT_RETRY, "queue overflow",
	 "Send more slowly or over more senders, then call sendcampaign.retry_failed()."},
	{30002, VERDICT_STOP, "account suspended",
	 "Open the Twilio console, which says why the account is suspended."},
	{30003, VERDICT_RETRY, "handset unreachable",
	 "Try again later with sendcampaign.retry_failed(): the phone is off or out of reach."},
	{30004, VERDICT_FAILED, "message blocked",
	 "Leave the recipient alone if they have blocked you; otherwise ask Twilio's support."},
	{30005, VERDICT_FAILED, "unknown handset",
	 "Remove the number, which is not in use or not known to the carrier."},
	{30006, VERDICT_FAILED, "landline or unreachable carrier",
	 "Ask for a mobile number: this one is a landline, or at a carrier that cannot be reached."},
	{30007, VERDICT_FAILED, "message filtered",
	 "Change what carriers take for spam, such as shortened links, and register the sender"
	 " where the country asks for it."},
	{30008, VERDICT_RETRY, "unknown error",
	 "Try again later with sendcampaign.retry_failed(); if that fails, shorten the text and"
	 " ask Twilio's support."},
	{30009, VERDICT_FAILED, "a segment is missing",
	 "Send it again as a new campaign: a part of the message was lost on the way."},
	{30010, VERDICT_FAILED, "price over the maximum",
	 "Raise the highest price that the messaging service allows, or leave this destination out."},
	{30011, VERDICT_FAILED, "MMS not supported by this number",
	 "Send a text without media to this number."},
	{30012, VERDICT_FAILED, "validity period too short", "Lengthen the validity period."},
	{30017, VERDICT_RETRY, "carrier network congestion",
	 "Try again later with sendcampaign.retry_failed()."},
	{30018, VERDICT_FAILED, "carrier requires a registered sender",
	 "Register the sender for this country, or use one that is registered."},
	{30019, VERDICT_FAILED, "content over the carrier's limit",
	 "Send fewer or smaller media, or a shorter text."},
	{30022, VERDICT_RETRY, "rate limit of the US carriers",
	 "Send more slowly, or register for a higher limit."},
	{30023, VERDICT_FAILED, "daily limit of the US carriers",
	 "Send the rest tomorrow, or register for a higher limit."},
	{30024, VERDICT_FAILED, "sender not set up at the carrier",
	 "Wait until the carrier has set the sender up, or use another sender."},
	{30032, VERDICT_STOP, "toll-free number not verified",
	 "Have the toll-free number verified in the Twilio console, or use another sender."},
	{30033, VERDICT_STOP, "10DLC campaign suspended",
	 "Open the Twilio console, which says why the 10DLC campaign is suspended."},
	{30034, VERDICT_STOP, "'From' number not registered for 10DLC",
	 "Register the number with a 10DLC campaign in the Twilio console, or use another sender."},
	{30035, VERDICT_STOP, "'From' number's 10DLC registration pending",
	 "Wait until the number's registration is complete, or use another sender."},
	{30036, VERDICT_FAILED, "validity period over",
	 "Send more slowly or lengthen the validity period: the message waited in the queue for"
	 " too long."},
	{30410, VERDICT_RETRY, "provider time-out",
	 "Nothing needs to be done: try again later with sendcampaign.retry_failed() if it fails"
	 " in the end."},
	{30450, VERDICT_RETRY, "message delivery blocked",
	 "Wait before you try again with sendcampaign.retry_failed(): Twilio holds back what may"
	 " be fraud."},
	{30453, VERDICT_RETRY, "message could not be delivered",
	 "Wait before you try again with sendcampaign.retry_failed(); if that fails, ask Twilio's"
	 " support."},
	{35114, VERDICT_TEXT_FAILED, "scheduling not possible",
	 "Turn off scheduling: the extension decides itself when a message is sent."},
	{35115, VERDICT_TEXT_FAILED, "scheduling not possible",
	 "Turn off scheduling: the extension decides itself when a message is sent."},
	{35117, VERDICT_TEXT_FAILED, "scheduling not possible",
	 "Turn off scheduling: the extension decides itself when a message is sent."},
	{63001, VERDICT_STOP, "channel refuses the credentials",
	 "Enter the channel's credentials again in the Twilio console."},
	{63003, VERDICT_FAILED, "channel has no such 'To' address",
	 "Correct the recipient's address, which this channel does not know."},
	{63005, VERDICT_TEXT_FAILED, "channel does not accept the content",
	 "Use a text or a content template that the channel accepts."},
	{63007, VERDICT_STOP, "channel has no such 'From' address",
	 "Use a sender that is set up for this channel in this account."},
	{63008, VERDICT_STOP, "channel misconfigured",
	 "Correct the channel's settings in the Twilio console."},
	{63013, VERDICT_TEXT_FAILED, "channel's policy violated",
	 "Change the text to what the channel's policy allows."},
	{63015, VERDICT_FAILED, "recipient has not joined the sandbox",
	 "Ask the recipient to join the sandbox, or use a sender of your own."},
	{63016, VERDICT_TEXT_FAILED, "outside of the window for messages without a template",
	 "Use a content template: free text is only allowed within 24 hours after the recipient"
	 " has written."},
	{63017, VERDICT_RETRY, "rate limit of the account",
	 "Nothing needs to be done: it is sent again, more slowly."},
	{63018, VERDICT_RETRY, "rate limit of the channel",
	 "Nothing needs to be done: it is sent again, more slowly."},
	{63020, VERDICT_STOP, "invitation of the channel not accepted",
	 "Accept the channel's invitation in its business manager."},
	{63021, VERDICT_TEXT_FAILED, "channel does not support the content",
	 "Use content that the channel supports."},
	{63024, VERDICT_FAILED, "channel cannot reach the recipient",
	 "Check the recipient's address, and whether they use this channel."},
	{63027, VERDICT_STOP, "content template does not exist in this language",
	 "Have the content template approved in this language, or use another language."},
	{63028, VERDICT_TEXT_FAILED, "wrong number of variables of the content template",
	 "Give as many variables as the content template has."},
	{63030, VERDICT_TEXT_FAILED, "parameter not supported by the channel",
	 "Leave out what the channel does not support, such as media."},
	{63031, VERDICT_FAILED, "'To' and 'From' address the same",
	 "Remove the sender's own address from the list."},
	{63032, VERDICT_FAILED, "recipient not eligible at WhatsApp",
	 "Leave the recipient out: WhatsApp does not deliver this to them, as in an experiment of"
	 " its own."},
	{63033, VERDICT_FAILED, "recipient blocked at WhatsApp",
	 "Leave the recipient alone: they have blocked you at WhatsApp."},
	{63038, VERDICT_STOP, "daily limit of the account reached",
	 "Continue tomorrow with sendcampaign.resume(), or raise the account's limit."},
	{572002, VERDICT_STOP, "trial account, text not one of the templates",
	 "Use one of the texts that trial accounts may send, or upgrade the account."},
	{572006, VERDICT_STOP, "trial account, 'To' number not verified",
	 "Verify the number in the Twilio console, or upgrade the trial account."},
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

const char *
advise_on_error_code(int code)
{
	const CodeClass *known = find_code(code);

	return known ? known->what_to_do : NULL;
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
