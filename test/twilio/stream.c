/*
 * stream.c
 *		Answers that do not leave in one piece: byte by byte over two seconds,
 *		cut off in the middle, or 64 MB long.
 */
#include "stream.h"
#include "clock.h"

#include <string.h>

#define SLOW_US	  (2 * US_PER_S)
#define HUGE_SIZE (64 * 1024 * 1024)

static const char huge_start[] = "{\"body\": \"";

/* Sends one byte once it is due; before that, the connection waits. */
static ssize_t
read_slow(void *of, uint64_t pos, char *to, size_t max)
{
	request *r = of;
	size_t	 len = r->reply.body.len;
	int64_t	 now = monotonic_us();

	(void) max;
	if (pos == 0)
		r->wait.due_us = now;
	else if (r->wait.due_us > now && wait_until(&r->wait, r->wait.due_us))
		return 0;
	r->wait.due_us += SLOW_US / (int64_t) len;
	*to = r->reply.body.data[pos];
	return 1;
}

/* Sends the first half; then the connection is closed. */
static ssize_t
read_truncated(void *of, uint64_t pos, char *to, size_t max)
{
	request *r = of;
	size_t	 left = r->reply.body.len / 2;

	if (pos >= left)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	left -= pos;
	left = left < max ? left : max;
	memcpy(to, r->reply.body.data + pos, left);
	return left;
}

static char
huge_byte(const request *r, uint64_t pos)
{
	size_t tail = HUGE_SIZE - r->reply.body.len;

	if (pos < sizeof(huge_start) - 1)
		return huge_start[pos];
	return pos < tail ? 'x' : r->reply.body.data[pos - tail];
}

/* Sends a JSON object: its start, very many x, and then the reply's body. */
static ssize_t
read_huge(void *of, uint64_t pos, char *to, size_t max)
{
	request *r = of;
	size_t	 tail = HUGE_SIZE - r->reply.body.len;

	if (pos >= sizeof(huge_start) - 1 && pos + max <= tail)
		memset(to, 'x', max);
	else
	{
		max = max < HUGE_SIZE - pos ? max : HUGE_SIZE - pos;
		for (size_t i = 0; i < max; i++)
			to[i] = huge_byte(r, pos + i);
	}
	return max;
}

struct MHD_Response *
stream_response(request *r)
{
	MHD_ContentReaderCallback reader = read_slow;
	uint64_t				  size = r->reply.body.len;
	size_t					  block = 4096;

	if (r->reply.style == REPLY_TRUNCATED)
		reader = read_truncated;
	else if (r->reply.style == REPLY_HUGE)
	{
		reader = read_huge;
		size = HUGE_SIZE;
		block = 65536;
	}
	return MHD_create_response_from_callback(size, block, reader, r, NULL);
}
