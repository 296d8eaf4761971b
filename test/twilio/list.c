/*
 * list.c
 *		The list of messages: filters and pages, newest first.
 *
 * Other orders are produced by sorting all matching messages, again for each
 * page.  Their pages are numbered, while those of the usual order begin after
 * a message.
 *
 * With list-insert, a new message comes between two pages of a list.  With
 * list-shift, pages of the usual order are numbered, too, so that it shifts
 * what follows: a message is on two pages.
 *
 * DateSent< and DateSent> include the instant given.  A day stands for its
 * first instant there, and for the whole day in DateSent.
 */
#include "request.h"
#include "clock.h"
#include "message_json.h"
#include "settings.h"
#include "stats.h"
#include "status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 1000

typedef struct list_query
{
	text	 account;
	text	 to;
	text	 from;
	int64_t	 sent_from_s;
	int64_t	 sent_until_s; /* excluded */
	bool	 has_dates;
	int64_t	 visible_us; /* only messages created before this */
	long	 page;
	long	 page_size;
	long	 skip;	/* matches before this page */
	uint32_t below; /* only messages with smaller numbers */
} list_query;

static long
number_of(text value, long least, long most, long otherwise)
{
	long number = 0;

	if (value.len == 0 || value.len > 9)
		return otherwise;
	for (size_t i = 0; i < value.len; i++)
	{
		if (value.data[i] < '0' || value.data[i] > '9')
			return otherwise;
		number = number * 10 + value.data[i] - '0';
	}
	return number < least ? least : number > most ? most : number;
}

static void
narrow(list_query *q, int64_t from_s, int64_t until_s)
{
	q->has_dates = true;
	if (from_s > q->sent_from_s)
		q->sent_from_s = from_s;
	if (until_s < q->sent_until_s)
		q->sent_until_s = until_s;
}

static bool
read_dates(list_query *q, const form *params)
{
	q->sent_from_s = 0;
	q->sent_until_s = INT64_MAX;
	for (int i = 0; i < params->count; i++)
	{
		const param *p = &params->items[i];
		int64_t		 from_s;
		int64_t		 until_s;

		if (!text_starts(p->name, "DateSent"))
			continue;
		if (!parse_date(p->value, &from_s, &until_s))
			return false;
		if (text_is(p->name, "DateSent"))
			narrow(q, from_s, until_s);
		else if (text_is(p->name, "DateSent<"))
			narrow(q, 0, from_s + 1);
		else if (text_is(p->name, "DateSent>"))
			narrow(q, from_s, INT64_MAX);
	}
	return true;
}

/* A page token is PA and the sid of the last message of the previous page. */
static bool
read_token(list_query *q, text token)
{
	message *m;

	if (token.len == 0)
	{
		q->skip = q->page * q->page_size;
		return true;
	}
	if (!text_starts(token, "PA"))
		return false;
	m = message_by_sid((text){token.data + 2, token.len - 2});
	if (m == NULL)
		return false;
	q->below = m->index;
	return true;
}

/* Messages that have been visible stay so, even if the lag is increased. */
static int64_t
visible_until(void)
{
	static int64_t	visible_us; /* protected by the world lock */
	static uint32_t generation;
	int64_t			now = now_us() - settings.list_lag_us;

	if (generation != messages_generation())
		visible_us = 0;
	generation = messages_generation();
	if (now > visible_us)
		visible_us = now;
	return visible_us;
}

static bool
read_query(list_query *q, const request *r)
{
	*q = (list_query){
		.account = r->route.account,
		.to = form_get(&r->params, "To"),
		.from = form_get(&r->params, "From"),
		.visible_us = visible_until(),
		.page = number_of(form_get(&r->params, "Page"), 0, 1000000, 0),
		.page_size = number_of(form_get(&r->params, "PageSize"), 1, PAGE_MAX, 50),
		.below = NO_MESSAGE,
	};
	return read_dates(q, &r->params) && read_token(q, form_get(&r->params, "PageToken"));
}

static bool
date_matches(const list_query *q, const message *m)
{
	int64_t sent = message_date_sent(m);

	if (sent < 0)
		return settings.null_dates;
	return sent >= q->sent_from_s && sent < q->sent_until_s;
}

