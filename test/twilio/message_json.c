/*
 * message_json.c
 *		A message as the API shows it.
 *
 * The answer to the create request shows it as queued (with a messaging
 * service: accepted).  Later it is shown as sent, once the time set by
 * sent-after has passed.
 */
#include "message_json.h"
#include "clock.h"
#include "settings.h"

#include <string.h>

int64_t
message_date_created(const message *m)
{
	return m->created_us / US_PER_S + m->skew_s;
}

/* Returns when the message was sent, by the server's clock; -1: not yet. */
int64_t
message_date_sent(const message *m)
{
	int64_t sent_us = m->created_us + settings.sent_after_us;

	if (settings.sent_after_us < 0 || m->canceled)
		return -1;
	if (m->send_at_s > 0)
		sent_us = (m->send_at_s - m->skew_s) * US_PER_S;
	if (sent_us > now_us())
		return -1;
	return sent_us / US_PER_S + m->skew_s;
}

static const char *
message_status(const message *m, int64_t date_sent)
{
	if (m->canceled)
		return "canceled";
	if (date_sent >= 0)
		return "sent";
	if (m->send_at_s > 0)
		return "scheduled";
	return m->service_len > 0 ? "accepted" : "queued";
}

/* Appends the date; the last one is kept, since neighbors often share a second. */
static void
json_date(buf *out, const char *name, int64_t seconds)
{
	static int64_t last = -1; /* protected by the world lock */
	static char	   date[40];

	buf_string(out, name);
	if (seconds < 0)
	{
		buf_string(out, "null");
		return;
	}
	if (seconds != last)
		format_rfc2822(seconds, "+0000", date);
	last = seconds;
	buf_char(out, '"');
	buf_string(out, date);
	buf_char(out, '"');
}

static void
json_member(buf *out, const char *name, text value)
{
	buf_string(out, name);
	buf_json(out, value);
}

static text
or_null(text value)
{
	return value.len == 0 ? (text){NULL, 0} : value;
}

static void
json_uri(buf *out, const char *name, const message *m, const char *sid, const char *end)
{
	buf_string(out, name);
	buf_string(out, "\"/2010-04-01/Accounts/");
	buf_text(out, login_account(m->login));
	buf_string(out, "/Messages/");
	buf_string(out, sid);
	buf_string(out, end);
}

static void
json_links(buf *out, const message *m, const char *sid)
{
	json_uri(out, ", \"uri\": ", m, sid, ".json\"");
	json_uri(out, ", \"subresource_uris\": {\"media\": ", m, sid, "/Media.json\"}}");
}

static void
json_segments(buf *out, const message *m, bool just_created)
{
	buf_string(out, ", \"num_segments\": \"");
	buf_int(out, m->service_len > 0 && just_created ? 0 : m->segments);
	buf_string(out, "\", \"num_media\": \"0\", \"direction\": \"outbound-api\""
					", \"price\": null, \"price_unit\": \"USD\""
					", \"api_version\": \"2010-04-01\""
					", \"error_code\": null, \"error_message\": null");
}

/* The last four digits of a number are masked; other senders are shown. */
static void
json_number(buf *out, const char *name, text number, bool redacted)
{
	char masked[SENDER_MAX + 1];

	if (!redacted || number.len < 5 || number.data[0] != '+')
	{
		json_member(out, name, or_null(number));
		return;
	}
	memcpy(masked, number.data, number.len);
	memset(masked + number.len - 4, 'X', 4);
	json_member(out, name, (text){masked, number.len});
}

/* Appends the body with each link replaced by a short one. */
static void
json_shortened(buf *out, text body)
{
	static const char start[] = "https://";
	buf				  shown = {NULL, 0, 0};
	const char		 *end = body.data + body.len;

	for (const char *c = body.data; c < end;)
	{
		if (end - c > 8 && memcmp(c, start, 8) == 0)
		{
			buf_string(&shown, "https://twil.io/Ab3dE");
			while (c < end && *c != ' ' && *c != '\n')
				c++;
		}
		else
			buf_char(&shown, *c++);
	}
	json_member(out, ", \"body\": ", (text){shown.data != NULL ? shown.data : "", shown.len});
	buf_free(&shown);
}

static void
json_body(buf *out, text body, bool redacted)
{
	if (settings.shorten_links)
		json_shortened(out, redacted ? text_of("") : body);
	else
		json_member(out, ", \"body\": ", redacted ? text_of("") : body);
}

void
message_json(buf *out, const message *m, bool just_created)
{
	char	sid[SID_LEN + 1];
	int64_t sent = just_created ? -1 : message_date_sent(m);
	bool	redacted = settings.redact != REDACT_NOT && sent >= 0;

	buf_reserve(out, 900 + m->body_len);
	message_sid(m, sid);
	json_member(out, "{\"sid\": ", (text){sid, SID_LEN});
	json_member(out, ", \"account_sid\": ", login_account(m->login));
	json_member(out, ", \"messaging_service_sid\": ", or_null(message_service(m)));
	json_number(out, ", \"from\": ", message_from(m), redacted);
	json_number(out, ", \"to\": ", message_to(m), redacted);
	json_body(out, message_body(m), redacted);
	json_member(out, ", \"status\": ", text_of(message_status(m, sent)));
	json_segments(out, m, just_created);
	json_date(out, ", \"date_created\": ", message_date_created(m));
	json_date(out, ", \"date_updated\": ", message_date_created(m));
	json_date(out, ", \"date_sent\": ", sent);
	json_links(out, m, sid);
}
