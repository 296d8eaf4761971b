/*-------------------------------------------------------------------------
 *
 * stop_words.c
 *	  Replies by which recipients opt out and in.
 *
 * Letters are folded by a table of our own, because what lower() does depends
 * on the database's locale: with the locale C, it knows no letters but ASCII's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/stop_words.h"
#include "common/unicode_norm.h"
#include "database/reply_table.h"
#include "mb/pg_wchar.h"

/* Twilio's own words. */
static const char *const stop_words[] = {"stop",   "unsubscribe", "end",	"quit",
										 "cancel", "stopall",	  "revoke", "optout"};
static const char *const start_words[] = {"start", "yes", "unstop"};

/* How to fold letters: each, or every other one from the first on. */
typedef struct Folding
{
	pg_wchar first;
	pg_wchar last;
	int		 difference;
	bool	 alternating;
} Folding;

static const Folding foldings[] = {
	{0x0041, 0x005A, 32, false},							   /* Latin */
	{0x00C0, 0x00D6, 32, false},							   /* Latin-1 */
	{0x00D8, 0x00DE, 32, false},	{0x0100, 0x012F, 1, true}, /* Latin Extended-A */
	{0x0130, 0x0130, -199, false},							   /* Turkish I with a dot becomes i */
	{0x0131, 0x0131, -200, false},							   /* and so does the one without */
	{0x0132, 0x0137, 1, true},		{0x0139, 0x0148, 1, true},
	{0x014A, 0x0177, 1, true},		{0x0178, 0x0178, -121, false},
	{0x0179, 0x017E, 1, true},		{0x01A0, 0x01A5, 1, true},
	{0x01AF, 0x01B0, 1, true},		{0x01CD, 0x01DC, 1, true},
	{0x01DE, 0x01EF, 1, true},		{0x0200, 0x021F, 1, true},
	{0x0222, 0x0233, 1, true},		{0x0386, 0x0386, 38, false}, /* Greek */
	{0x0388, 0x038A, 37, false},	{0x038C, 0x038C, 64, false},
	{0x038E, 0x038F, 63, false},	{0x0391, 0x03A1, 32, false},
	{0x03A3, 0x03AB, 32, false},	{0x03C2, 0x03C2, 1, false}, /* the sigma at the end of a word */
	{0x0400, 0x040F, 80, false},								/* Cyrillic */
	{0x0410, 0x042F, 32, false},	{0x0460, 0x0481, 1, true},
	{0x048A, 0x04BF, 1, true},		{0x04C1, 0x04CE, 1, true},
	{0x04D0, 0x052F, 1, true},		{0x0531, 0x0556, 48, false}, /* Armenian */
	{0x1C90, 0x1CBF, -3008, false},								 /* Georgian */
	{0x1E00, 0x1E95, 1, true},		{0x1EA0, 0x1EFF, 1, true},	 /* Vietnamese and others */
};

static pg_wchar
fold_letter(pg_wchar letter)
{
	for (int i = 0; i < lengthof(foldings); i++)
	{
		const Folding *folding = &foldings[i];

		if (letter < folding->first)
			break;
		if (letter <= folding->last)
			return folding->alternating && (letter - folding->first) % 2 == 1
					   ? letter
					   : letter + folding->difference;
	}
	return letter;
}

/* Tells whether it is a blank, or invisible; after normalization. */
static bool
is_blank(pg_wchar character)
{
	return character <= ' ' || (character >= 0x7F && character <= 0xA0) || character == 0xAD ||
		   character == 0x061C || character == 0x1680 || character == 0x180E ||
		   (character >= 0x2000 && character <= 0x200F) ||
		   (character >= 0x2028 && character <= 0x202F) ||
		   (character >= 0x205F && character <= 0x206F) || character == 0x3000 ||
		   (character >= 0xFE00 && character <= 0xFE0F) || character == 0xFEFF;
}

/*
 * Fills characters, which has room for one more than the longest word, without
 * the blanks at the beginning.  Returns false if the text is too long.
 */
static bool
decode(const char *text, pg_wchar *characters)
{
	int count = 0;
	int blanks = 0; /* at the end */

	for (; *text; text += pg_utf_mblen((const unsigned char *) text))
	{
		pg_wchar character = utf8_to_unicode((const unsigned char *) text);

		if (is_blank(character))
		{
			blanks += count > 0;
			continue;
		}
		if (count + blanks >= MAX_STOP_WORD_LENGTH)
			return false;
		for (; blanks > 0; blanks--)
			characters[count++] = ' ';
		characters[count++] = character;
	}
	characters[count] = 0;
	return true;
}

char *
fold_stop_word(const char *text)
{
	pg_wchar  characters[MAX_STOP_WORD_LENGTH + 1];
	pg_wchar *normal;
	char	 *word;
	char	 *end;
	int		  length = strlen(text);

	if (!pg_verify_mbstr(PG_UTF8, text, length, true) || !decode(text, characters) ||
		characters[0] == 0)
		return NULL;
	normal = unicode_normalize(UNICODE_NFKC, characters);
	for (length = 0; normal[length]; length++)
		;
	word = end = palloc(length * MAX_MULTIBYTE_CHAR_LEN + 1);
	for (int i = 0; i < length; i++)
	{
		(void) unicode_to_utf8(fold_letter(normal[i]), (unsigned char *) end);
		end += pg_utf_mblen((const unsigned char *) end);
	}
	*end = '\0';
	return word;
}

static bool
is_one_of(const char *word, const char *const *words, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (strcmp(word, words[i]) == 0)
			return true;
	}
	return false;
}

const char *
stop_word(const StopWords *words, const char *text)
{
	char *word = fold_stop_word(text);

	if (word == NULL)
		return NULL;
	if (is_one_of(word, stop_words, lengthof(stop_words)) ||
		(words && is_one_of(word, (const char *const *) words->stop, words->num_stop)))
		return WORD_STOP;
	if (is_one_of(word, start_words, lengthof(start_words)) ||
		(words && is_one_of(word, (const char *const *) words->start, words->num_start)))
		return WORD_START;
	return NULL;
}
