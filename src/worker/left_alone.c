/*-------------------------------------------------------------------------
 *
 * left_alone.c
 *	  Which runs in the queue a worker leaves alone for a while, and until when.
 *
 * A run that cannot be taken up, since somebody has locked its tables, stays in
 * the queue.  The worker takes the oldest ones first, and each attempt lasts as
 * long as it waits for the lock: if it tried the same ones again and again, the
 * others would never have a turn.  So it remembers what it has tried, and leaves
 * that alone for a while, longer each time.
 *
 * Where tables are locked, all runs of their schema have to wait, perhaps thousands.
 * So the whole schema is left alone, and then one of its runs is tried: each time
 * another one, as it may be that only the first one's rows are locked.  Once one has
 * been taken up, the others follow.
 *
 * An attempt to reach a node of Citus that hangs takes longer than a lock.  So it is
 * remembered by node, and made more rarely.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/left_alone.h"

/* The most that is remembered: the one that is to be tried next is forgotten for another. */
#define MAX_LEFT_ALONE 1024

/* How long after a lock, and after a node that could not be reached: first, and at most. */
#define FIRST_MS	 250
#define MOST_MS		 1500
#define FIRST_FAR_MS 2000
#define MOST_FAR_MS	 40000

/* What locked schemas have to wait for each other, so that others have most of the time. */
#define SHARE_MS 1000

/* Many that fail, each for itself, wait no longer than this. */
#define MOST_TOGETHER_MS 300000

/* The others are tried this soon after one could be taken up. */
#define AGAIN_MS 1000

/* What was not tried again for this long is forgotten. */
#define FORGOTTEN_MS 60000

typedef enum LeftKind
{
	LEFT_RUN,
	LEFT_SCHEMA,
	LEFT_NODE
} LeftKind;

typedef struct LeftAlone
{
	LeftKind	kind;
	int64		id;		/* of the run, or the node's group; or 0 */
	NameData	schema; /* of the run; "" for a node */
	bool		far;	/* true if another node could not be reached */
	int			failures;
	TimestampTz until;
} LeftAlone;

static LeftAlone left[MAX_LEFT_ALONE];
static int		 num_left = 0;

static LeftAlone *
find(LeftKind kind, int64 id, const char *schema)
{
	for (int i = 0; i < num_left; i++)
	{
		if (left[i].kind == kind && left[i].id == id && namestrcmp(&left[i].schema, schema) == 0)
			return &left[i];
	}
	return NULL;
}

static LeftAlone *
earliest(void)
{
	LeftAlone *first = &left[0];

	for (int i = 1; i < num_left; i++)
	{
		if (left[i].until < first->until)
			first = &left[i];
	}
	return first;
}

static LeftAlone *
find_or_add(LeftKind kind, int64 id, const char *schema)
{
	LeftAlone *entry = find(kind, id, schema);

	if (entry)
		return entry;
	entry = num_left < MAX_LEFT_ALONE ? &left[num_left++] : earliest();
	memset(entry, 0, sizeof(*entry));
	entry->kind = kind;
	entry->id = id;
	namestrcpy(&entry->schema, schema);
	return entry;
}

static void
forget(LeftAlone *entry)
{
	if (entry)
		*entry = left[--num_left];
}

/* Notes one more failure; returns for how long this one alone would wait. */
static int64
note_failure(LeftAlone *entry, bool far)
{
	int doublings = Min(entry->failures, 10);

	if (entry->far != far)
		doublings = 0;
	entry->failures = doublings + 1;
	entry->far = far;
	return far ? Min((int64) FIRST_FAR_MS << doublings, MOST_FAR_MS)
			   : Min((int64) FIRST_MS << doublings, MOST_MS);
}

static void
wait_for(LeftAlone *entry, int64 msec)
{
	entry->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(msec, MOST_TOGETHER_MS));
}

static int
count_schemas(void)
{
	int count = 0;

	for (int i = 0; i < num_left; i++)
		count += left[i].kind == LEFT_SCHEMA && !left[i].far;
	return count;
}

static int
count_runs_of(const char *schema)
{
	int count = 0;

	for (int i = 0; i < num_left; i++)
		count += left[i].kind == LEFT_RUN && namestrcmp(&left[i].schema, schema) == 0;
	return count;
}

