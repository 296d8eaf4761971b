/*-------------------------------------------------------------------------
 *
 * answer_headers.h
 *	  What the header lines of an answer say, and how many may come.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ANSWER_HEADERS_H
#define SENDCAMPAIGN_ANSWER_HEADERS_H

#include "pgtime.h"

/* The values as they came, "" for none. */
typedef struct AnswerHeaders
{
	size_t cost;  /* of all lines so far */
	bool   ended; /* trailers follow */
	char   date[64];
	char   retry_after[64];
} AnswerHeaders;

/* For a new answer. */
extern void forget_headers(AnswerHeaders *headers);

/*
 * Takes one line, of a header, a trailer or a status, as libcurl gives it.
 * False where there have been too many.  Neither throws nor allocates.
 */
extern bool take_header(AnswerHeaders *headers, const char *line, size_t length);

/*
 * The answer's Date, or our own time where that is earlier; 0 where there is
 * none.
 */
extern pg_time_t date_of_headers(const AnswerHeaders *headers);

/* Seconds to wait, at most a day; -1 where the server did not say. */
extern int retry_after_of_headers(const AnswerHeaders *headers);

#endif /* SENDCAMPAIGN_ANSWER_HEADERS_H */
