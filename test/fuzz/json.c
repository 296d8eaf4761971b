/*
 * json.c
 *		JSON: the same texts are valid as for PostgreSQL's own parser, and have
 *		the same members.
 */
#include "fuzz.h"

#include "../../src/twilio/json.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

/* Callbacks of the parser return void in 15, and an error code from 16 on. */
#if PG_VERSION_NUM >= 160000
typedef JsonParseErrorType Result;
#define DONE return JSON_SUCCESS
#else
typedef void Result;
#define DONE return
#endif

/* What is read, in one text; depth and key are kept only by the parser's callbacks. */
typedef struct Log
{
	StringInfoData text;
	int			   depth;
	const char	  *key;
} Log;

static void
log_member(void *arg, int depth, const char *key, const char *value)
{
	appendStringInfo(&((Log *) arg)->text, "%d %s = %s%s\n", depth, key,
					 value == json_array ? "array " : "", value ? value : "null of JSON");
}

static void
log_object_start(void *arg, int depth, const char *key)
{
	appendStringInfo(&((Log *) arg)->text, "%d %s {\n", depth, key ? key : "-");
}

static void
log_object_end(void *arg, int depth)
{
	appendStringInfo(&((Log *) arg)->text, "%d }\n", depth);
}

static Result
object_start(void *arg)
{
	Log *log = arg;

	log_object_start(log, ++log->depth, log->key);
	log->key = NULL;
	DONE;
}

static Result
object_end(void *arg)
{
	Log *log = arg;

	log_object_end(log, log->depth--);
	log->key = NULL;
	DONE;
}

static Result
array_start(void *arg)
{
	Log *log = arg;

	if (log->key)
		log_member(log, log->depth, log->key, json_array);
	log->depth++;
	log->key = NULL;
	DONE;
}

static Result
array_end(void *arg)
{
	Log *log = arg;

	log->depth--;
	log->key = NULL;
	DONE;
}

static Result
field_start(void *arg, char *key, bool isnull)
{
	((Log *) arg)->key = key;
	DONE;
}

static Result
scalar(void *arg, char *token, JsonTokenType type)
{
	Log *log = arg;

	if (log->key)
		log_member(log, log->depth, log->key, type == JSON_TOKEN_NULL ? NULL : token);
	log->key = NULL;
	DONE;
}

static const JsonSemAction actions = {
	.object_start = object_start,
	.object_end = object_end,
	.array_start = array_start,
	.array_end = array_end,
	.object_field_start = field_start,
	.scalar = scalar,
};

/* Returns a copy in which the escape of any code unit is that of a character that exists. */
static char *
with_characters(const char *json, size_t length)
{
	char *copy = pnstrdup(json, length);

	for (char *c = strchr(copy, '\\'); c && c[1]; c = strchr(c + 2, '\\'))
	{
		if (c[1] == 'u' && strspn(c + 2, "0123456789ABCDEFabcdef") >= 4)
			memcpy(c + 2, "0041", 4);
	}
	return copy;
}

static bool
parse(char *json, int length, Log *log)
{
	JsonSemAction with_log = actions;

	with_log.semstate = log;
	return pg_parse_json(makeJsonLexContextCstringLen(
#if PG_VERSION_NUM >= 170000
							 NULL,
#endif
							 json, length, PG_UTF8, true),
						 &with_log) == JSON_SUCCESS;
}

void
fuzz_one(const char *data, size_t size)
{
	static const JsonCallbacks callbacks = {log_member, log_object_start, log_object_end};
	Log						   ours = {.depth = 0};
	Log						   parsers = {.depth = 0};
	bool					   readable = memchr(data, '\0', size) == NULL &&
					pg_encoding_verifymbstr(PG_UTF8, data, size) == size;
	bool valid;

	initStringInfo(&ours.text);
	initStringInfo(&parsers.text);
	valid = json_scan_objects(data, size, &callbacks, &ours);
	promise(valid == (readable && parse(with_characters(data, size), size, &parsers)));
	resetStringInfo(&parsers.text);
	parsers.depth = 0;
	parsers.key = NULL;
	if (valid && parse(pnstrdup(data, size), size, &parsers))
		promise(strcmp(ours.text.data, parsers.text.data) == 0);
}
