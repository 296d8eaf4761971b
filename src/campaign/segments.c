/*-------------------------------------------------------------------------
 *
 * segments.c
 *	  What a text costs: the segments in which it is sent.
 *
 * A text is sent in GSM-7 if that has all of its characters, else in UCS-2.
 * If it needs several segments, each gives up room for a header.  A character
 * of two units is not split between segments, which can leave a unit unused at
 * the end of one, so the text has to be packed to count them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "campaign/segments.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#define EURO_SIGN			  0x20AC
#define REPLACEMENT_CHARACTER 0xFFFD
#define LAST_CODE_POINT		  0x10FFFF

/* Units that fit into a segment: into the only one, and into each of several. */
typedef struct Room
{
	int alone;
	int of_several;
} Room;

static const Room gsm_room = {160, 153};
static const Room ucs2_room = {70, 67};

/*
 * The number of septets of a character: 1 in the default alphabet of GSM
 * 03.38, 2 in its extension, 0 if it is in neither.  Only the euro sign has a
 * higher code.
 */
static const uint8 septets[] = {
	['\n'] = 1,
	['\f'] = 2,
	['\r'] = 1,
	[' ' ... 'Z'] = 1,
	['[' ... '^'] = 2,
	['_'] = 1,
	['a' ... 'z'] = 1,
	['{' ... '~'] = 2,
	[0xA1] = 1,			   /* ¡ */
	[0xA3 ... 0xA5] = 1,   /* £ ¤ ¥ */
	[0xA7] = 1,			   /* § */
	[0xBF] = 1,			   /* ¿ */
	[0xC4 ... 0xC7] = 1,   /* Ä Å Æ Ç */
	[0xC9] = 1,			   /* É */
	[0xD1] = 1,			   /* Ñ */
	[0xD6] = 1,			   /* Ö */
	[0xD8] = 1,			   /* Ø */
	[0xDC] = 1,			   /* Ü */
	[0xDF ... 0xE0] = 1,   /* ß à */
	[0xE4 ... 0xE6] = 1,   /* ä å æ */
	[0xE8 ... 0xE9] = 1,   /* è é */
	[0xEC] = 1,			   /* ì */
	[0xF1 ... 0xF2] = 1,   /* ñ ò */
	[0xF6] = 1,			   /* ö */
	[0xF8 ... 0xF9] = 1,   /* ø ù */
	[0xFC] = 1,			   /* ü */
	[0x393 ... 0x394] = 1, /* Γ Δ */
	[0x398] = 1,		   /* Θ */
	[0x39B] = 1,		   /* Λ */
	[0x39E] = 1,		   /* Ξ */
	[0x3A0] = 1,		   /* Π */
	[0x3A3] = 1,		   /* Σ */
	[0x3A6] = 1,		   /* Φ */
	[0x3A8 ... 0x3A9] = 1, /* Ψ Ω */
};

PG_FUNCTION_INFO_V1(sendcampaign_segments);

/* Reads a character that is not ASCII.  The terminating NUL ends an incomplete one. */
static uint32
next_wide_character(const unsigned char **at)
{
	const unsigned char *s = *at;
	int					 length = s[0] < 0xC0 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
	uint32				 code = s[0] & (0x7F >> length);
	int					 read = 1;

	while (read < length && (s[read] & 0xC0) == 0x80)
		code = code << 6 | (s[read++] & 0x3F);
	if (read < length || !pg_utf8_islegal(s, length))
	{
		(*at)++;
		return REPLACEMENT_CHARACTER;
	}
	*at += length;
	return code;
}

static inline uint32
next_character(const unsigned char **at)
{
	return **at < 0x80 ? *(*at)++ : next_wide_character(at);
}

static inline int
septets_of(uint32 code)
{
	if (code < lengthof(septets))
		return septets[code];
	return code == EURO_SIGN ? 2 : 0;
}

bool
is_gsm7(unsigned int code)
{
	return septets_of(code) > 0;
}

/*
 * Packs the text into as many segments as it needs.  Returns false, with an
 * incomplete count, if it is to be GSM-7 and has a character that is not.
 */
static inline bool
pack(const unsigned char *text, bool ucs2, SegmentCount *count)
{
	Room room = ucs2 ? ucs2_room : gsm_room;
	int	 left = 0; /* units left in the last segment */

	*count = (SegmentCount){.ucs2 = ucs2};
	while (*text)
	{
		uint32 code = next_character(&text);
		int	   size = ucs2 ? 1 + (code > 0xFFFF) : septets_of(code);

		if (size == 0)
			return false;
		if (size > left)
		{
			count->segments++;
			left = room.of_several;
		}
		left -= size;
		count->units += size;
	}
	if (count->units > 0 && count->units <= room.alone)
		count->segments = 1;
	return true;
}

void
count_segments(const char *utf8, SegmentCount *count)
{
	const unsigned char *text = (const unsigned char *) utf8;

	if (!pack(text, false, count))
		(void) pack(text, true, count);
}

char *
ucs2_characters(const char *utf8)
{
	const unsigned char *text = (const unsigned char *) utf8;
	uint8				*seen = palloc0(LAST_CODE_POINT / 8 + 1); /* one bit per code point */
	StringInfoData		 found;

	initStringInfo(&found);
	while (*text)
	{
		uint32		  code = next_character(&text);
		unsigned char character[4];

		if (septets_of(code) > 0 || seen[code / 8] & 1 << code % 8)
			continue;
		seen[code / 8] |= 1 << code % 8;
		unicode_to_utf8(code, character);
		appendBinaryStringInfo(&found, (char *) character, pg_utf_mblen(character));
	}
	pfree(seen);
	return found.data;
}

/* sendcampaign.segments(message text) returns its encoding, units and segments */
Datum
sendcampaign_segments(PG_FUNCTION_ARGS)
{
	char		*message = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TupleDesc	 row;
	SegmentCount count;
	Datum		 values[3];
	bool		 nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &row) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "sendcampaign.segments() does not return a row");
	count_segments(pg_server_to_any(message, strlen(message), PG_UTF8), &count);
	values[0] = CStringGetTextDatum(count.ucs2 ? "UCS-2" : "GSM-7");
	values[1] = Int32GetDatum(count.units);
	values[2] = Int32GetDatum(count.segments);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(row), values, nulls));
}
