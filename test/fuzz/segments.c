/*
 * segments.c
 *		Segments of a text, which the local Twilio counts as well, with its own
 *		code.
 */
#include "fuzz.h"

#include "../../src/campaign/segments.h"
#include "../../src/campaign/smart_encoding.h"
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

/* A text is recognized before and after Smart Encoding, which leaves nothing to be replaced. */
static void
check_smart_encoding(const char *text, bool valid)
{
	const char	*smart = smart_text(text);
	SegmentCount count;

	promise(strcmp(smart_text(smart), smart) == 0);
	promise(smart_match(text, text) == SMART_SAME && smart_match(text, smart) == SMART_SAME);
	count_segments(smart_encoded(text), &count);
	promise(smart_encoded(text) != NULL && (!count.ucs2 || strcmp(smart_encoded(text), text) == 0));
	if (!valid)
		return;
	promise(pg_encoding_verifymbstr(PG_UTF8, smart, strlen(smart)) == strlen(smart));
	/* one more character is another text, unless it stands where anything may */
	promise(smart_match(psprintf("x%s", text), text) != SMART_SAME);
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
	check_smart_encoding(data,
						 pg_encoding_verifymbstr(PG_UTF8, data, strlen(data)) == strlen(data));
	if (data[0] == '\0' || pg_encoding_verifymbstr(PG_UTF8, data, strlen(data)) != strlen(data))
		return;
	check_characters(data, characters);
	promise(count.segments == twilio_segments(data, strlen(data)));
}
