/*
 * text.c
 *		Counted strings, growing buffers and escaping.
 */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char hex_digits[] = "0123456789ABCDEF";

void
fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("twilio: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

void *
need(void *memory)
{
	if (memory == NULL)
		fatal("out of memory");
	return memory;
}

text
text_of(const char *string)
{
	return (text){string, string == NULL ? 0 : strlen(string)};
}

bool
text_equal(text a, text b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool
text_is(text a, const char *string)
{
	return text_equal(a, text_of(string));
}

bool
text_starts(text a, const char *prefix)
{
	size_t len = strlen(prefix);

	return a.len >= len && memcmp(a.data, prefix, len) == 0;
}

bool
text_split(text whole, const char *at, text *first, text *rest)
{
	if (at == NULL)
		return false;
	*first = (text){whole.data, at - whole.data};
	*rest = (text){at + 1, whole.data + whole.len - at - 1};
	return true;
}

bool
text_number(text a, double *number)
{
	char *copy = text_copy(a);
	char *end;
	bool  good;

	*number = strtod(copy, &end);
	good = a.len > 0 && *end == '\0' && *number > -1e12 && *number < 1e12;
	free(copy);
	return good;
}

char *
text_copy(text a)
{
	char *copy = need(malloc(a.len + 1));

	if (a.len > 0)
		memcpy(copy, a.data, a.len);
	copy[a.len] = '\0';
	return copy;
}

/* FNV-1a with a final mixing step, since only the low bits are used */
uint64_t
text_hash(text a)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < a.len; i++)
		hash = (hash ^ (unsigned char) a.data[i]) * UINT64_C(0x100000001b3);
	return hash ^ (hash >> 32);
}

/* Returns the length of the UTF-8 character with this first byte; 0 if it starts none. */
static int
utf8_width(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first >= 0xC2 && first <= 0xDF)
		return 2;
	if (first >= 0xE0 && first <= 0xEF)
		return 3;
	if (first >= 0xF0 && first <= 0xF4)
		return 4;
	return 0;
}

static bool
utf8_allowed(uint32_t code, int width)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	return code >= least[width] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

/* Steps over one character; a byte that starts none counts as U+FFFD. */
uint32_t
utf8_next(const char **at, const char *end)
{
	const unsigned char *p = (const unsigned char *) *at;
	int					 width = utf8_width(*p);
	uint32_t			 code;

	*at += 1;
	if (width == 1)
		return *p;
	if (width == 0 || end - (const char *) p < width)
		return 0xFFFD;
	code = *p & (0x7F >> width);
	for (int i = 1; i < width; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return 0xFFFD;
		code = code << 6 | (p[i] & 0x3F);
	}
	if (!utf8_allowed(code, width))
		return 0xFFFD;
	*at += width - 1;
	return code;
}

size_t
utf8_length(text a)
{
	const char *at = a.data;
	size_t		count = 0;

	while (at < a.data + a.len)
	{
		utf8_next(&at, a.data + a.len);
		count++;
	}
	return count;
}

void
buf_reserve(buf *b, size_t more)
{
	size_t cap = b->cap == 0 ? 256 : b->cap;

	if (b->len + more <= b->cap)
		return;
	while (cap < b->len + more)
		cap *= 2;
	b->data = need(realloc(b->data, cap));
	b->cap = cap;
}

