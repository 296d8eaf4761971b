/*
 * message_json.c
 *		A message as the API shows it.
 *
 * The answer to the create request shows it as queued (with a messaging
 * service: accepted).  Later it has the status that it has reached (status.c).
 */
#include "message_json.h"
#include "clock.h"
#include "errors.h"
#include "settings.h"
#include "status.h"

#include <string.h>

#define PRICE_OF_SEGMENT 750 /* in 1/100000 */

/* Appends the date; the last one is kept, since neighbors often share a second. */
static void
json_date(buf *out, const char *name, int64_t us, int64_t skew_s)
{
	static int64_t last = -1; /* protected by the world lock */
	static char	   date[40];
	int64_t		   seconds = us / US_PER_S + skew_s;

	buf_string(out, name);
	if (us < 0)
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
	static const char *const directions[] = {[MESSAGE_API] = "outbound-api",
											 [MESSAGE_REPLY] = "outbound-reply",
											 [MESSAGE_INBOUND] = "inbound"};

	buf_string(out, ", \"num_segments\": \"");
	buf_int(out, m->service_len > 0 && just_created ? 0 : m->segments);
	buf_string(out, "\", \"num_media\": \"");
	buf_int(out, m->media);
	buf_string(out, "\", \"direction\": \"");
	buf_string(out, directions[m->kind]);
	buf_string(out, "\", \"api_version\": \"2010-04-01\"");
}

/* A price is negative, with five decimals. */
static void
json_price(buf *out, const message *m, bool just_created)
{
	int64_t price = (int64_t) PRICE_OF_SEGMENT * m->segments;

	if (just_created || !message_priced(m))
		buf_string(out, ", \"price\": null");
	else
		buf_printf(out, ", \"price\": \"-%lld.%05d\"", (long long) (price / 100000),
				   (int) (price % 100000));
	json_member(out, ", \"price_unit\": ", text_of(settings.price_unit));
}

static void
json_error(buf *out, int code)
{
	if (code == 0)
	{
		buf_string(out, ", \"error_code\": null, \"error_message\": null");
		return;
	}
	buf_string(out, ", \"error_code\": ");
	buf_int(out, code);
	json_member(out, ", \"error_message\": ", text_of(delivery_error(code)));
}

/* The last four digits of a number are masked; other senders are shown. */
static void
json_number(buf *out, const char *name, text number, bool redacted)
{
	char masked[SENDER_MAX + 1];

	if (!redacted || number.len < 5 || memchr(number.data, '+', number.len) == NULL)
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
	char		   sid[SID_LEN + 1];
	bool		   redacted = !just_created && message_redacted(m);
	status_history history;
	status_change  last;

	buf_reserve(out, 900 + m->body_len);
	message_sid(m, sid);
	status_read(m, &history);
	last = history.changes[just_created ? 0 : history.count - 1];
	json_member(out, "{\"sid\": ", (text){sid, SID_LEN});
	json_member(out, ", \"account_sid\": ", login_account(m->login));
	json_member(out, ", \"messaging_service_sid\": ", or_null(message_service(m)));
	json_number(out, ", \"from\": ", message_from(m), redacted);
	json_number(out, ", \"to\": ", message_to(m), redacted);
	json_body(out, message_shown(m), redacted);
	json_member(out, ", \"status\": ", text_of(last.name));
	json_segments(out, m, just_created);
	json_price(out, m, just_created);
	json_error(out, last.code);
	json_date(out, ", \"date_created\": ", m->created_us, m->skew_s);
	json_date(out, ", \"date_updated\": ", last.at_us, m->skew_s);
	json_date(out, ", \"date_sent\": ", just_created ? -1 : history.sent_us, m->skew_s);
	json_links(out, m, sid);
}
