/*
 * segments.c
 *		Segments of a text, which the local Twilio counts as well, with its own
 *		code.
 */
#include "fuzz.h"

#include "../../src/campaign/segments.h"
#include "mb/pg_wchar.h"

extern int twilio_segments(const char *text, size_t length); /* oracle.c */

static void
check_characters(const char *text, const char *characters)
{
	int length;

	promise(pg_encoding_verifymbstr(PG_UTF8, characters, strlen(characters)) == strlen(characters));
	for (; *characters; characters += length)
	{
		length = pg_utf_mblen((const unsigned char *) characters);
		promise(memmem(text, strlen(text), characters, length) != NULL);
	}
}

void
fuzz_one(const char *data, size_t size)
{
	SegmentCount count;
	char		*characters = ucs2_characters(data);

	count_segments(data, &count);
	promise((count.segments == 0) == (data[0] == '\0'));
	promise(count.ucs2 == (characters[0] != '\0'));
	promise(count.units <= count.segments * (count.ucs2 ? 70 : 160));
	if (data[0] == '\0' || pg_encoding_verifymbstr(PG_UTF8, data, strlen(data)) != strlen(data))
		return;
	check_characters(data, characters);
	promise(count.segments == twilio_segments(data, strlen(data)));
}
