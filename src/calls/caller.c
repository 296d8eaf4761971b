/*-------------------------------------------------------------------------
 *
 * caller.c
 *	  With whose rights a call runs, and with whose it uses the application's
 *	  tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "calls/caller.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/check.h"
#include "database/tables_home.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/guc.h"
#include "worker/start_worker.h"

/* A superuser's call runs with the rights of the owner of ac_list_users. */
static Oid
role_to_send_as(const AppTables *tables)
{
	return superuser() ? tables_owner(tables) : GetUserId();
}

static void
check_role(Oid role)
{
	char *hint;
	char *reason = why_role_cannot_work(role, &hint);

	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_internal("%s", reason),
				 errdetail("The worker that sends the campaign connects as that role."),
				 hint ? errhint("%s", hint) : 0));
}

/* Sets *group to that of the node of Citus which has the tables. */
static AppTables *
open_tables(Oid *role, int32 *group)
{
	AppTables *tables = tables_open(sendcampaign_schema);

	*group = tables_check_layout(tables);
	*role = role_to_send_as(tables);

	/* a caller of a function that somebody else owns must not make it run the caller's code */
	if (schema_is_of_callers_choice() || superuser_arg(*role))
		tables_check_trust(tables, *role);
	return tables;
}

AppTables *
open_tables_anywhere(Oid *role)
{
	int32 group;

	return open_tables(role, &group);
}

AppTables *
open_tables_of_caller(Oid *role)
{
	int32	   group;
	AppTables *tables = open_tables(role, &group);

	tables_check_home(tables, group);
	return tables;
}

void
check_sender(const AppTables *tables, Oid role, bool creates_job)
{
	tables_check_rights(tables, role, creates_job);
	check_role(role);
}

void
check_campaign(const AppTables *tables, int64 campaign_id)
{
	if (!tables_has_campaign(tables, campaign_id))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("campaign %lld does not exist", (long long) campaign_id),
				 errhint("Check that it is in \"%s.ac_campaigns\" and that your role may see it.",
						 tables->schema)));
}

void
fail_campaign_is_sending(int64 campaign_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("campaign %lld is already being sent", (long long) campaign_id),
			 errdetail("Its run under another background job has not ended."),
			 errhint("Wait until that run has ended. If it is paused, call sendcampaign.resume()"
					 " or sendcampaign.cancel(). See sendcampaign.progress.")));
}

void
reopen_run(void (*function)(void *arg), void *arg, int64 campaign_id)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		function(arg);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		fail_campaign_is_sending(campaign_id);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

void
act_as(Oid role, ActingScope *scope)
{
	GetUserIdAndSecContext(&scope->caller, &scope->security);
	if (role == scope->caller)
		return;

	/*
	 * Deferred triggers fire at the commit, as the caller; this restriction
	 * makes queuing them an error.  Settings that triggers change are restored
	 * afterwards.
	 */
	scope->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(role, scope->security | SECURITY_LOCAL_USERID_CHANGE |
									 SECURITY_RESTRICTED_OPERATION);
}

void
act_as_caller(Oid role, const ActingScope *scope)
{
	if (role == scope->caller)
		return;
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->caller, scope->security);
}

static void
warn_not_updated(const AppTables *tables, Oid role, const ForeignCode *foreign)
{
	char *name = GetUserNameFromId(role, false);

	ereport(WARNING,
			(errmsg("the application's tables in schema \"%s\" are not updated", tables->schema),
			 superuser_arg(role)
				? errdetail("%s belongs to role \"%s\", whose code would run with the rights of"
							" superuser \"%s\".",
							foreign->object, foreign->owner, name)
				: errdetail("%s belongs to role \"%s\", whose code would run with the rights of"
							" role \"%s\", although that role has not chosen these tables.",
							foreign->object, foreign->owner, name),
			 errhint("Update the background job and the sentCount of the list user yourself.")));
}

bool
act_for_run(const AppTables *tables, Oid *role, bool at_home, Oid list_users, ActingScope *scope)
{
	bool chosen = at_home && OidIsValid(*role) &&
				  (!OidIsValid(list_users) || tables_are_chosen(tables, *role, list_users));
	bool		is_foreign = false;
	ForeignCode foreign;

	if (!at_home && superuser() && OidIsValid(*role) &&
		tables_find_foreign_code(tables, *role, &foreign))
		*role = InvalidOid;
	if (!OidIsValid(*role))
		*role = tables_owner(tables);
	if (superuser_arg(*role) || (!chosen && *role != GetUserId()))
		is_foreign = tables_find_foreign_code(tables, *role, &foreign);
	if (!is_foreign)
	{
		act_as(*role, scope);
		return true;
	}
	warn_not_updated(tables, *role, &foreign);
	*role = scope->caller = GetUserId();
	return false;
}

void
check_primary(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s during recovery", function),
				 errhint("Call it on the primary server.")));
}

void
check_writable(const char *function)
{
	check_primary(function);
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", function),
				 errhint("Call it in a transaction that is READ WRITE.")));
}

void
check_read_committed(const char *function, const char *otherwise)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs the isolation level READ COMMITTED", function),
				 errdetail("%s", otherwise),
				 errhint("Call it in a transaction that is READ COMMITTED.")));
}
