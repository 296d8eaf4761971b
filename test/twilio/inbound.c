/*
 * inbound.c
 *		Messages that are received.
 */
#include "inbound.h"
#include "callbacks.h"
#include "settings.h"

/* Collects the address of the callback, and what it has beyond the usual. */
static void
collect_callback(const form *params, buf *extra)
{
	buf_string(extra, CALLBACK_PARAM "=");
	buf_form(extra, text_of(settings.inbound_url));
	for (int i = 0; i < params->count; i++)
	{
		const param *p = &params->items[i];

		if (p->name.len == 0 || p->name.data[0] < 'A' || p->name.data[0] > 'Z')
			continue;
		buf_param(extra, p);
	}
}

static bool
is_number(text number)
{
	return number.len > 0 && number.len <= SENDER_MAX;
}

message *
inbound_add(const form *params)
{
	buf			extra = {NULL, 0, 0};
	new_message received = {
		.kind = MESSAGE_INBOUND,
		.login = account_login(form_get(params, "account")),
		.skew_s = settings.clock_skew_s,
		.has_callback = settings.inbound_url[0] != '\0',
		.from = form_get(params, "from"),
		.service = form_get(params, "service"),
		.to = form_get(params, "to"),
		.body = form_get(params, "body"),
	};
	message *m;

	if (received.login == NO_LOGIN || !is_number(received.from) || !is_number(received.to) ||
		received.service.len > SENDER_MAX)
		return NULL;
	collect_callback(params, &extra);
	received.extra = (text){extra.data, extra.len};
	m = message_add(&received);
	buf_free(&extra);
	return m;
}
