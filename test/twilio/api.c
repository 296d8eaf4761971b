/*
 * api.c
 *		Finds out what a request asks for and whether it is allowed, and gives
 *		the simple answers.  create.c creates messages, list.c lists them.
 */
#include "request.h"
#include "clock.h"
#include "errors.h"
#include "message_json.h"
#include "settings.h"
#include "stats.h"
#include "status.h"
#include "world.h"

#include <string.h>

static const char accounts_path[] = "/2010-04-01/Accounts/";
static const char garbage[] = "<!-- \x01 gateway says {\"sid\": \"SM";

void
reply_error(request *r, int code)
{
	reply *answer = &r->reply;

	answer->status = error_status(code);
	answer->content_type = "application/json";
	if (answer->status == 429)
		answer->retry_after_s = settings.retry_after_s;
	answer->body.len = 0;
	error_json(&answer->body, code);
}

/* Splits the path at the next slash; returns false if there is none. */
static bool
next_part(text *path, text *part)
{
	const char *slash = memchr(path->data, '/', path->len);

	*part = *path;
	if (slash == NULL)
		return false;
	part->len = slash - path->data;
	*path = (text){slash + 1, path->data + path->len - slash - 1};
	return true;
}

static bool
drop_json(text *part)
{
	if (part->len <= 5 || memcmp(part->data + part->len - 5, ".json", 5) != 0)
		return false;
	part->len -= 5;
	return true;
}

/* Returns what the path names; where it depends on the method, that of a POST. */
static route
route_of_path(text path)
{
	const char *start = memmem(path.data, path.len, accounts_path, sizeof(accounts_path) - 1);
	route		to = {.kind = ROUTE_UNKNOWN};
	text		part;

	if (start == NULL)
		return to;
	to.prefix = (text){path.data, start - path.data};
	path.len -= start - path.data + sizeof(accounts_path) - 1;
	path.data = start + sizeof(accounts_path) - 1;
	if (!next_part(&path, &to.account))
		to.kind = drop_json(&to.account) ? ROUTE_ACCOUNT : ROUTE_UNKNOWN;
	else if (text_is(path, "Messages.json"))
		to.kind = ROUTE_CREATE;
	else if (next_part(&path, &part) && text_is(part, "Messages"))
	{
		to.sid = path;
		to.kind = drop_json(&to.sid) ? ROUTE_UPDATE : ROUTE_UNKNOWN;
	}
	return to;
}

static bool
is_post(const request *r)
{
	return strcmp(r->method, "POST") == 0;
}

static void
find_route(request *r)
{
	r->route = route_of_path(text_of(r->url));
	if (is_post(r))
		return;
	if (r->route.kind == ROUTE_CREATE)
		r->route.kind = ROUTE_LIST;
	else if (r->route.kind == ROUTE_UPDATE)
		r->route.kind = ROUTE_FETCH;
}

static bool
method_allowed(const request *r)
{
	bool wants_post = r->route.kind == ROUTE_CREATE || r->route.kind == ROUTE_UPDATE;

	return strcmp(r->method, wants_post ? "POST" : "GET") == 0;
}

/* Returns 0, or the code of what is wrong with path, method or credentials. */
static int
check_access(request *r)
{
	r->login = accounts_login(r->authorization);
	if (r->login == NO_LOGIN)
		return 20003;
	if (r->route.kind == ROUTE_UNKNOWN || !account_exists(r->route.account))
		return 20404;
	if (!text_equal(r->route.account, login_account(r->login)))
		return 20003;
	return method_allowed(r) ? 0 : 20004;
}

static void
reply_message(request *r, const message *m)
{
	r->reply.status = 200;
	r->reply.content_type = "application/json";
	message_json(&r->reply.body, m, false);
}

/* Returns the message that the path names, if it belongs to the account. */
static message *
message_of_route(const request *r)
{
	message *m = message_by_sid(r->route.sid);

	if (m == NULL || !text_equal(login_account(m->login), r->route.account))
		return NULL;
	return m;
}

static void
answer_fetch(request *r)
{
	message *m = message_of_route(r);

	stats.fetches++;
	if (reply_read_fault(r))
		return;
	if (m == NULL)
		reply_error(r, 20404);
	else
		reply_message(r, m);
}

