/*-------------------------------------------------------------------------
 *
 * text_ranges.c
 *	  Arrays of texts, one for each row, as one array and ranges of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/spi.h"
#include "database/text_ranges.h"

bool
texts_are_same(char *const *a, int num_a, char *const *b, int num_b)
{
	if (num_a != num_b)
		return false;
	for (int i = 0; i < num_a; i++)
	{
		if (strcmp(a[i], b[i]) != 0)
			return false;
	}
	return true;
}

TextRanges
text_ranges(int most)
{
	return (TextRanges){.first = palloc(Max(most, 1) * sizeof(Datum)),
						.last = palloc(Max(most, 1) * sizeof(Datum))};
}

static int
compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static void
append_texts(TextRanges *ranges, char **texts, int count, bool sorted)
{
	char **copy = palloc(Max(count, 1) * sizeof(char *));

	memcpy(copy, texts, count * sizeof(char *));
	if (sorted)
		qsort(copy, count, sizeof(char *), compare_texts);
	for (int i = 0; i < count; i++)
		ranges->texts = lappend(ranges->texts, copy[i]);
}

void
text_ranges_add(TextRanges *ranges, char **texts, int count, bool sorted)
{
	int row = ranges->num_rows++;

	if (row > 0 && texts_are_same(texts, count, ranges->latest, ranges->num_latest))
	{
		ranges->first[row] = ranges->first[row - 1];
		ranges->last[row] = ranges->last[row - 1];
		return;
	}
	ranges->first[row] = Int32GetDatum(list_length(ranges->texts) + 1);
	append_texts(ranges, texts, count, sorted);
	ranges->last[row] = Int32GetDatum(list_length(ranges->texts));
	ranges->latest = texts;
	ranges->num_latest = count;
}

Datum
text_ranges_array(const TextRanges *ranges)
{
	int		  count = list_length(ranges->texts);
	char	**texts = palloc(Max(count, 1) * sizeof(char *));
	ListCell *lc;

	foreach (lc, ranges->texts)
		texts[foreach_current_index(lc)] = lfirst(lc);
	return make_text_array(texts, count);
}
