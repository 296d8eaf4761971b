/*
 * callbacks.c
 *		The log of callbacks.
 *
 * It is brought up to date only when somebody asks for it, so messages cost
 * nothing until then.  What is in it stays, even if settings change what
 * becomes of the messages.
 */
#include "callbacks.h"
#include "clock.h"
#include "form.h"
#include "status.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct callback
{
	uint32_t	  index; /* of the message */
	int			  step;	 /* of the message's statuses */
	status_change status;
} callback;

static callback *callbacks;
static uint32_t	 callback_count;
static uint32_t	 callback_cap;
static uint32_t	 log_generation; /* of the messages in the log */

static void
callback_add(const message *m, int step, status_change status)
{
	if (callback_count == callback_cap)
	{
		callback_cap = callback_cap == 0 ? 1024 : callback_cap * 2;
		callbacks = need(realloc(callbacks, callback_cap * sizeof(callback)));
	}
	callbacks[callback_count++] = (callback){m->index, step, status};
}

/* Adds the statuses that the message has reached since; nobody is told of the first one. */
static void
call_back(message *m)
{
	status_history history;
	int			   untold = m->kind == MESSAGE_INBOUND ? 0 : 1;

	status_read(m, &history);
	for (int i = untold + m->called_back; i < history.count; i++)
	{
		callback_add(m, i, history.changes[i]);
		m->called_back++;
	}
}

/* By their time; those of one message stay in their order. */
static int
compare_callbacks(const void *a, const void *b)
{
	const callback *x = a;
	const callback *y = b;

	if (x->status.at_us != y->status.at_us)
		return x->status.at_us < y->status.at_us ? -1 : 1;
	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	return x->step - y->step;
}

static void
bring_up_to_date(void)
{
	uint32_t before;
	message *m;

	if (log_generation != messages_generation())
		callback_count = 0;
	log_generation = messages_generation();
	before = callback_count;
	for (uint32_t i = 0; (m = message_at(i)) != NULL; i++)
	{
		if (m->has_callback)
			call_back(m);
	}
	if (callback_count > before)
		qsort(callbacks + before, callback_count - before, sizeof(callback), compare_callbacks);
}

static void
form_member(buf *out, const char *name, text value)
{
	buf_string(out, name);
	buf_form(out, value);
}

static void
form_common(buf *out, const message *m)
{
	char sid[SID_LEN + 1];

	message_sid(m, sid);
	form_member(out, "ApiVersion=2010-04-01&MessageSid=", text_of(sid));
	form_member(out, "&SmsSid=", text_of(sid));
	form_member(out, "&AccountSid=", login_account(m->login));
	if (m->service_len > 0)
		form_member(out, "&MessagingServiceSid=", message_service(m));
	form_member(out, "&From=", message_from(m));
	form_member(out, "&To=", message_to(m));
}

static void
form_done_date(buf *out, const message *m, status_change status)
{
	time_t	  when = status.at_us / US_PER_S + m->skew_s;
	struct tm tm;
	char	  date[16];

	gmtime_r(&when, &tm);
	strftime(date, sizeof(date), "%y%m%d%H%M", &tm);
	form_member(out, "&RawDlrDoneDate=", text_of(date));
}

static void
form_status(buf *out, const message *m, status_change status)
{
	form_common(out, m);
	form_member(out, "&MessageStatus=", text_of(status.name));
	form_member(out, "&SmsStatus=", text_of(status.name));
	if (status.code != 0)
	{
		buf_string(out, "&ErrorCode=");
		buf_int(out, status.code);
	}
	if (strcmp(status.name, "delivered") == 0)
		form_done_date(out, m, status);
}

static void
form_inbound(buf *out, const message *m, const form *params)
{
	char sid[SID_LEN + 1];

	message_sid(m, sid);
	form_common(out, m);
	form_member(out, "&SmsMessageSid=", text_of(sid));
	form_member(out, "&Body=", message_body(m));
	buf_string(out, "&SmsStatus=received&NumMedia=0&NumSegments=");
	buf_int(out, m->segments);
	buf_string(out, "&ToCountry=US&ToState=&ToCity=&ToZip="
					"&FromCountry=US&FromState=CA&FromCity=SAN+FRANCISCO&FromZip=94105");
	for (int i = 0; i < params->count; i++)
	{
		const param *p = &params->items[i];

		if (text_is(p->name, CALLBACK_PARAM))
			continue;
		buf_param(out, p);
	}
}

/* What follows the first # is not sent: it says how to connect. */
static text
without_fragment(text url)
{
	const char *hash = memchr(url.data, '#', url.len);

	return hash == NULL ? url : (text){url.data, hash - url.data};
}

static void
callback_line(buf *out, const callback *c)
{
	const message *m = message_at(c->index);
	text		   extra = message_extra(m);
	char		  *copy = text_copy(extra);
	form		   params;

	form_init(&params);
	form_parse(&params, copy, extra.len);
	buf_tsv(out, without_fragment(form_get(&params, CALLBACK_PARAM)));
	buf_char(out, '\t');
	if (m->kind == MESSAGE_INBOUND)
		form_inbound(out, m, &params);
	else
		form_status(out, m, c->status);
	buf_char(out, '\n');
	form_free(&params);
	free(copy);
}

void
callbacks_write(buf *out, uint32_t since)
{
	bring_up_to_date();
	for (uint32_t i = since; i < callback_count; i++)
		callback_line(out, &callbacks[i]);
}
