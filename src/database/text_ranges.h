/*-------------------------------------------------------------------------
 *
 * text_ranges.h
 *	  Arrays of texts, one for each row, as one array and ranges of it.
 *
 * SQL has no arrays of arrays of different lengths.  A statement that writes
 * several rows takes slices: ($1)[u.first:u.last].  Rows that follow each other
 * and have the same texts share them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TEXT_RANGES_H
#define SENDCAMPAIGN_TEXT_RANGES_H

#include "nodes/pg_list.h"

typedef struct TextRanges
{
	List  *texts;  /* char *, the caller's */
	char **latest; /* those of the last row; or NULL */
	int	   num_latest;
	int	   num_rows;
	Datum *first; /* int4 of each row, counted from 1 */
	Datum *last;
} TextRanges;

/* Returns an empty one with room for so many rows, palloc'd. */
extern TextRanges text_ranges(int most);

/* Adds a row's texts, which must live as long; sorted by their bytes, if wanted. */
extern void text_ranges_add(TextRanges *ranges, char **texts, int count, bool sorted);

/* Returns all texts (text[]), palloc'd. */
extern Datum text_ranges_array(const TextRanges *ranges);

/* Tells whether two arrays have the same texts in the same order. */
extern bool texts_are_same(char *const *a, int num_a, char *const *b, int num_b);

#endif /* SENDCAMPAIGN_TEXT_RANGES_H */
