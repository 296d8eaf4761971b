/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Reads JSON from an untrusted source, without building a tree: a thin layer
 *	  over PostgreSQL's own event parser.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "mb/pg_wchar.h"
#include "twilio/json.h"
#include "utils/memutils.h"

const char json_array[] = "[";

/* In place of what is no character, or cannot be in a text. */
#define REPLACEMENT 0xFFFD

typedef struct Scan
{
	int			  depth;
	char		 *key; /* of the member that is being read; NULL: an element of an array */
	JsonCallbacks callbacks;
	void		 *arg;
} Scan;

static CompatJsonResult
object_start(void *state)
{
	Scan *scan = state;

	scan->depth++;
	if (scan->callbacks.object_start)
		scan->callbacks.object_start(scan->arg, scan->depth, scan->key);
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
object_end(void *state)
{
	Scan *scan = state;

	if (scan->callbacks.object_end)
		scan->callbacks.object_end(scan->arg, scan->depth);
	scan->depth--;
	scan->key = NULL; /* what follows in an array has no key */
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
array_start(void *state)
{
	Scan *scan = state;

	if (scan->key)
		scan->callbacks.member(scan->arg, scan->depth, scan->key, json_array);
	scan->depth++;
	scan->key = NULL; /* elements have no key */
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
array_end(void *state)
{
	Scan *scan = state;

	scan->depth--;
	scan->key = NULL;
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
field_start(void *state, char *key, bool isnull)
{
	((Scan *) state)->key = key;
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
scalar(void *state, char *token, JsonTokenType type)
{
	Scan *scan = state;

	if (scan->key)
		scan->callbacks.member(scan->arg, scan->depth, scan->key,
							   type == JSON_TOKEN_NULL ? NULL : token);
	COMPAT_JSON_RETURN;
}

/* Returns the code unit of an escape (\\u and four digits), or -1 if there is none. */
static int
code_unit(const char *text, const char *end)
{
	char digits[5] = "";

	if (end - text < 6 || text[0] != '\\' || text[1] != 'u')
		return -1;
	memcpy(digits, text + 2, 4);
	if (strspn(digits, "0123456789ABCDEFabcdef") != 4)
		return -1;
	return (int) strtol(digits, NULL, 16);
}

/* Returns the character that begins with this code unit, and moves *text behind it. */
static pg_wchar
escaped_character(int code, const char **text, const char *end)
{
	int second;

	*text += 6;
	if (code == 0 || is_utf16_surrogate_second(code))
		return REPLACEMENT;
	if (!is_utf16_surrogate_first(code))
		return code;
	second = code_unit(*text, end);
	if (second < 0 || !is_utf16_surrogate_second(second))
		return REPLACEMENT;
	*text += 6;
	return surrogate_pair_to_codepoint(code, second);
}

/*
 * Returns the JSON, palloc'd, with characters in place of their escapes, but
 * for those of ASCII.  The parser would take them for characters of the
 * server's encoding, and refuse a whole page because of one that this lacks, of
 * half a surrogate pair or of a NUL.  What people write to a number is in its
 * list, and must not keep it from being read.
 */
static char *
without_escapes(const char *json, int *length)
{
	const char *end = json + *length;
	char	   *result = palloc(*length + 1);
	char	   *out = result;

	while (json < end)
	{
		const char *escape = memchr(json, '\\', end - json);
		int			length_before = (escape ? escape : end) - json;
		int			code;

		memcpy(out, json, length_before);
		out += length_before;
		json += length_before;
		code = code_unit(json, end);
		if (code >= 0x80 || code == 0)
		{
			(void) unicode_to_utf8(escaped_character(code, &json, end), (unsigned char *) out);
			out += pg_utf_mblen((unsigned char *) out);
			continue;
		}
		/* what a backslash escapes begins no escape */
		for (int i = 0; i < 2 && json < end; i++)
			*out++ = *json++;
	}
	*length = out - result;
	*out = '\0';
	return result;
}

static bool
parse(const char *json, int length, Scan *scan)
{
	JsonSemAction actions = {
		.semstate = scan,
		.object_start = object_start,
		.object_end = object_end,
		.array_start = array_start,
		.array_end = array_end,
		.object_field_start = field_start,
		.scalar = scalar,
	};

	if (!pg_verify_mbstr(PG_UTF8, json, length, true))
		return false;
	json = without_escapes(json, &length);
	return pg_parse_json(compat_json_lexer(json, length, PG_UTF8), &actions) == JSON_SUCCESS;
}

bool
json_scan_objects(const char *json, int length, const JsonCallbacks *callbacks, void *arg)
{
	Scan		  scan = {.callbacks = *callbacks, .arg = arg};
	MemoryContext context = CurrentMemoryContext;
	volatile bool valid = false;

	if (json == NULL || memchr(json, '\0', length) != NULL)
		return false;

	/* a thousand brackets raise an error */
	PG_TRY();
	{
		valid = parse(json, length, &scan);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		valid = false;
	}
	PG_END_TRY();
	return valid;
}

bool
json_scan(const char *json, int length, JsonMember member, JsonObjectEnd object_end_fn, void *arg)
{
	JsonCallbacks callbacks = {.member = member, .object_end = object_end_fn};

	return json_scan_objects(json, length, &callbacks, arg);
}