/* Only a scheduled message that has not been sent can be canceled. */
static void
answer_update(request *r)
{
	message *m = message_of_route(r);

	stats.cancels++;
	if (m == NULL)
		reply_error(r, 20404);
	else if (!text_is(form_get(&r->params, "Status"), "canceled"))
		reply_error(r, 20001);
	else if (strcmp(status_now(m).name, "scheduled") != 0)
		reply_error(r, 30409);
	else
	{
		m->canceled_us = now_us();
		reply_message(r, m);
	}
}

static void
answer_account(request *r)
{
	r->reply.status = 200;
	r->reply.content_type = "application/json";
	buf_string(&r->reply.body, "{\"sid\": ");
	buf_json(&r->reply.body, r->route.account);
	buf_string(&r->reply.body, ", \"friendly_name\": \"Local Twilio\""
							   ", \"status\": \"active\", \"type\": \"Full\"}");
}

/* Applies faults to requests that read; returns true if that decides the answer. */
bool
reply_read_fault(request *r)
{
	r->fault = fault_for_read();
	switch (r->fault.kind)
	{
		case FAULT_LIST_500:
			reply_error(r, 20500);
			break;
		case FAULT_LIST_403:
			reply_error(r, 20403);
			break;
		case FAULT_LIST_429:
			reply_error(r, 20429);
			break;
		case FAULT_LIST_GARBAGE:
			r->reply.status = 200;
			r->reply.content_type = "application/json";
			buf_string(&r->reply.body, garbage);
			break;
		case FAULT_LIST_DROP:
			r->reply.status = 500;
			r->reply.style = REPLY_DROP;
			break;
		case FAULT_LIST_NEVER:
			r->reply.status = 500;
			r->reply.style = REPLY_NEVER;
			break;
		default:
			return false;
	}
	return true;
}

/* Counts the request, and decides answers for which it need not be accepted. */
void
api_begin(request *r)
{
	bool create;
	int	 code;

	find_route(r);
	create = r->route.kind == ROUTE_CREATE && is_post(r);
	if (is_post(r) && r->has_form)
		form_parse(&r->params, r->input.data, r->input.len);
	pthread_mutex_lock(&world_lock);
	r->skew_s = settings.clock_skew_s;
	r->in_flight = create;
	stats_count_request(create);
	code = check_access(r);
	if (code != 0)
		reply_error(r, code);
	else if (create)
		create_begin(r);
	pthread_mutex_unlock(&world_lock);
}

static void
api_answer(request *r)
{
	switch (r->route.kind)
	{
		case ROUTE_CREATE:
			create_finish(r);
			break;
		case ROUTE_LIST:
			list_answer(r);
			break;
		case ROUTE_FETCH:
			answer_fetch(r);
			break;
		case ROUTE_UPDATE:
			answer_update(r);
			break;
		default:
			answer_account(r);
	}
}

static int64_t
draw_delay(void)
{
	int64_t delay = settings.latency_us;

	if (settings.slow_percent > 0 && fault_chance() * 100 < settings.slow_percent)
		return settings.slow_us;
	if (settings.latency_spread_us > 0)
		delay += (fault_chance() * 2 - 1) * settings.latency_spread_us;
	return delay < 0 ? 0 : delay;
}

/* Decides the answer for good, and how long it takes. */
void
api_finish(request *r)
{
	pthread_mutex_lock(&world_lock);
	if (r->reply.status == 0)
		api_answer(r);
	if (!r->reply.at_once)
		r->delay_us = draw_delay();
	if (r->reply.status == 429)
		stats.status_429++;
	if (r->reply.status == 401)
		stats.status_401++;
	pthread_mutex_unlock(&world_lock);
}

/* The request is over, answered or not. */
void
api_done(request *r)
{
	if (!r->in_flight && !r->is_list)
		return;
	pthread_mutex_lock(&world_lock);
	stats.in_flight -= r->in_flight;
	stats.lists_in_flight -= r->is_list;
	pthread_mutex_unlock(&world_lock);
	r->in_flight = r->is_list = false;
}