static bool
is_hidden(const list_query *q, const message *m)
{
	return settings.redact == REDACT_AND_HIDE && (q->to.len > 0 || q->from.len > 0) &&
		   message_redacted(m);
}

static bool
matches(const list_query *q, const message *m)
{
	return m->index < q->below && !is_hidden(q, m) && m->created_us <= q->visible_us &&
		   (q->from.len == 0 || text_equal(q->from, message_from(m))) &&
		   text_equal(q->account, login_account(m->login)) && (!q->has_dates || date_matches(q, m));
}

static message *
first_candidate(const list_query *q)
{
	uint32_t count = messages_count();

	if (q->to.len > 0)
		return message_newest_to(q->to);
	if (q->below < count)
		count = q->below;
	return count == 0 ? NULL : message_at(count - 1);
}

static message *
next_candidate(const list_query *q, const message *m)
{
	if (q->to.len > 0)
		return message_older_to(m);
	return m->index == 0 ? NULL : message_at(m->index - 1);
}

/* Steps from a candidate (inclusive) to the next match. */
static message *
next_match(const list_query *q, message *m)
{
	while (m != NULL && !matches(q, m))
		m = next_candidate(q, m);
	return m;
}

static uint32_t
shuffled(const message *m)
{
	return (m->index + 1) * UINT32_C(2654435761) ^ m->index >> 7;
}

static int64_t
sort_key(const message *m)
{
	int64_t sent = message_date_sent(m);

	if (settings.order == ORDER_NONE)
		return shuffled(m);
	return sent >= 0 ? sent : settings.nulls_first ? INT64_MAX : -1;
}

/* Newest first. */
static int
compare_messages(const void *a, const void *b)
{
	const message *x = *(const message *const *) a;
	const message *y = *(const message *const *) b;
	int64_t		   key_x = sort_key(x);
	int64_t		   key_y = sort_key(y);

	if (key_x != key_y)
		return key_x > key_y ? -1 : 1;
	return x->index > y->index ? -1 : x->index < y->index;
}

/* Returns all matching messages, sorted; the caller frees the array. */
static message **
sort_matches(const list_query *q, long *count)
{
	message **all = need(malloc((messages_count() + 1) * sizeof(message *)));

	*count = 0;
	for (message *m = next_match(q, first_candidate(q)); m != NULL;
		 m = next_match(q, next_candidate(q, m)))
		all[(*count)++] = m;
	qsort(all, *count, sizeof(message *), compare_messages);
	return all;
}

/* Like list_messages(), in another order. */
static long
list_sorted(buf *out, const list_query *q, const message **last)
{
	long	  count;
	message **all = sort_matches(q, &count);
	long	  written = 0;

	*last = NULL;
	for (long i = q->skip; i < count && written < q->page_size; i++)
	{
		buf_string(out, written++ > 0 ? ", " : "");
		message_json(out, all[i], false);
		*last = i + 1 < count ? all[i] : NULL;
	}
	free(all);
	return written;
}

/*
 * Writes the messages of the page, and returns their number.  If another page
 * follows, sets *last to the last of them, else to NULL.
 */
static long
list_messages(buf *out, const list_query *q, const message **last)
{
	message		  *m = next_match(q, first_candidate(q));
	const message *written = NULL;
	long		   count = 0;

	for (long i = 0; i < q->skip && m != NULL; i++)
		m = next_match(q, next_candidate(q, m));
	for (; m != NULL && count < q->page_size; count++)
	{
		buf_string(out, count > 0 ? ", " : "");
		message_json(out, m, false);
		written = m;
		m = next_match(q, next_candidate(q, m));
	}
	*last = m != NULL ? written : NULL;
	return count;
}

/*
 * Adds a message to the list, unless that is empty, before another page than
 * the first is answered.  It is like the newest, but not accepted from the API.
 */
static void
insert_message(const list_query *q, int64_t skew_s)
{
	list_query	   all = *q;
	const message *newest;

	if (!settings.list_insert || q->page == 0)
		return;
	all.below = NO_MESSAGE;
	newest = next_match(&all, first_candidate(&all));
	if (newest == NULL)
		return;
	message_add(&(new_message){
		.kind = newest->kind == MESSAGE_INBOUND ? MESSAGE_INBOUND : MESSAGE_REPLY,
		.login = newest->login,
		.skew_s = skew_s,
		.from = message_from(newest),
		.service = message_service(newest),
		.to = message_to(newest),
		.body = text_of("Inserted"),
	});
}

