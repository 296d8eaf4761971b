/*-------------------------------------------------------------------------
 *
 * stop_words.h
 *	  Replies by which recipients opt out and in.
 *
 * As with Twilio, the whole message must be the word.  Case, and blanks around
 * it, are ignored; so are differences that Unicode considers to be of form only
 * (full-width letters, composed and decomposed ones).
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_STOP_WORDS_H
#define SENDCAMPAIGN_STOP_WORDS_H

/* In characters. */
#define MAX_STOP_WORD_LENGTH 100

/* A group's own words, folded, in addition to Twilio's. */
typedef struct StopWords
{
	int	   num_stop;
	int	   num_start;
	char **stop;
	char **start;
} StopWords;

/*
 * Returns a text in UTF-8 in the form in which words are compared, palloc'd;
 * NULL if it is blank, too long, or not UTF-8.  Throws only if memory is
 * exhausted.
 */
extern char *fold_stop_word(const char *text);

/*
 * Returns WORD_STOP or WORD_START if the text, in UTF-8, is such a word, NULL
 * for all others.  words may be NULL: none but Twilio's.
 */
extern const char *stop_word(const StopWords *words, const char *text);

#endif /* SENDCAMPAIGN_STOP_WORDS_H */
