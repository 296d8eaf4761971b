/*-------------------------------------------------------------------------
 *
 * answer_headers.h
 *	  What the header lines of an answer say, and how many are accepted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ANSWER_HEADERS_H
#define SENDCAMPAIGN_ANSWER_HEADERS_H

#include "pgtime.h"

/* The values as received; "" if there are none. */
typedef struct AnswerHeaders
{
	size_t cost;  /* in bytes, of all lines so far */
	bool   ended; /* true if only trailers can follow */
	char   date[64];
	char   retry_after[64];
} AnswerHeaders;

/* Resets it for a new answer. */
extern void forget_headers(AnswerHeaders *headers);

/*
 * Takes a line of a header, a trailer or a status, as libcurl passes it.
 * Returns false if there have been too many.  Neither throws nor allocates
 * memory, so that a callback of libcurl may call it.
 */
extern bool take_header(AnswerHeaders *headers, const char *line, size_t length);

/*
 * Returns the answer's Date, or our own time if that is earlier; 0 if the
 * answer has none.
 */
extern pg_time_t date_of_headers(const AnswerHeaders *headers);

/* Returns the seconds to wait, at most a day; -1 if the server did not say. */
extern int retry_after_of_headers(const AnswerHeaders *headers);

#endif /* SENDCAMPAIGN_ANSWER_HEADERS_H */
