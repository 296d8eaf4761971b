/*
 * smart.c
 *		Smart encoding: what is replaced, by code point.
 */
#include "smart.h"

#include <string.h>

typedef struct replacement
{
	uint32_t	first;
	uint32_t	last;
	const char *by;
} replacement;

static const replacement replacements[] = {
	{0x00A0, 0x00A0, " "},	 {0x00AB, 0x00AB, "\""},  {0x00BB, 0x00BB, "\""},
	{0x00BC, 0x00BC, "1/4"}, {0x00BD, 0x00BD, "1/2"}, {0x00BE, 0x00BE, "3/4"},
	{0x2000, 0x200A, " "},	 {0x200B, 0x200B, ""},	  {0x2010, 0x2015, "-"},
	{0x2018, 0x2019, "'"},	 {0x201A, 0x201A, ","},	  {0x201B, 0x201B, "'"},
	{0x201C, 0x201F, "\""},	 {0x2026, 0x2026, "..."}, {0x202F, 0x202F, " "},
	{0x2032, 0x2032, "'"},	 {0x2033, 0x2033, "\""},  {0x2039, 0x203A, "'"},
	{0x2212, 0x2212, "-"},
};

static const char *
replacement_of(uint32_t code)
{
	for (size_t i = 0; i < sizeof(replacements) / sizeof(replacements[0]); i++)
	{
		if (code >= replacements[i].first && code <= replacements[i].last)
			return replacements[i].by;
	}
	return NULL;
}

void
smart_encode(buf *out, text body)
{
	const char *at = body.data;
	const char *end = body.data + body.len;

	while (at < end)
	{
		const char *start = at;
		const char *by = replacement_of(utf8_next(&at, end));

		if (by != NULL)
			buf_string(out, by);
		else
			buf_add(out, start, at - start);
	}
}
