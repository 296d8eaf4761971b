/*-------------------------------------------------------------------------
 *
 * own_tables.c
 *	  The extension and its own tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "compat.h"
#include "database/own_tables.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"

/* What become_caller() restores. */
typedef struct OwnerScope
{
	Oid user;
	int security;
	int guc_level;
} OwnerScope;

static Oid
find_extension_owner(void)
{
	Oid			extension = get_extension_oid("sendcampaign", false);
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"sendcampaign\" does not exist"),
				 errhint("Create it with CREATE EXTENSION sendcampaign.")));
	return owner;
}

/*
 * A worker, whose transactions change nothing about extensions, looks once per
 * transaction.
 */
static Oid
extension_owner(void)
{
	static Oid				  owner = InvalidOid;
	static LocalTransactionId found_in = InvalidLocalTransactionId;
	LocalTransactionId		  now = compat_local_transaction();

	if (!compat_is_background_worker())
		return find_extension_owner();
	if (found_in != now)
		owner = find_extension_owner();
	found_in = now;
	return owner;
}

static void
switch_off(const char *method)
{
	(void) set_config_option(method, "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

void
plan_by_index(void)
{
	switch_off("enable_seqscan");
	switch_off("enable_hashjoin");
	switch_off("enable_mergejoin");
	/* what is switched off only costs very much, which is no reason to compile the plan */
	switch_off("jit");
}

/*
 * A trigger of a subscription, or a superuser, may call us where ordinary
 * triggers do not fire.  Ours do for what we write, so that it is marked as such
 * (written_in), but not for rows that are replicated into our tables.
 */
static void
let_triggers_fire(void)
{
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_ORIGIN)
		(void) set_config_option("session_replication_role", "origin", PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/* After an error, the abort of the (sub)transaction restores the caller. */
static void
become_owner(OwnerScope *scope)
{
	GetUserIdAndSecContext(&scope->user, &scope->security);
	scope->guc_level = NewGUCNestLevel();
	let_triggers_fire();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(extension_owner(), scope->security | SECURITY_LOCAL_USERID_CHANGE |
												  SECURITY_RESTRICTED_OPERATION);
}

static void
become_caller(const OwnerScope *scope)
{
	SetUserIdAndSecContext(scope->user, scope->security);
	AtEOXact_GUC(true, scope->guc_level);
}

/*
 * All of our tables have the indexes that are needed.  A part of one that is
 * small now is not to be kept in memory, and gone through for each row; and a
 * bitmap for each row costs more than the row.
 */
static void
plan_own_tables(void)
{
	plan_by_index();
	switch_off("enable_material");
	switch_off("enable_memoize");
	switch_off("enable_bitmapscan");
}

uint64
own_execute(OwnStatement *statement, Datum *values, const char *nulls)
{
	OwnerScope scope;
	uint64	   count;

	become_owner(&scope);
	if (statement->plan == NULL || !SPI_plan_is_valid(statement->plan))
		plan_own_tables();
	if (statement->plan == NULL)
		statement->plan = spi_prepare(statement->sql, statement->nargs, statement->types);
	count = spi_execute(statement->plan, values, nulls, 0);
	become_caller(&scope);
	return count;
}

static uint64
query_as_owner(const char *sql, const SpiCall *call)
{
	OwnerScope scope;
	uint64	   count;

	become_owner(&scope);
	count = spi_query(sql, call);
	become_caller(&scope);
	return count;
}

uint64
own_query(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	return query_as_owner(sql, &(SpiCall){nargs, types, values, nulls});
}

uint64
own_read(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	return query_as_owner(sql, &(SpiCall){nargs, types, values, nulls, .read_only = true});
}

uint64
own_query_by_id(const char *sql, int64 id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(id);

	return own_query(sql, 1, &type, &value, NULL);
}

Oid
own_lock_extension(void)
{
	Oid extension = get_extension_oid("sendcampaign", true);

	if (!OidIsValid(extension))
		return InvalidOid;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	return get_extension_oid("sendcampaign", true) == extension ? extension : InvalidOid;
}
