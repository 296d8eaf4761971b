/*
 * word.c
 *		Replies that may be stop words, and words that a group configures.
 */
#include "fuzz.h"

#include "../../src/campaign/stop_words.h"
#include "../../src/database/reply_table.h"

#include "mb/pg_wchar.h"

void
fuzz_one(const char *data, size_t size)
{
	char	   *word = fold_stop_word(data);
	char	   *again;
	const char *known = stop_word(NULL, data);
	StopWords	own = {.num_stop = 1, .stop = &word};

	promise(known == NULL || strcmp(known, WORD_STOP) == 0 || strcmp(known, WORD_START) == 0);
	if (word == NULL)
	{
		promise(known == NULL);
		return;
	}
	promise(word[0] != '\0');
	promise(pg_verify_mbstr(PG_UTF8, word, strlen(word), true));
	/* a group's own word is recognized, and takes precedence */
	promise(strcmp(stop_word(&own, data), WORD_STOP) == 0);
	own = (StopWords){.num_start = 1, .start = &word};
	promise(stop_word(&own, data) != NULL);
	/* folding once is enough, unless the word has become too long for twice */
	again = fold_stop_word(word);
	promise(again == NULL || stop_word(&(StopWords){.num_stop = 1, .stop = &again}, word) != NULL);
}
