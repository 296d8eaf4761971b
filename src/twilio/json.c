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

typedef struct Scan
{
	int			  depth;
	char		 *key; /* of the member that is being read */
	JsonMember	  member;
	JsonObjectEnd object_end;
	void		 *arg;
} Scan;

static CompatJsonResult
object_start(void *state)
{
	((Scan *) state)->depth++;
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
object_end(void *state)
{
	Scan *scan = state;

	if (scan->object_end)
		scan->object_end(scan->arg, scan->depth);
	scan->depth--;
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
array_start(void *state)
{
	Scan *scan = state;

	if (scan->key)
		scan->member(scan->arg, scan->depth, scan->key, json_array);
	scan->depth++;
	scan->key = NULL; /* elements have no key */
	COMPAT_JSON_RETURN;
}

static CompatJsonResult
array_end(void *state)
{
	((Scan *) state)->depth--;
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
		scan->member(scan->arg, scan->depth, scan->key, type == JSON_TOKEN_NULL ? NULL : token);
	COMPAT_JSON_RETURN;
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

	return pg_verify_mbstr(PG_UTF8, json, length, true) &&
		   pg_parse_json(compat_json_lexer(json, length, PG_UTF8), &actions) == JSON_SUCCESS;
}

bool
json_scan(const char *json, int length, JsonMember member, JsonObjectEnd object_end_fn, void *arg)
{
	Scan		  scan = {0, NULL, member, object_end_fn, arg};
	MemoryContext context = CurrentMemoryContext;
	volatile bool valid = false;

	if (json == NULL || memchr(json, '\0', length) != NULL)
		return false;

	/* A thousand brackets, or an escape that the server cannot represent, raise an error. */
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
