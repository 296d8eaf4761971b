/*
 * status.c
 *		The statuses of a message:
 *
 *	queued, accepted or scheduled	when it is created
 *	sent							once sent-after has passed
 *	delivered, undelivered			once deliver-after has passed, but not
 *									before it is sent
 *	read							after twice that time
 *	failed							once deliver-after has passed; it is never
 *									sent
 *	canceled						likewise, or by a request
 *	received						the only one of an inbound message
 *
 * These times begin when the message is created, or when it is to be sent if
 * it is scheduled; such a message is sent then.
 */
#include "status.h"
#include "clock.h"
#include "delivery.h"
#include "settings.h"

#define NEVER INT64_MAX

static int64_t
start_us(const message *m)
{
	return m->send_at_s > 0 ? (m->send_at_s - m->skew_s) * US_PER_S : m->created_us;
}

static bool
is_ever_sent(const message *m, delivery what)
{
	return m->canceled_us == 0 && what.kind != DELIVERY_FAILED && what.kind != DELIVERY_CANCELED;
}

/* Returns when the message is sent or received. */
static int64_t
sent_us(const message *m, delivery what)
{
	if (m->kind == MESSAGE_INBOUND)
		return m->created_us;
	if (settings.sent_after_us < 0 || !is_ever_sent(m, what))
		return NEVER;
	return m->send_at_s > 0 ? start_us(m) : m->created_us + settings.sent_after_us;
}

/* Returns when deliver-after has passed so many times; not before it is sent, if it ever is. */
static int64_t
end_us(const message *m, delivery what, int times)
{
	int64_t sent = sent_us(m, what);
	int64_t end = start_us(m) + times * settings.deliver_after_us;

	if (settings.deliver_after_us < 0 || (sent == NEVER && is_ever_sent(m, what)))
		return NEVER;
	return sent != NEVER && sent > end ? sent : end;
}

static const char *
first_status(const message *m)
{
	if (m->kind == MESSAGE_INBOUND)
		return "received";
	if (m->send_at_s > 0)
		return "scheduled";
	return m->service_len > 0 ? "accepted" : "queued";
}

/* Adds a status, if it has been reached. */
static void
reach(status_history *history, int64_t now, int64_t at_us, const char *name, int code)
{
	if (at_us <= now)
		history->changes[history->count++] = (status_change){name, at_us, code};
}

static void
reach_end(status_history *history, int64_t now, const message *m, delivery what)
{
	int64_t end = end_us(m, what, 1);

	switch (what.kind)
	{
		case DELIVERY_DELIVERED:
			reach(history, now, end, "delivered", 0);
			break;
		case DELIVERY_UNDELIVERED:
			reach(history, now, end, "undelivered", what.code);
			break;
		case DELIVERY_FAILED:
			reach(history, now, end, "failed", what.code);
			break;
		case DELIVERY_READ:
			reach(history, now, end, "delivered", 0);
			reach(history, now, end_us(m, what, 2), "read", 0);
			break;
		case DELIVERY_CANCELED:
			reach(history, now, end, "canceled", 0);
			break;
		default:
			break;
	}
}

void
status_read(const message *m, status_history *history)
{
	delivery what = delivery_of(m);
	int64_t	 sent = sent_us(m, what);
	int64_t	 now = now_us();

	history->count = 1;
	history->changes[0] = (status_change){first_status(m), m->created_us, 0};
	history->sent_us = sent <= now ? sent : -1;
	if (m->kind == MESSAGE_INBOUND)
		return;
	reach(history, now, sent, "sent", 0);
	if (m->canceled_us > 0)
		reach(history, now, m->canceled_us, "canceled", 0);
	else
		reach_end(history, now, m, what);
}

status_change
status_now(const message *m)
{
	status_history history;

	status_read(m, &history);
	return history.changes[history.count - 1];
}

int64_t
message_date_created(const message *m)
{
	return m->created_us / US_PER_S + m->skew_s;
}

int64_t
message_date_sent(const message *m)
{
	int64_t sent = sent_us(m, delivery_of(m));

	return sent > now_us() ? -1 : sent / US_PER_S + m->skew_s;
}

bool
message_redacted(const message *m)
{
	status_history history;

	if (settings.redact == REDACT_NOT)
		return false;
	status_read(m, &history);
	return history.count > 1 || m->kind == MESSAGE_INBOUND;
}

bool
message_priced(const message *m)
{
	return settings.price_after_us >= 0 && is_ever_sent(m, delivery_of(m)) &&
		   start_us(m) + settings.price_after_us <= now_us();
}
