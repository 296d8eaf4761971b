/*
 * events.c
 *		Events in JSON that anybody posts.
 */
#include "fuzz.h"

#include "../../src/twilio/events.h"
#include "../../src/twilio/request.h"
#include "mb/pg_wchar.h"

/* It is NULL, or can be stored. */
static void
check_text(const char *text)
{
	promise(text == NULL || pg_encoding_verifymbstr(PG_UTF8, text, strlen(text)) == strlen(text));
}

static void
check(const Events *events)
{
	promise(sid_is_valid(events->account) && events->count <= MAX_EVENTS);
	for (int i = 0; i < events->count; i++)
	{
		Event *event = &events->events[i];

		promise(sid_is_valid(event->sid));
		promise(event->at == 0 || event->at > 0);
		check_text(event->status);
		check_text(event->from);
		check_text(event->to);
		check_text(event->service);
		check_text(event->body);
		check_text(event->error_code);
	}
}

static bool
same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
compare(const Events *a, const Events *b)
{
	promise(same(a->account, b->account) && a->count == b->count);
	for (int i = 0; i < a->count; i++)
	{
		Event *x = &a->events[i];
		Event *y = &b->events[i];

		promise(same(x->sid, y->sid) && same(x->status, y->status) && same(x->from, y->from));
		promise(same(x->to, y->to) && same(x->service, y->service) && same(x->body, y->body));
		promise(same(x->error_code, y->error_code) && x->at == y->at);
	}
}

void
fuzz_one(const char *data, size_t size)
{
	Events		events;
	Events		of_pretty;
	int			length;
	char	   *pretty = fuzz_pretty(data, size, &length);
	const char *wrong = events_parse(data, size, &events);

	(void) is_json(data);
	if (memchr(data, '\0', size) != NULL)
		return; /* a text of PostgreSQL's has none */
	promise(same(wrong, events_parse(pretty, length, &of_pretty)));
	if (wrong)
		return;
	check(&events);
	compare(&events, &of_pretty);
}
