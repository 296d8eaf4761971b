/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Whether a request is signed with the auth token of a group.
 *
 * A group's token is read each time, so that one that has been changed or
 * revoked is of no use from then on; it is only compared with here, and never
 * leaves C.  Reading it is like sending: as the role that sends, so that it
 * may be read by whoever could send with it, and runs no code with more rights.
 *
 * What is kept for some seconds are plans.  They must not be kept for longer:
 * the statement depends on the table's columns, and on the role's rights on
 * them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "calls/verify.h"
#include "database/app_tables.h"
#include "database/attempt.h"
#include "database/citus.h"
#include "database/time_limit.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* How long tables stay open, and how many are open at most. */
#define MAX_AGE_MS 3000
#define MAX_OPEN   64

/* How long reading a group waits for a lock on its table, which anybody may hold. */
#define LOCK_TIMEOUT_MS 1000

typedef struct OpenTablesKey
{
	Oid		 role;
	NameData schema;
} OpenTablesKey;

/* The tables of a role in a schema, with their plans, in a context of their own. */
typedef struct OpenTables
{
	OpenTablesKey key;
	AppTables	 *tables; /* or NULL */
	MemoryContext context;
	TimestampTz	  opened;
} OpenTables;

static HTAB *open_tables = NULL;

static void
close_tables(OpenTables *open)
{
	if (open->tables)
		tables_close(open->tables);
	MemoryContextDelete(open->context);
	(void) hash_search(open_tables, &open->key, HASH_REMOVE, NULL);
}

static void
close_all_tables(void)
{
	HASH_SEQ_STATUS status;
	OpenTables	   *open;

	hash_seq_init(&status, open_tables);
	while ((open = hash_seq_search(&status)) != NULL)
		close_tables(open);
}

static void
create_open_tables(void)
{
	HASHCTL control = {.keysize = sizeof(OpenTablesKey), .entrysize = sizeof(OpenTables)};

	open_tables = hash_create("sendcampaign webhook tables", MAX_OPEN, &control,
							  HASH_ELEM | HASH_BLOBS);
}

/* Returns the tables of the current role in this schema, which are kept. */
static AppTables *
tables_of(const OpenTablesKey *key)
{
	TimestampTz	  now = GetCurrentStatementStartTimestamp();
	OpenTables	 *open = hash_search(open_tables, key, HASH_FIND, NULL);
	MemoryContext context;
	bool		  found;

	if (open && open->tables && !TimestampDifferenceExceeds(open->opened, now, MAX_AGE_MS) &&
		tables_are_current(open->tables))
		return open->tables;
	if (open)
		close_tables(open);
	else if (hash_get_num_entries(open_tables) >= MAX_OPEN)
		close_all_tables();
	context = AllocSetContextCreate(TopMemoryContext, "sendcampaign webhook tables",
									ALLOCSET_SMALL_SIZES);
	open = hash_search(open_tables, key, HASH_ENTER, &found);
	open->tables = NULL;
	open->context = context;
	open->opened = now;
	context = MemoryContextSwitchTo(context);
	open->tables = tables_open(NameStr(key->schema));
	MemoryContextSwitchTo(context);
	return open->tables;
}

/* What verify() is to do, and what it has found. */
typedef struct Verification
{
	OpenTablesKey		 key;
	const ReceiptScope	*scope;
	const SignedRequest *request; /* or NULL */
	const char			*token;	  /* that it must have, if there is no request */
	GroupConfig			*group;	  /* NULL: it is not one that is looked for */
} Verification;

