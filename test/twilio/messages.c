/*
 * messages.c
 *		The messages, in memory and, if requested, those that were accepted as
 *		lines of a ledger file.
 *
 * A message is one block, allocated from large chunks; its strings follow the
 * struct.  Its sid is not stored, but computed from its number, and vice
 * versa.  Recipients are hashed into chains that go from newer to older
 * messages, since that is the order of lists.
 */
#include "messages.h"
#include "clock.h"
#include "segments.h"

#include <fcntl.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CHUNK_SIZE (1024 * 1024)

typedef struct chunk
{
	struct chunk *before;
	size_t		  used;
	size_t		  size;
	char		  data[];
} chunk;

static chunk	*chunks;
static message **messages;
static uint32_t	 message_count;
static uint32_t	 message_cap;
static uint32_t	 accepted_count;
static uint32_t	 inbound_count;
static uint32_t *buckets;
static uint32_t	 bucket_count;
static uint32_t	 generation; /* incremented by every reset */
static int		 ledger_fd = -1;

/* sid: a random half for the process, and a half that obscures a counter */
static uint64_t sid_high;
static uint64_t sid_first; /* counter of the message with index 0 */

#define SID_FACTOR UINT64_C(0x9E3779B97F4A7C15) /* odd */

static void
buckets_clear(uint32_t count)
{
	free(buckets);
	buckets = need(malloc(count * sizeof(uint32_t)));
	memset(buckets, 0xFF, count * sizeof(uint32_t));
	bucket_count = count;
}

void
messages_init(void)
{
	if (getrandom(&sid_high, sizeof(sid_high), 0) != sizeof(sid_high))
		fatal("no random numbers");
	sid_first = sid_high >> 20;
	buckets_clear(1024);
}

void
messages_open_ledger(const char *path)
{
	ledger_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (ledger_fd < 0)
		fatal("cannot open the ledger %s", path);
}

void
messages_reset(void)
{
	while (chunks != NULL)
	{
		chunk *before = chunks->before;

		free(chunks);
		chunks = before;
	}
	sid_first += message_count;
	message_count = 0;
	accepted_count = 0;
	inbound_count = 0;
	generation++;
	buckets_clear(1024);
	if (ledger_fd >= 0 && ftruncate(ledger_fd, 0) != 0)
		fatal("cannot truncate the ledger");
}

uint32_t
messages_count(void)
{
	return message_count;
}

uint32_t
messages_accepted(void)
{
	return accepted_count;
}

uint32_t
messages_inbound(void)
{
	return inbound_count;
}

uint32_t
messages_generation(void)
{
	return generation;
}

static void *
chunk_alloc(size_t size)
{
	void *block;

	size = (size + alignof(message) - 1) & ~(alignof(message) - 1);
	if (chunks == NULL || chunks->used + size > chunks->size)
	{
		size_t cap = size > CHUNK_SIZE ? size : CHUNK_SIZE;
		chunk *fresh = need(malloc(sizeof(chunk) + cap));

		*fresh = (chunk){chunks, 0, cap};
		chunks = fresh;
	}
	block = chunks->data + chunks->used;
	chunks->used += size;
	return block;
}

static uint32_t *
bucket_of(text to)
{
	return &buckets[text_hash(to) & (bucket_count - 1)];
}

static void
bucket_link(message *m)
{
	uint32_t *bucket = bucket_of(message_to(m));

	m->older = *bucket;
	*bucket = m->index;
}

/* Makes room for one more message in the array and in the buckets. */
static void
messages_grow(void)
{
	if (message_count == message_cap)
	{
		message_cap = message_cap == 0 ? 1024 : message_cap * 2;
		messages = need(realloc(messages, message_cap * sizeof(message *)));
	}
	if (message_count < bucket_count)
		return;
	buckets_clear(bucket_count * 4);
	for (uint32_t i = 0; i < message_count; i++)
		bucket_link(messages[i]);
}

static char *
append(char *to, text part)
{
	if (part.len > 0)
		memcpy(to, part.data, part.len);
	return to + part.len;
}

/* A message with media is one segment, however long its text is. */
static int
segments_of(const new_message *asked)
{
	if (asked->media > 0)
		return 1;
	return count_segments(asked->shown.data != NULL ? asked->shown : asked->body);
}

static void
copy_texts(message *m, const new_message *asked)
{
	char *to = m->data;

	to = append(to, asked->from);
	to = append(to, asked->service);
	to = append(to, asked->to);
	to = append(to, asked->body);
	to = append(to, asked->extra);
	append(to, asked->shown);
}

