/*
 * headers.c
 *		The header lines of an answer, as libcurl splits them.
 */
#include "fuzz.h"

#include <time.h>

#include "../../src/twilio/answer_headers.h"

static void
check(const AnswerHeaders *headers)
{
	int pause = retry_after_of_headers(headers);

	promise(pause >= -1 && pause <= 24 * 60 * 60);
	promise((headers->retry_after[0] != '\0') || pause == -1);
	promise(date_of_headers(headers) >= 0 && date_of_headers(headers) <= time(NULL));
	promise(strlen(headers->date) < sizeof(headers->date));
	promise(strlen(headers->retry_after) < sizeof(headers->retry_after));
}

void
fuzz_one(const char *data, size_t size)
{
	const char	 *end = data + size;
	AnswerHeaders headers;

	memset(&headers, 'x', sizeof(headers));
	forget_headers(&headers);
	while (data < end)
	{
		const char *line_end = memchr(data, '\n', end - data);
		size_t		length = (line_end ? line_end + 1 : end) - data;
		char	   *line = memcpy(palloc(length), data, length); /* without a NUL */

		if (!take_header(&headers, line, length))
			break;
		check(&headers);
		data += length;
	}
	check(&headers);
}
