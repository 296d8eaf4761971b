/*-------------------------------------------------------------------------
 *
 * segments.h
 *	  What a text costs: the segments in which it is sent.
 *
 * Texts are those that are sent to Twilio, in UTF-8.  A byte that belongs to
 * no character counts as U+FFFD.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SEGMENTS_H
#define SENDCAMPAIGN_SEGMENTS_H

typedef struct SegmentCount
{
	bool ucs2;	   /* true if a character is not in GSM-7 */
	int	 units;	   /* GSM-7 septets, or UTF-16 units */
	int	 segments; /* 0 for the empty text, which cannot be sent */
} SegmentCount;

/* Tells whether GSM-7 or its extension has the character with this code point. */
extern bool is_gsm7(unsigned int code);

/*
 * Counts the units and segments of a text, which must be shorter than 1 GB.
 * Does not allocate memory, needs no transaction, and does not throw.
 */
extern void count_segments(const char *utf8, SegmentCount *count);

/*
 * Returns the characters that are not in GSM-7, each once, in order of
 * appearance: palloc'd, in UTF-8, "" if there are none.  Throws only if memory
 * runs out.
 */
extern char *ucs2_characters(const char *utf8);

#endif /* SENDCAMPAIGN_SEGMENTS_H */
