/*
 * stats.h
 *		What the local Twilio counts; protected by the world lock.
 */
#ifndef TWILIO_STATS_H
#define TWILIO_STATS_H

#include "text.h"

typedef struct stats_type
{
	long	requests; /* all that came to the API port */
	long	creates;
	long	accepted;
	long	lists;
	long	lists_from; /* those of one sender */
	long	fetches;
	long	cancels;
	long	status_429;
	long	status_401;
	long	over_concurrency;
	long	connections;
	long	tls_handshakes;
	long	open_connections; /* these two survive a reset */
	long	in_flight;
	long	max_in_flight;
	long	lists_in_flight; /* survives a reset, too */
	long	max_lists_in_flight;
	int64_t first_request_us;
	int64_t last_request_us;
	int64_t first_create_us;
	int64_t last_create_us;
} stats_type;

extern stats_type stats;

/* Resets all counts, except for those of what is open or in flight. */
extern void stats_reset(void);
extern void stats_count_request(bool create);
extern void stats_json(buf *out);

#endif
