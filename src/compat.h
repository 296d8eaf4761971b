/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between PostgreSQL 15 and 19.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_COMPAT_H
#define SENDCAMPAIGN_COMPAT_H

#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "storage/latch.h"
#include "storage/proc.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#include "utils/acl.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"
#include "utils/wait_event.h"

/* PostgreSQL 18 has this, instead of an attribute after the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* From PostgreSQL 19 on, a descriptor must be finished before it is used. */
#if PG_VERSION_NUM < 190000
#define TupleDescFinalize(desc) ((void) (desc))
#endif

/* Creates a set that lives as long as the process. */
static inline WaitEventSet *
compat_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/* Returns what pg_stat_activity shows while we wait. */
static inline uint32
compat_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("SendcampaignNetwork");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

static inline bool
compat_can_connect(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

static inline bool
compat_can_use_schema(Oid schema, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* Tells whether a role has the rights of another one, or can SET ROLE to it. */
static inline bool
compat_can_act_as(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return has_privs_of_role(member, role) || member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/*
 * Returns the role that set a setting in this session; the bootstrap superuser
 * if none did, and InvalidOid if there is no such setting.
 */
static inline Oid
compat_who_set(const char *name)
{
#if PG_VERSION_NUM >= 160000
	struct config_generic *setting = find_option(name, false, true, WARNING);

	return setting ? setting->srole : InvalidOid;
#else
	struct config_generic **settings = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
	{
		if (strcmp(settings[i]->name, name) == 0)
			return settings[i]->srole;
	}
	return InvalidOid;
#endif
}

/* Returns the local id of the current transaction in this process. */
static inline LocalTransactionId
compat_local_transaction(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

/* Takes the next value that is passed by value from a sort; false at the end. */
static inline bool
compat_get_datum(Tuplesortstate *sort, Datum *value, bool *isnull)
{
#if PG_VERSION_NUM >= 160000
	return tuplesort_getdatum(sort, true, false, value, isnull, NULL);
#else
	return tuplesort_getdatum(sort, true, value, isnull, NULL);
#endif
}

/* Throws if the current role lacks a right that a planned statement needs. */
static inline void
compat_check_permissions(PlannedStmt *statement)
{
#if PG_VERSION_NUM >= 160000
	(void) ExecCheckPermissions(statement->rtable, statement->permInfos, true);
#else
	(void) ExecCheckRTPerms(statement->rtable, true);
#endif
}

/* From 17 on, a worker may connect as a role that may not log in. */
#if PG_VERSION_NUM >= 170000
#define COMPAT_CONNECT_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#define COMPAT_NEEDS_LOGIN	 false
#else
#define COMPAT_CONNECT_FLAGS 0
#define COMPAT_NEEDS_LOGIN	 true
#endif

/* From 17 on, there is one more limit to the time of a transaction. */
static inline void
compat_no_transaction_timeout(void)
{
#if PG_VERSION_NUM >= 170000
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_SESSION);
#endif
}

/* Tells whether this process is a background worker rather than a session. */
static inline bool
compat_is_background_worker(void)
{
#if PG_VERSION_NUM >= 170000
	return AmBackgroundWorkerProcess();
#else
	return IsBackgroundWorker;
#endif
}

#endif /* SENDCAMPAIGN_COMPAT_H */
