/*
 * create.c
 *		Create requests: the faults before a message is accepted, accepting it,
 *		and the faults after that.
 */
#include "request.h"
#include "callbacks.h"
#include "clock.h"
#include "content.h"
#include "message_json.h"
#include "settings.h"
#include "smart.h"
#include "stats.h"

#include <string.h>
#include <strings.h>

static void
reply_nothing(request *r, reply_style style)
{
	r->reply.status = 500;
	r->reply.style = style;
}

static void
reply_plain_502(request *r)
{
	r->reply.status = 502;
	r->reply.content_type = "text/html";
	buf_string(&r->reply.body, "<html><head><title>502 Bad Gateway</title>"
							   "</head><body><h1>502 Bad Gateway</h1></body></html>\n");
}

/* Faults that prevent the request from being accepted. */
static void
apply_fault_before(request *r)
{
	switch (r->fault.kind)
	{
		case FAULT_429:
			reply_error(r, 20429);
			break;
		case FAULT_503:
			reply_error(r, 20503);
			break;
		case FAULT_500_BEFORE:
			reply_error(r, 20500);
			break;
		case FAULT_DROP_BEFORE:
			reply_nothing(r, REPLY_DROP);
			break;
		case FAULT_NEVER_BEFORE:
			reply_nothing(r, REPLY_NEVER);
			break;
		case FAULT_CODE:
			reply_error(r, r->fault.code);
			break;
		case FAULT_5XX_PLAIN:
			if (fault_chance() < 0.5)
				reply_plain_502(r);
			break;
		default:
			break;
	}
}

/* A rejected request ends at once: it does not count as in flight. */
static void
reject_over_concurrency(request *r)
{
	stats.over_concurrency++;
	stats.in_flight--;
	r->in_flight = false;
	r->reply.at_once = true;
	reply_error(r, 20429);
}

void
create_begin(request *r)
{
	r->reply.concurrent = stats.in_flight;
	if (settings.concurrency > 0 && stats.in_flight > settings.concurrency)
		reject_over_concurrency(r);
	else
	{
		r->fault = fault_for_create(form_get(&r->params, "To"));
		apply_fault_before(r);
	}
}

/* Collects the parameters for which the ledger has no columns. */
static void
collect_extra(const form *params, buf *extra)
{
	static const char *const own[] = {"To", "From", "MessagingServiceSid", "Body"};
	unsigned				 seen = 0;

	for (int i = 0; i < params->count; i++)
	{
		const param *p = &params->items[i];
		unsigned	 column = 0;

		for (int j = 0; j < 4; j++)
			column |= text_is(p->name, own[j]) ? 1u << j : 0;
		if (column != 0 && (seen & column) == 0)
		{
			seen |= column;
			continue;
		}
		buf_string(extra, extra->len > 0 ? "&" : "");
		buf_form(extra, p->name);
		buf_char(extra, '=');
		buf_form(extra, p->value);
	}
}

static int64_t
send_at(const form *params)
{
	int64_t from = 0;
	int64_t until;

	if (text_is(form_get(params, "ScheduleType"), "fixed"))
		parse_date(form_get(params, "SendAt"), &from, &until);
	return from;
}

static bool
is_true(text value)
{
	return value.len == 4 && strncasecmp(value.data, "true", 4) == 0;
}

/* Makes the text as the recipient gets it; absent if that is the body. */
static text
shown_text(const form *params, buf *shown)
{
	text sid = form_get(params, "ContentSid");
	text body = form_get(params, "Body");
	buf	 content = {NULL, 0, 0};

	if (sid.len > 0)
	{
		content_render(&content, sid, form_get(params, "ContentVariables"));
		body = (text){content.data, content.len};
	}
	if (is_true(form_get(params, "SmartEncoded")))
		smart_encode(shown, body);
	else if (sid.len > 0)
		buf_text(shown, body);
	else
		return (text){NULL, 0};
	buf_free(&content);
	return (text){shown->data != NULL ? shown->data : "", shown->len};
}

static message *
accept_message(const request *r)
{
	buf			extra = {NULL, 0, 0};
	buf			shown = {NULL, 0, 0};
	new_message asked = {
		.kind = MESSAGE_API,
		.login = r->login,
		.skew_s = r->skew_s,
		.send_at_s = send_at(&r->params),
		.media = form_count(&r->params, MEDIA_PARAM),
		.has_callback = form_get(&r->params, CALLBACK_PARAM).len > 0,
		.from = form_get(&r->params, "From"),
		.service = form_get(&r->params, "MessagingServiceSid"),
		.to = form_get(&r->params, "To"),
		.body = form_get(&r->params, "Body"),
	};
	message *m;

	collect_extra(&r->params, &extra);
	asked.extra = (text){extra.data, extra.len};
	asked.shown = shown_text(&r->params, &shown);
	m = message_add(&asked);
	buf_free(&extra);
	buf_free(&shown);
	stats.accepted++;
	return m;
}

static void
reply_created(request *r, const message *m)
{
	r->reply.status = 201;
	r->reply.content_type = "application/json";
	message_json(&r->reply.body, m, true);
}

static void
replace_body(request *r, const char *body)
{
	r->reply.body.len = 0;
	buf_string(&r->reply.body, body);
}

/* A long JSON answer, whose sid comes last. */
static void
reply_huge(request *r, const message *m)
{
	char sid[SID_LEN + 1];

	message_sid(m, sid);
	r->reply.style = REPLY_HUGE;
	replace_body(r, "\", \"status\": \"queued\", \"sid\": \"");
	buf_string(&r->reply.body, sid);
	buf_string(&r->reply.body, "\"}");
}

/* Faults of a request that was accepted. */
static void
apply_fault_after(request *r, const message *m)
{
	switch (r->fault.kind)
	{
		case FAULT_500_AFTER:
			reply_error(r, 20500);
			break;
		case FAULT_5XX_PLAIN:
			r->reply.body.len = 0;
			reply_plain_502(r);
			break;
		case FAULT_DROP_AFTER:
			reply_nothing(r, REPLY_DROP);
			break;
		case FAULT_NEVER_AFTER:
			reply_nothing(r, REPLY_NEVER);
			break;
		case FAULT_SLOW:
			r->reply.style = REPLY_SLOW;
			break;
		case FAULT_TRUNCATED:
			r->reply.style = REPLY_TRUNCATED;
			break;
		case FAULT_GARBAGE:
			replace_body(r, "OK, but this is {no JSON: [\x01\xff");
			break;
		case FAULT_NO_SID:
			replace_body(r, "{\"status\": \"queued\", \"error_code\": null}");
			break;
		case FAULT_HUGE:
			reply_huge(r, m);
			break;
		default:
			break;
	}
}

void
create_finish(request *r)
{
	int		 code = create_check(r);
	message *m;

	if (code != 0)
	{
		reply_error(r, code);
		return;
	}
	m = accept_message(r);
	reply_created(r, m);
	apply_fault_after(r, m);
}