void
buf_add(buf *b, const char *data, size_t len)
{
	if (len == 0)
		return;
	buf_reserve(b, len);
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

void
buf_string(buf *b, const char *string)
{
	buf_add(b, string, strlen(string));
}

void
buf_text(buf *b, text a)
{
	buf_add(b, a.data, a.len);
}

void
buf_char(buf *b, char c)
{
	buf_add(b, &c, 1);
}

/* Appends a character; the code point must be one. */
void
buf_utf8(buf *b, uint32_t code)
{
	if (code < 0x80)
	{
		buf_char(b, code);
		return;
	}
	if (code < 0x800)
		buf_char(b, 0xC0 | code >> 6);
	else
	{
		if (code < 0x10000)
			buf_char(b, 0xE0 | code >> 12);
		else
		{
			buf_char(b, 0xF0 | code >> 18);
			buf_char(b, 0x80 | (code >> 12 & 63));
		}
		buf_char(b, 0x80 | (code >> 6 & 63));
	}
	buf_char(b, 0x80 | (code & 63));
}

void
buf_int(buf *b, int64_t value)
{
	char	 digits[24];
	int		 at = sizeof(digits);
	uint64_t rest = value < 0 ? -(uint64_t) value : (uint64_t) value;

	do
		digits[--at] = '0' + rest % 10;
	while ((rest /= 10) > 0);
	if (value < 0)
		digits[--at] = '-';
	buf_add(b, digits + at, sizeof(digits) - at);
}

void
buf_printf(buf *b, const char *format, ...)
{
	char	line[512];
	va_list args;
	int		len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (len < 0 || len >= (int) sizeof(line))
		fatal("formatted text too long");
	buf_add(b, line, len);
}

static void
buf_unicode_escape(buf *b, unsigned char c)
{
	buf_string(b, "\\u00");
	buf_char(b, hex_digits[c >> 4]);
	buf_char(b, hex_digits[c & 15]);
}

/* Appends a backslash escape if the byte needs one, and returns whether it does. */
static bool
buf_escaped(buf *b, unsigned char c)
{
	static const char letters[32] = {
		['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

	if (c >= 0x20 && c != '\\')
		return false;
	if (c < 0x20 && letters[c] == 0)
		buf_unicode_escape(b, c);
	else
	{
		buf_char(b, '\\');
		buf_char(b, c == '\\' ? '\\' : letters[c]);
	}
	return true;
}

/* Appends a character of a JSON string that is not plain ASCII. */
static const char *
buf_json_special(buf *b, const char *at, const char *end)
{
	const char *start = at;

	if (*at == '"')
		buf_string(b, "\\\"");
	else if (!buf_escaped(b, *at))
	{
		if (utf8_next(&at, end) == 0xFFFD)
			buf_string(b, "\xEF\xBF\xBD");
		else
			buf_add(b, start, at - start);
		return at;
	}
	return start + 1;
}

/* Appends a JSON string with its quotes, or null if the text is absent. */
void
buf_json(buf *b, text a)
{
	const char *at = a.data;
	const char *end = a.data + a.len;

	if (a.data == NULL)
	{
		buf_string(b, "null");
		return;
	}
	buf_char(b, '"');
	while (at < end)
	{
		const char *run = at;

		while (at < end && (signed char) *at >= 0x20 && *at != '"' && *at != '\\')
			at++;
		buf_add(b, run, at - run);
		if (at < end)
			at = buf_json_special(b, at, end);
	}
	buf_char(b, '"');
}

static bool
is_unreserved(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		   strchr("-._~", c) != NULL;
}

/* Percent-encodes everything except unreserved characters. */
void
buf_form(buf *b, text a)
{
	for (size_t i = 0; i < a.len; i++)
	{
		unsigned char c = a.data[i];

		if (c != 0 && is_unreserved(c))
			buf_char(b, c);
		else
		{
			buf_char(b, '%');
			buf_char(b, hex_digits[c >> 4]);
			buf_char(b, hex_digits[c & 15]);
		}
	}
}

/* Appends a ledger field: backslash escapes as in JSON, but no quotes. */
void
buf_tsv(buf *b, text a)
{
	size_t start = 0;

	for (size_t i = 0; i < a.len; i++)
	{
		unsigned char c = a.data[i];

		if (c >= 0x20 && c != '\\')
			continue;
		buf_add(b, a.data + start, i - start);
		buf_escaped(b, c);
		start = i + 1;
	}
	buf_add(b, a.data + start, a.len - start);
}

void
buf_free(buf *b)
{
	free(b->data);
	*b = (buf){NULL, 0, 0};
}
