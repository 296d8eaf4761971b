/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Reads JSON from an untrusted source, without building a tree.
 *
 * It accepts what PostgreSQL's parser accepts (test/fuzz/json.c compares them),
 * but each message has an answer, most of which nobody wants: so nothing is
 * allocated but one copy of the text.  Keys and values are parts of that, and
 * are decoded and terminated in place, where they have been read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "twilio/json.h"

const char json_array[] = "[";

/* In place of what is no character, or cannot be in a text. */
#define REPLACEMENT 0xFFFD

/* As for PostgreSQL's parser of JSON in parts. */
#define MAX_DEPTH 6400

typedef struct Scan
{
	char	   *at;	 /* what is to be read next; the text ends with a NUL, and has no other */
	const char *key; /* of the member that is being read; NULL: an element of an array */
	const JsonCallbacks *callbacks;
	void				*arg;
	int					 depth;
	char				 open[MAX_DEPTH]; /* the brackets around what is being read */
} Scan;

/* Returns the code unit of an escape (\\u and four digits), or -1 if there is none. */
static int
code_unit(const char *text)
{
	int value = 0;

	if (text[0] != '\\' || text[1] != 'u')
		return -1;
	for (const char *c = text + 2; c < text + 6; c++)
	{
		if (*c >= '0' && *c <= '9')
			value = value * 16 + *c - '0';
		else if (*c >= 'a' && *c <= 'f')
			value = value * 16 + *c - 'a' + 10;
		else if (*c >= 'A' && *c <= 'F')
			value = value * 16 + *c - 'A' + 10;
		else
			return -1;
	}
	return value;
}

/*
 * Returns the character that begins with this code unit, and moves *text behind
 * it.  One that cannot be stored, half a surrogate pair or a NUL, is replaced:
 * what people write to a number is in its list, and must not keep it from being
 * read.
 */
static pg_wchar
escaped_character(int code, char **text)
{
	int second;

	*text += 6;
	if (code == 0 || is_utf16_surrogate_second(code))
		return REPLACEMENT;
	if (!is_utf16_surrogate_first(code))
		return code;
	second = code_unit(*text);
	if (second < 0 || !is_utf16_surrogate_second(second))
		return REPLACEMENT;
	*text += 6;
	return surrogate_pair_to_codepoint(code, second);
}

/* Decodes an escape, which is never shorter than its character; returns false if it is invalid. */
static bool
decode_escape(char **in, char **out)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	int				  code = code_unit(*in);
	const char		 *letter;

	if (code >= 0)
	{
		(void) unicode_to_utf8(escaped_character(code, in), (unsigned char *) *out);
		*out += pg_utf_mblen((unsigned char *) *out);
		return true;
	}
	letter = (*in)[1] ? strchr(letters, (*in)[1]) : NULL;
	if (letter == NULL)
		return false;
	*in += 2;
	*(*out)++ = meanings[letter - letters];
	return true;
}

/* Reads a string, behind its quotation mark, and decodes it in place; returns NULL if it is invalid. */
static char *
read_string(Scan *scan)
{
	char *string = scan->at;
	char *in = string;
	char *out;

	while ((unsigned char) *in >= ' ' && *in != '"' && *in != '\\')
		in++;
	out = in;
	while (*in != '"')
	{
		if ((unsigned char) *in < ' ')
			return NULL;
		if (*in != '\\')
			*out++ = *in++;
		else if (!decode_escape(&in, &out))
			return NULL;
	}
	*out = '\0';
	scan->at = in + 1;
	return string;
}

/* Moves *at behind digits; returns false if there are none. */
static bool
skip_digits(char **at)
{
	char *first = *at;

	while (**at >= '0' && **at <= '9')
		(*at)++;
	return *at > first;
}

/* Returns the end of a number, or NULL if there is none. */
static char *
number_end(char *at)
{
	if (*at == '-')
		at++;
	if (*at == '0')
		at++;
	else if (!skip_digits(&at))
		return NULL;
	if (*at == '.')
	{
		at++;
		if (!skip_digits(&at))
			return NULL;
	}
	if (*at == 'e' || *at == 'E')
	{
		at++;
		if (*at == '+' || *at == '-')
			at++;
		if (!skip_digits(&at))
			return NULL;
	}
	return at;
}

/* Returns the end of true, false or null; NULL if there is none of these. */
static char *
word_end(char *at)
{
	static const char *const words[] = {"true", "false", "null"};

	for (int i = 0; i < lengthof(words); i++)
	{
		size_t length = strlen(words[i]);

		if (strncmp(at, words[i], length) == 0)
			return at + length;
	}
	return NULL;
}

