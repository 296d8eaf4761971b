/*-------------------------------------------------------------------------
 *
 * answer_headers.c
 *	  What the header lines of an answer say, and how many are accepted.
 *
 * libcurl collects headers for its own interface, whether that is used or not,
 * so a server that sends endless headers, interim answers or trailers would
 * fill the memory.  Therefore all lines are counted here, and the transfer
 * ends if there are too many.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <time.h>

#include "twilio/answer_headers.h"
#include "twilio/http_date.h"

/*
 * In bytes and seconds.  Twilio sends 2 KB in 25 lines.  The cost of a line
 * includes libcurl's memory for it.
 */
#define MAX_COST	  (64 * 1024)
#define COST_OF_LINE  128
#define LONGEST_PAUSE (24 * 60 * 60)

void
forget_headers(AnswerHeaders *headers)
{
	headers->cost = 0;
	headers->ended = false;
	headers->date[0] = '\0';
	headers->retry_after[0] = '\0';
}

/* Takes the value of the header with that name; of several, the first one. */
static void
take_value(char *value, size_t size, const char *name, const char *line, size_t length)
{
	size_t name_length = strlen(name);

	if (value[0] != '\0' || length <= name_length || line[name_length] != ':' ||
		pg_strncasecmp(line, name, name_length) != 0)
		return;
	line += name_length + 1;
	length -= name_length + 1;
	while (length > 0 && isspace((unsigned char) line[0]))
	{
		line++;
		length--;
	}
	while (length > 0 && isspace((unsigned char) line[length - 1]))
		length--;
	/* a longer value would not be one that we can parse */
	if (length < size)
	{
		memcpy(value, line, length);
		value[length] = '\0';
	}
}

bool
take_header(AnswerHeaders *headers, const char *line, size_t length)
{
	headers->cost += length + COST_OF_LINE;
	if (headers->cost > MAX_COST)
		return false;
	if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		/* the previous lines belonged to an interim answer */
		headers->ended = false;
		headers->date[0] = '\0';
		headers->retry_after[0] = '\0';
	}
	else if (length == 0 || line[0] == '\r' || line[0] == '\n')
		headers->ended = true;
	else if (!headers->ended)
	{
		take_value(headers->date, sizeof(headers->date), "Date", line, length);
		take_value(headers->retry_after, sizeof(headers->retry_after), "Retry-After", line, length);
	}
	return true;
}

/* Most answers have the same date as the previous one. */
static pg_time_t
parse_recent_date(const char *date)
{
	static char		 recent[64];
	static pg_time_t parsed = 0;

	if (strcmp(date, recent) != 0)
	{
		parsed = http_parse_date(date);
		strlcpy(recent, date, sizeof(recent));
	}
	return parsed;
}

/*
 * A lookup ignores messages that are older than the request by this clock.  If
 * it were fast, the lookup would ignore the message itself, which would then
 * be sent again; if it is slow, the lookup at worst ignores too little.
 */
pg_time_t
date_of_headers(const AnswerHeaders *headers)
{
	return headers->date[0] ? Min(parse_recent_date(headers->date), (pg_time_t) time(NULL)) : 0;
}

int
retry_after_of_headers(const AnswerHeaders *headers)
{
	const char *value = headers->retry_after;
	pg_time_t	now = headers->date[0] ? parse_recent_date(headers->date) : 0;
	pg_time_t	wait;

	if (value[0] == '\0')
		return -1;
	if (isdigit((unsigned char) value[0]) && value[strspn(value, "0123456789")] == '\0')
		wait = strlen(value) < 9 ? atoi(value) : LONGEST_PAUSE;
	else
	{
		pg_time_t then = http_parse_date(value);

		if (then == 0)
			return -1;
		wait = then - (now > 0 ? now : (pg_time_t) time(NULL));
	}
	return (int) Max(0, Min(wait, LONGEST_PAUSE));
}