/* Returns for how long the schema is left alone. */
static int64
leave_schema_alone(const char *schema, bool far)
{
	LeftAlone *entry = find_or_add(LEFT_SCHEMA, 0, schema);
	int64	   msec = note_failure(entry, far);

	if (!far)
		msec = Max(msec, (count_schemas() - 1) * SHARE_MS);
	wait_for(entry, msec);
	return msec;
}

/*
 * The run waits somewhat longer than its schema, and longer the more of it have
 * failed, so that one that has not been tried comes before it.
 */
bool
leave_alone(const Run *run)
{
	const Backoff *backoff = &run->claiming;
	bool		   all = backoff->locked || backoff->far;
	int64		   schema = all ? leave_schema_alone(run->schema, backoff->far) : 0;
	LeftAlone	  *entry = find_or_add(LEFT_RUN, run->id, run->schema);
	int64		   msec = Max(schema, note_failure(entry, backoff->far));
	int			   others = count_runs_of(run->schema) - 1;

	wait_for(entry, msec + msec / 2 + msec * (all ? others : others / 8));
	return all;
}

static bool
is_in_force(const LeftAlone *entry, TimestampTz now)
{
	return entry && entry->until > now;
}

bool
is_left_alone(const Run *run)
{
	TimestampTz now = num_left > 0 ? GetCurrentTimestamp() : 0;

	return num_left > 0 && (is_in_force(find(LEFT_SCHEMA, 0, run->schema), now) ||
							is_in_force(find(LEFT_RUN, run->id, run->schema), now));
}

/* Those of this schema, or all that waited for another node, wait no longer than others. */
static void
try_soon(const char *schema, bool far)
{
	TimestampTz soon = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), AGAIN_MS);

	for (int i = 0; i < num_left; i++)
	{
		if (namestrcmp(&left[i].schema, schema) == 0 || (far && left[i].far))
			left[i].until = Min(left[i].until, soon);
	}
}

void
stop_leaving_alone(const Run *run)
{
	LeftAlone *entry;

	if (num_left == 0)
		return;
	forget(find(LEFT_RUN, run->id, run->schema));
	entry = find(LEFT_SCHEMA, 0, run->schema);
	if (entry == NULL)
		return;
	try_soon(run->schema, entry->far);
	forget(find(LEFT_SCHEMA, 0, run->schema));
}

void
leave_node_alone(int32 group)
{
	LeftAlone *entry = find_or_add(LEFT_NODE, group, "");

	wait_for(entry, note_failure(entry, true));
}

bool
node_is_left_alone(int32 group)
{
	return is_in_force(find(LEFT_NODE, group, ""), GetCurrentTimestamp());
}

bool
nodes_are_left_alone(void)
{
	for (int i = 0; i < num_left; i++)
	{
		if (left[i].kind == LEFT_NODE)
			return true;
	}
	return false;
}

void
stop_leaving_node_alone(int32 group)
{
	forget(find(LEFT_NODE, group, ""));
}

bool
some_are_left_alone(void)
{
	TimestampTz now = num_left > 0 ? GetCurrentTimestamp() : 0;
	bool		some = false;

	for (int i = num_left - 1; i >= 0; i--)
	{
		some |= left[i].until > now;
		if (TimestampDifferenceExceeds(left[i].until, now, FORGOTTEN_MS))
			forget(&left[i]);
	}
	return some;
}

Datum
ids_left_alone(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64	   *ids = palloc(Max(num_left, 1) * sizeof(int64));
	int			count = 0;

	for (int i = 0; i < num_left; i++)
	{
		if (left[i].kind == LEFT_RUN && left[i].until > now)
			ids[count++] = left[i].id;
	}
	return array_of_ids(ids, count);
}

Datum
schemas_left_alone(void)
{
	TimestampTz now = GetCurrentTimestamp();
	char	  **schemas = palloc(Max(num_left, 1) * sizeof(char *));
	int			count = 0;

	for (int i = 0; i < num_left; i++)
	{
		if (left[i].kind == LEFT_SCHEMA && left[i].until > now)
			schemas[count++] = NameStr(left[i].schema);
	}
	return make_text_array(schemas, count);
}