static void
set_until_caller(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

/*
 * The caller need not be a member of the role: its search path, and its
 * temporary tables, must not lead the role's functions to code of the caller.
 */
static void
set_for_role(const char *schema)
{
	set_until_caller("search_path", psprintf("%s, pg_temp", quote_identifier(schema)));
	set_until_caller("row_security", "on");
	if (LockTimeout == 0 || LockTimeout > LOCK_TIMEOUT_MS)
		set_until_caller("lock_timeout", CppAsString2(LOCK_TIMEOUT_MS));
}

static bool
has_signed(const GroupConfig *group, const Verification *v)
{
	const char *status = group->status_callback;
	const char *inbound = group->inbound_url;

	return (status && signature_is_valid(v->request, status, group->auth_token)) ||
		   (inbound && inbound != status &&
			signature_is_valid(v->request, inbound, group->auth_token));
}

static bool
is_wanted(const GroupConfig *group, const Verification *v)
{
	if (group->auth_token == NULL || strcmp(group->account_sid, v->scope->account) != 0)
		return false;
	return v->request ? has_signed(group, v) : strcmp(group->auth_token, v->token) == 0;
}

static void
verify(void *arg)
{
	Verification *v = arg;
	AppTables	 *tables;
	GroupConfig	 *group = NULL;
	ActingScope	  acting;
	int			  level = NewGUCNestLevel();

	set_for_role(v->scope->schema);
	act_as(v->scope->role, &acting);
	tables = tables_of(&v->key);
	tables_check_chosen(tables, v->scope->list_users);
	if (citus_name_is_common(tables->groups))
		group = read_group_by_id(tables, v->scope->group_id);
	act_as_caller(v->scope->role, &acting);
	AtEOXact_GUC(true, level);
	if (group && is_wanted(group, v))
		v->group = group;
}

/*
 * Tells whether somebody has cancelled the statement.  The error code alone
 * proves nothing: the role's code can raise any.  Other errors concern the
 * group, whatever they say; if the transaction cannot be committed after them,
 * PostgreSQL says so.
 */
static bool
is_cancelled(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->funcname &&
		   strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/* The time that a role's code may take. */
#define READ_TIMEOUT_MS 2000

/* Roles whose code has taken too long in this statement (OIDs). */
static List *
slow_roles(Oid more)
{
	static List		  *roles = NIL;
	static TimestampTz statement = 0;
	MemoryContext	   old;

	if (statement != GetCurrentStatementStartTimestamp())
	{
		list_free(roles);
		roles = NIL;
		statement = GetCurrentStatementStartTimestamp();
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (OidIsValid(more))
		roles = lappend_oid(roles, more);
	MemoryContextSwitchTo(old);
	return roles;
}

/* After an error, whatever was planned is of no use. */
static void
forget_tables(const OpenTablesKey *key)
{
	OpenTables *open = hash_search(open_tables, key, HASH_FIND, NULL);

	if (open)
		close_tables(open);
}

/*
 * Code of the table that is being read must not call us: that could close the
 * tables that are in use.
 */
static ErrorData *
attempt_to_verify(Verification *v)
{
	static bool active = false;
	ErrorData *volatile error;
	bool limited;

	if (active)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sendcampaign.receive() was called by code that reads a group"),
				 errhint("Remove the call from the views, policies and functions of the"
						 " table.")));
	active = true;
	limited = time_limit_start(READ_TIMEOUT_MS);
	PG_TRY();
	{
		error = attempt(verify, v);
	}
	PG_FINALLY();
	{
		if (limited)
			time_limit_end();
		active = false;
	}
	PG_END_TRY();
	return error;
}

/* Reads the group, and returns it if it is the one that is looked for. */
static GroupConfig *
find_group(Verification v)
{
	const ReceiptScope *scope = v.scope;
	ErrorData		   *error;

	if (open_tables == NULL)
		create_open_tables();
	memset(&v.key, 0, sizeof(v.key));
	v.key.role = scope->role;
	namestrcpy(&v.key.schema, scope->schema);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(scope->role)) ||
		list_member_oid(slow_roles(InvalidOid), scope->role))
		return NULL;
	error = attempt_to_verify(&v);
	if (time_limit_was_reached())
		(void) slow_roles(scope->role);
	if (error == NULL)
		return v.group;
	forget_tables(&v.key);
	if (!time_limit_was_reached() && is_cancelled(error))
		ReThrowError(error);
	ereport(LOG_SERVER_ONLY,
			(errmsg("sendcampaign: could not read group %lld in schema \"%s\" for a webhook: %s",
					(long long) scope->group_id, scope->schema, error_text(error))));
	return NULL;
}

GroupConfig *
group_that_signed(const ReceiptScope *scope, const SignedRequest *request)
{
	return find_group((Verification){.scope = scope, .request = request});
}

GroupConfig *
group_with_token(const ReceiptScope *scope, const char *token)
{
	return find_group((Verification){.scope = scope, .token = token});
}