static message *
message_build(const new_message *asked)
{
	message *m = chunk_alloc(sizeof(message) + asked->from.len + asked->service.len +
							 asked->to.len + asked->body.len + asked->extra.len + asked->shown.len);

	*m = (message){
		.created_us = now_us(),
		.send_at_s = asked->send_at_s,
		.skew_s = asked->skew_s,
		.index = message_count,
		.body_len = asked->body.len,
		.extra_len = asked->extra.len,
		.shown_len = asked->shown.len,
		.login = asked->login,
		.segments = segments_of(asked),
		.from_len = asked->from.len,
		.service_len = asked->service.len,
		.to_len = asked->to.len,
		.kind = asked->kind,
		.media = asked->media,
		.has_callback = asked->has_callback,
		.has_shown = asked->shown.data != NULL,
	};
	copy_texts(m, asked);
	return m;
}

/* Writes the line with one write, so that it is in the file before any answer leaves. */
static void
ledger_write(const message *m)
{
	static buf line; /* protected by the world lock */

	if (ledger_fd < 0)
		return;
	line.len = 0;
	message_ledger_line(&line, m);
	if (write(ledger_fd, line.data, line.len) != (ssize_t) line.len)
		fatal("cannot write to the ledger");
}

message *
message_add(const new_message *asked)
{
	message *m;

	messages_grow();
	m = message_build(asked);
	messages[message_count++] = m;
	bucket_link(m);
	if (m->kind == MESSAGE_INBOUND)
		inbound_count++;
	if (m->kind == MESSAGE_API)
	{
		accepted_count++;
		ledger_write(m);
	}
	return m;
}

message *
message_at(uint32_t index)
{
	return index < message_count ? messages[index] : NULL;
}

void
message_sid(const message *m, char sid[SID_LEN + 1])
{
	static const char digits[] = "0123456789abcdef";
	uint64_t		  low = (sid_first + m->index) * SID_FACTOR;

	sid[0] = m->media > 0 ? 'M' : 'S';
	sid[1] = 'M';
	for (int i = 0; i < 16; i++)
	{
		sid[2 + i] = digits[sid_high >> (60 - 4 * i) & 15];
		sid[18 + i] = digits[low >> (60 - 4 * i) & 15];
	}
	sid[SID_LEN] = '\0';
}

/* Newton's iteration doubles the number of correct bits: 3, 6, 12, 24, 48, 96. */
static uint64_t
inverse(uint64_t odd)
{
	uint64_t x = odd;

	for (int i = 0; i < 5; i++)
		x *= 2 - odd * x;
	return x;
}

message *
message_by_sid(text sid)
{
	char	 digits[17] = {0};
	char	 back[SID_LEN + 1];
	uint64_t number;
	message *m;

	if (sid.len != SID_LEN)
		return NULL;
	memcpy(digits, sid.data + 18, 16);
	number = strtoull(digits, NULL, 16) * inverse(SID_FACTOR) - sid_first;
	if (number >= message_count)
		return NULL;
	m = messages[number];
	message_sid(m, back);
	return text_is(sid, back) ? m : NULL;
}

/* Returns the newest message to this number from index on; NULL if there is none. */
static message *
bucket_search(uint32_t index, text to)
{
	while (index != NO_MESSAGE && !text_equal(message_to(messages[index]), to))
		index = messages[index]->older;
	return index == NO_MESSAGE ? NULL : messages[index];
}

message *
message_newest_to(text to)
{
	return bucket_search(*bucket_of(to), to);
}

message *
message_older_to(const message *m)
{
	return bucket_search(m->older, message_to(m));
}

text
message_from(const message *m)
{
	return (text){m->data, m->from_len};
}

text
message_service(const message *m)
{
	return (text){m->data + m->from_len, m->service_len};
}

text
message_to(const message *m)
{
	return (text){m->data + m->from_len + m->service_len, m->to_len};
}

text
message_body(const message *m)
{
	return (text){message_to(m).data + m->to_len, m->body_len};
}

text
message_extra(const message *m)
{
	return (text){message_body(m).data + m->body_len, m->extra_len};
}

/* Returns the text as the recipient gets it. */
text
message_shown(const message *m)
{
	if (!m->has_shown)
		return message_body(m);
	return (text){message_extra(m).data + m->extra_len, m->shown_len};
}

static void
ledger_field(buf *out, text value, char end)
{
	buf_tsv(out, value);
	buf_char(out, end);
}

void
message_ledger_line(buf *out, const message *m)
{
	char sid[SID_LEN + 1];

	message_sid(m, sid);
	buf_int(out, m->created_us);
	buf_char(out, '\t');
	ledger_field(out, (text){sid, SID_LEN}, '\t');
	ledger_field(out, login_account(m->login), '\t');
	ledger_field(out, login_user(m->login), '\t');
	ledger_field(out, message_from(m), '\t');
	ledger_field(out, message_service(m), '\t');
	ledger_field(out, message_to(m), '\t');
	ledger_field(out, message_body(m), '\t');
	ledger_field(out, message_extra(m), '\n');
}
