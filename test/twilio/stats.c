/*
 * stats.c
 *		What the local Twilio counts.
 */
#include "stats.h"
#include "clock.h"
#include "faults.h"
#include "messages.h"

stats_type stats;

void
stats_reset(void)
{
	stats = (stats_type){
		.open_connections = stats.open_connections,
		.in_flight = stats.in_flight,
		.max_in_flight = stats.in_flight,
		.lists_in_flight = stats.lists_in_flight,
		.max_lists_in_flight = stats.lists_in_flight,
	};
	faults_reset_hits();
}

static void
count_create(int64_t now)
{
	stats.creates++;
	stats.in_flight++;
	if (stats.in_flight > stats.max_in_flight)
		stats.max_in_flight = stats.in_flight;
	if (stats.first_create_us == 0)
		stats.first_create_us = now;
	stats.last_create_us = now;
}

void
stats_count_request(bool create)
{
	int64_t now = now_us();

	stats.requests++;
	if (stats.first_request_us == 0)
		stats.first_request_us = now;
	stats.last_request_us = now;
	if (create)
		count_create(now);
}

static void
json_count(buf *out, const char *name, long count)
{
	buf_printf(out, "\"%s\": %ld, ", name, count);
}

/* Appends the time in seconds, with six decimals; null if it did not happen. */
static void
json_time(buf *out, const char *name, int64_t us)
{
	if (us == 0)
		buf_printf(out, "\"%s\": null, ", name);
	else
		buf_printf(out, "\"%s\": %lld.%06d, ", name, (long long) (us / US_PER_S),
				   (int) (us % US_PER_S));
}

static void
json_counts(buf *out)
{
	json_count(out, "requests", stats.requests);
	json_count(out, "create_requests", stats.creates);
	json_count(out, "accepted", stats.accepted);
	json_count(out, "stored", messages_accepted());
	json_count(out, "create_in_flight", stats.in_flight);
	json_count(out, "max_in_flight", stats.max_in_flight);
	json_count(out, "inbound", messages_inbound());
	json_count(out, "lists", stats.lists);
	json_count(out, "lists_from", stats.lists_from);
	json_count(out, "max_lists_in_flight", stats.max_lists_in_flight);
	json_count(out, "fetches", stats.fetches);
	json_count(out, "cancels", stats.cancels);
	json_count(out, "connections", stats.connections);
	json_count(out, "open_connections", stats.open_connections);
	json_count(out, "tls_handshakes", stats.tls_handshakes);
	json_count(out, "status_429", stats.status_429);
	json_count(out, "status_401", stats.status_401);
	json_count(out, "over_concurrency", stats.over_concurrency);
}

void
stats_json(buf *out)
{
	buf_char(out, '{');
	json_counts(out);
	json_time(out, "first_request_at", stats.first_request_us);
	json_time(out, "last_request_at", stats.last_request_us);
	json_time(out, "first_create_at", stats.first_create_us);
	json_time(out, "last_create_at", stats.last_create_us);
	buf_string(out, "\"faults\": ");
	faults_json(out);
	buf_string(out, "}\n");
}