static void
list_uri(buf *out, const request *r)
{
	buf_text(out, r->route.prefix);
	buf_string(out, "/2010-04-01/Accounts/");
	buf_text(out, r->route.account);
	buf_string(out, "/Messages.json?");
}

/* Appends the filters of the request, for the URI of another page. */
static void
list_filters(buf *out, const request *r)
{
	for (int i = 0; i < r->params.count; i++)
	{
		const param *p = &r->params.items[i];

		if (text_starts(p->name, "Page"))
			continue;
		buf_form(out, p->name);
		buf_char(out, '=');
		buf_form(out, p->value);
		buf_char(out, '&');
	}
}

static void
page_origin(buf *out, const request *r)
{
	if (strcmp(settings.next_page, "absolute") == 0)
		buf_printf(out, "%s://%s", r->tls ? "https" : "http", r->host != NULL ? r->host : "");
	else
		buf_string(out, settings.next_page);
}

static void
page_uri(buf *out, const request *r, const list_query *q, long page, const char *token)
{
	buf uri = {NULL, 0, 0};

	page_origin(&uri, r);
	list_uri(&uri, r);
	list_filters(&uri, r);
	buf_printf(&uri, "PageSize=%ld&Page=%ld", q->page_size, page);
	if (token != NULL)
		buf_printf(&uri, "&PageToken=PA%s", token);
	buf_json(out, (text){uri.data, uri.len});
	buf_free(&uri);
}

/* An endless list always has one more page. */
static void
next_page(buf *out, const request *r, const list_query *q, const message *last)
{
	char sid[SID_LEN + 1];
	text token = form_get(&r->params, "PageToken");

	if (r->fault.kind == FAULT_LIST_ENDLESS && last == NULL && token.len == SID_LEN + 2)
	{
		memcpy(sid, token.data + 2, SID_LEN);
		sid[SID_LEN] = '\0';
		page_uri(out, r, q, q->page + 1, sid);
	}
	else if (last != NULL && (settings.order != ORDER_CREATED || settings.list_shift))
		page_uri(out, r, q, q->page + 1, NULL);
	else if (last != NULL)
	{
		message_sid(last, sid);
		page_uri(out, r, q, q->page + 1, sid);
	}
	else if (r->fault.kind == FAULT_LIST_ENDLESS)
		page_uri(out, r, q, q->page + 1, NULL);
	else
		buf_string(out, "null");
}

static void
list_trailer(buf *out, const request *r, const list_query *q, long count, const message *last)
{
	long start = q->page * q->page_size;

	buf_printf(out,
			   "], \"page\": %ld, \"page_size\": %ld, \"start\": %ld"
			   ", \"end\": %ld, \"uri\": ",
			   q->page, q->page_size, start, start + (count > 0 ? count - 1 : 0));
	page_uri(out, r, q, q->page, NULL);
	buf_string(out, ", \"first_page_uri\": ");
	page_uri(out, r, q, 0, NULL);
	buf_string(out, ", \"previous_page_uri\": null, \"next_page_uri\": ");
	next_page(out, r, q, last);
	buf_char(out, '}');
}

void
list_answer(request *r)
{
	list_query	   q;
	const message *last;
	buf			  *out = &r->reply.body;
	long		   count;

	stats.lists++;
	stats.lists_from += form_get(&r->params, "From").len > 0;
	r->is_list = true;
	if (++stats.lists_in_flight > stats.max_lists_in_flight)
		stats.max_lists_in_flight = stats.lists_in_flight;
	if (reply_read_fault(r))
		return;
	if (!read_query(&q, r))
	{
		reply_error(r, 20001);
		return;
	}
	insert_message(&q, r->skew_s);
	q.visible_us = visible_until();
	r->reply.status = 200;
	r->reply.content_type = "application/json";
	buf_string(out, "{\"messages\": [");
	count = settings.order == ORDER_CREATED ? list_messages(out, &q, &last)
											: list_sorted(out, &q, &last);
	list_trailer(out, r, &q, count, last);
}
