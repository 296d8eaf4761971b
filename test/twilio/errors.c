/*
 * errors.c
 *		Error answers of the Twilio API: the HTTP status and the message of
 *		each code.  The status of codes that are not listed here is 400.  And
 *		the messages of codes for what was accepted, but not delivered.
 */
#include "errors.h"

typedef struct error_text
{
	int			code;
	unsigned	status;
	const char *message;
} error_text;

static const error_text errors[] = {
	{20001, 400, "Unknown parameters"},
	{20003, 401, "Authenticate"},
	{20004, 405, "Method not allowed"},
	{20005, 401, "Account not active"},
	{20006, 403, "Access Denied"},
	{20008, 403, "Resource not accessible with Test Account Credentials"},
	{20403, 403, "Forbidden"},
	{20404, 404, "The requested resource was not found"},
	{20429, 429, "Too Many Requests"},
	{20500, 500, "Internal Server Error"},
	{20503, 503, "Service unavailable"},
	{21211, 400, "Invalid 'To' Phone Number"},
	{21212, 400, "Invalid From Number (caller ID)"},
	{21408, 400, "Permission to send an SMS has not been enabled for the region"},
	{21601, 400, "Phone number is not a valid SMS-capable inbound phone number"},
	{21602, 400, "Message body is required."},
	{21603, 400, "A 'From' phone number is required."},
	{21604, 400, "A 'To' phone number is required."},
	{21606, 400,
	 "The 'From' phone number provided is not a valid message-capable Twilio phone number for this destination."},
	{21608, 400,
	 "The number is unverified. Trial accounts cannot send messages to unverified numbers"},
	{21609, 400, "The 'StatusCallback' URL is not a valid URL."},
	{21610, 400, "Attempt to send to unsubscribed recipient"},
	{21611, 400, "This 'From' number has exceeded the maximum number of queued messages"},
	{21612, 400, "The 'To' phone number is not currently reachable"},
	{21614, 400, "'To' number is not a valid mobile number"},
	{21617, 400, "The concatenated message body exceeds the 1600 character limit"},
	{21620, 400, "Invalid media URL(s)"},
	{21623, 400, "Number of media files exceeds allowed limit"},
	{21624, 400, "The 'ValidityPeriod' is not in the range of 1 to 36000 seconds"},
	{21654, 400, "ContentSid is required with ContentVariables"},
	{21655, 400, "The ContentSid is invalid"},
	{21656, 400, "The ContentVariables parameter is invalid"},
	{21701, 400, "The Messaging Service does not exist"},
	{21910, 400, "Invalid 'From' and 'To' pair. 'From' and 'To' should be of the same channel"},
	{35114, 400, "SendAt timestamp out of time range"},
	{35118, 400, "MessagingServiceSid is required to schedule a message"},
};

static const error_text delivery_errors[] = {
	{30001, 0, "Queue overflow"},
	{30002, 0, "Account suspended"},
	{30003, 0, "Unreachable destination handset"},
	{30004, 0, "Message blocked"},
	{30005, 0, "Unknown destination handset"},
	{30006, 0, "Landline or unreachable carrier"},
	{30007, 0, "Message filtered"},
	{30008, 0, "Unknown error"},
	{30034, 0, "Message from an Unregistered Number"},
};

const char *
delivery_error(int code)
{
	for (size_t i = 0; i < sizeof(delivery_errors) / sizeof(delivery_errors[0]); i++)
	{
		if (delivery_errors[i].code == code)
			return delivery_errors[i].message;
	}
	return NULL;
}

static const error_text *
error_find(int code)
{
	static const error_text other = {0, 400, "The request was rejected"};

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
	{
		if (errors[i].code == code)
			return &errors[i];
	}
	return &other;
}

unsigned
error_status(int code)
{
	return error_find(code)->status;
}

void
error_json(buf *out, int code)
{
	buf_string(out, "{\"code\": ");
	buf_int(out, code);
	buf_string(out, ", \"message\": ");
	buf_json(out, text_of(error_find(code)->message));
	buf_printf(out,
			   ", \"more_info\": \"https://www.twilio.com/docs/errors/%d\""
			   ", \"status\": %u}",
			   code, error_status(code));
}
