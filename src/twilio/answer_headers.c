/*-------------------------------------------------------------------------
 *
 * answer_headers.c
 *	  What the header lines of an answer say, and how many may come.
 *
 * libcurl has an interface for headers of its own, and collects them for it
 * whether it is used or not: a server that sends headers, interim answers or
 * trailers without end fills the memory.  So all lines are counted here, and
 * the transfer ends where they are too many.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <time.h>

#include "twilio/answer_headers.h"
#include "twilio/http_date.h"

/* Twilio sends 2 KB in 25 lines.  libcurl's memory for a line is part of its cost. */
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

/* Takes the value of a header of that name; of several, the first one. */
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
	/* one that is longer is none that we could read */
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
		/* what was before belonged to an interim answer */
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

/* Most answers have the date of the one before. */
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
 * A look-up leaves out messages that are older than the request by this
 * clock.  One that is fast would leave out the message itself, which then
 * would be sent again; one that is slow leaves out too little, at worst.
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
