/*-------------------------------------------------------------------------
 *
 * segments.h
 *	  What a text costs: the segments it is sent in.
 *
 * Texts are those that go to Twilio, in UTF-8.  A byte that belongs to no
 * character counts as U+FFFD.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SEGMENTS_H
#define SENDCAMPAIGN_SEGMENTS_H

typedef struct SegmentCount
{
	bool ucs2;	   /* some character is not in GSM-7 */
	int	 units;	   /* GSM-7 septets, or UTF-16 units */
	int	 segments; /* 0 for the empty text, which cannot be sent */
} SegmentCount;

/*
 * Counts the units and segments of a text, which is shorter than 1 GB.  Needs
 * neither memory nor a transaction; does not throw.
 */
extern void count_segments(const char *utf8, SegmentCount *count);

/*
 * The characters that are not in GSM-7, each once, in order of appearance:
 * palloc'd, in UTF-8, "" where there are none.  Throws where memory is out.
 */
extern char *ucs2_characters(const char *utf8);

#endif /* SENDCAMPAIGN_SEGMENTS_H */
