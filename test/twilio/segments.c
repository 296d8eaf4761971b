/*
 * segments.c
 *		The number of segments of a body: GSM-7 has 160 septets in a single
 *		segment and 153 in each of several, UCS-2 has 70 and 67 units.  Neither
 *		an extension character nor a surrogate pair is split.
 */
#include "segments.h"

#include <stdlib.h>
#include <string.h>

/* GSM-7 beyond ASCII, sorted */
static const uint16_t gsm_others[] = {
	0xA1, 0xA3, 0xA4, 0xA5,	 0xA7,	0xBF,  0xC4,  0xC5,	 0xC6,	0xC7,  0xC9,  0xD1,	 0xD6,
	0xD8, 0xDC, 0xDF, 0xE0,	 0xE4,	0xE5,  0xE6,  0xE8,	 0xE9,	0xEC,  0xF1,  0xF2,	 0xF6,
	0xF8, 0xF9, 0xFC, 0x393, 0x394, 0x398, 0x39B, 0x39E, 0x3A0, 0x3A3, 0x3A6, 0x3A8, 0x3A9};

static int
compare_codes(const void *a, const void *b)
{
	return *(const uint16_t *) a - *(const uint16_t *) b;
}

/* Returns the septets of a character in GSM-7; 0: it is not in GSM-7. */
static int
gsm_septets(uint32_t code)
{
	uint16_t key = code;

	if (code == 0x20AC || code == '\f')
		return 2;
	if (code == '\n' || code == '\r')
		return 1;
	if (code < 0x20 || code > 0xFFFF || code == '`' || code == 0x7F)
		return 0;
	if (code < 0x80)
		return strchr("[\\]^{|}~", (int) code) != NULL ? 2 : 1;
	return bsearch(&key, gsm_others, sizeof(gsm_others) / sizeof(uint16_t), sizeof(uint16_t),
				   compare_codes) != NULL
			   ? 1
			   : 0;
}

static int
ucs2_units(uint32_t code)
{
	return code > 0xFFFF ? 2 : 1;
}

static bool
is_gsm(text body)
{
	const char *at = body.data;

	while (at < body.data + body.len)
	{
		if (gsm_septets(utf8_next(&at, body.data + body.len)) == 0)
			return false;
	}
	return true;
}

int
count_segments(text body)
{
	bool gsm = is_gsm(body);
	int	 each = gsm ? 153 : 67;
	int	 segments = 1;
	int	 used = 0;
	int	 total = 0;

	for (const char *at = body.data; at < body.data + body.len;)
	{
		uint32_t code = utf8_next(&at, body.data + body.len);
		int		 size = gsm ? gsm_septets(code) : ucs2_units(code);

		total += size;
		if (used + size > each)
		{
			segments++;
			used = 0;
		}
		used += size;
	}
	return total <= (gsm ? 160 : 70) ? 1 : segments;
}