/*
 * Reads a number or a word, which begins one byte back, and moves it by one
 * byte, to where it can be terminated: what precedes it has been read.  Returns
 * NULL if it is invalid.
 */
static char *
read_literal(Scan *scan)
{
	char  *literal = scan->at - 1;
	char  *end = *literal >= 'a' && *literal <= 'z' ? word_end(literal) : number_end(literal);
	size_t length = end ? end - literal : 0;

	if (end == NULL)
		return NULL;
	scan->at = end;
	memmove(literal - 1, literal, length);
	literal[length - 1] = '\0';
	return literal - 1;
}

static char
next_character(Scan *scan)
{
	while (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r')
		scan->at++;
	return *scan->at++;
}

/* Reads a string, number or word that begins with this character; returns false if it is invalid. */
static bool
read_scalar(Scan *scan, char first)
{
	char *value = first == '"' ? read_string(scan) : read_literal(scan);

	if (value == NULL)
		return false;
	if (scan->key)
		scan->callbacks->member(scan->arg, scan->depth, scan->key, first == 'n' ? NULL : value);
	return true;
}

/* Reads the key of a member, and the colon; returns false if there are none. */
static bool
read_key(Scan *scan)
{
	if (next_character(scan) != '"')
		return false;
	scan->key = read_string(scan);
	return scan->key && next_character(scan) == ':';
}

/* Tells whether the next character closes what was opened last. */
static bool
is_closed(Scan *scan)
{
	char *at = scan->at;
	bool  closed = next_character(scan) == (scan->open[scan->depth - 1] == '{' ? '}' : ']');

	if (!closed)
		scan->at = at;
	return closed;
}

/* Begins an object or array; returns false if it is nested too deeply. */
static bool
begin(Scan *scan, char bracket)
{
	if (scan->depth == MAX_DEPTH)
		return false;
	if (bracket == '[' && scan->key)
		scan->callbacks->member(scan->arg, scan->depth, scan->key, json_array);
	scan->open[scan->depth++] = bracket;
	if (bracket == '{' && scan->callbacks->object_start)
		scan->callbacks->object_start(scan->arg, scan->depth, scan->key);
	scan->key = NULL; /* elements have none */
	return true;
}

static void
end(Scan *scan)
{
	if (scan->open[scan->depth - 1] == '{' && scan->callbacks->object_end)
		scan->callbacks->object_end(scan->arg, scan->depth);
	scan->depth--;
}

/* Reads what comes behind values, to the beginning of the next one or to the end. */
static bool
read_ends(Scan *scan, bool *more)
{
	scan->key = NULL;
	while (scan->depth > 0 && is_closed(scan))
		end(scan);
	*more = scan->depth > 0;
	if (!*more)
		return next_character(scan) == '\0';
	return next_character(scan) == ',' && (scan->open[scan->depth - 1] == '[' || read_key(scan));
}

static bool
scan_text(Scan *scan)
{
	bool more = true;

	while (more)
	{
		char first = next_character(scan);

		if (first != '{' && first != '[')
		{
			if (!read_scalar(scan, first))
				return false;
		}
		else if (!begin(scan, first))
			return false;
		else if (!is_closed(scan))
		{
			if (first == '{' && !read_key(scan))
				return false;
			continue;
		}
		else
			end(scan);
		if (!read_ends(scan, &more))
			return false;
	}
	return true;
}

bool
json_scan_objects(const char *json, int length, const JsonCallbacks *callbacks, void *arg)
{
	Scan  scan;
	char *copy;

	if (json == NULL || memchr(json, '\0', length) != NULL ||
		!pg_verify_mbstr(PG_UTF8, json, length, true))
		return false;
	/* with a byte in front, as read_literal() needs */
	copy = palloc_extended(length + 2, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
	if (copy == NULL)
		return false;
	memcpy(copy + 1, json, length);
	copy[length + 1] = '\0';
	scan.at = copy + 1;
	scan.key = NULL;
	scan.callbacks = callbacks;
	scan.arg = arg;
	scan.depth = 0;
	return scan_text(&scan);
}

bool
json_scan(const char *json, int length, JsonMember member, JsonObjectEnd object_end_fn, void *arg)
{
	JsonCallbacks callbacks = {.member = member, .object_end = object_end_fn};

	return json_scan_objects(json, length, &callbacks, arg);
}
