/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  send_campaign(): queues a run in the caller's transaction.
 *
 * It reads nothing of the list, so it costs the same for a list of any
 * length.  The primary key on the job, and a unique index on the campaign of
 * unfinished runs, decide between callers at the same time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "home.h"
#include "miscadmin.h"
#include "own.h"
#include "queue.h"
#include "settings.h"
#include "start.h"
#include "tables.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(send_campaign);

static Oid
owner_of_list_users(const AppTables *tables)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(tables->list_users));
	Oid		  owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", tables->list_users);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* A superuser's call runs with the rights of the owner of the list users. */
static Oid
role_to_send_as(const AppTables *tables)
{
	return superuser() ? owner_of_list_users(tables) : GetUserId();
}

static void
check_role(Oid role)
{
	char *hint;
	char *reason = why_role_cannot_work(role, &hint);

	if (reason)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot send with the rights of role \"%s\"",
							   GetUserNameFromId(role, false)),
						errdetail("The worker connects as that role, but %s.", reason),
						hint ? errhint("%s", hint) : 0));
}

AppTables *
open_tables_of_caller(Oid *role)
{
	AppTables *tables = tables_open(sendcampaign_schema);

	*role = role_to_send_as(tables);

	/* whoever calls a function of others must not lead it to code of theirs */
	if (schema_is_of_callers_choice() || superuser_arg(*role))
		tables_check_trust(tables, *role);
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

static void
check_job(const AppTables *tables, int64 job_id)
{
	if (!tables_has_job(tables, job_id))
		ereport(
			ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("background job %lld does not exist", (long long) job_id),
			 errhint(
				 "Check that it is in \"%s.ac_background_jobs\" and that your role may see it, or leave it out and have one created.",
				 tables->schema)));
}

/* False where the job, or the campaign's run, is there already. */
static bool
insert_run(const AppTables *tables, int64 campaign_id, int64 job_id, Oid role)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTOID, TEXTOID, OIDOID, OIDOID, TEXTOID};
	Datum values[] = {Int64GetDatum(job_id),
					  Int64GetDatum(campaign_id),
					  CStringGetTextDatum(GetUserNameFromId(role, false)),
					  CStringGetTextDatum(tables->schema),
					  ObjectIdGetDatum(MyDatabaseId),
					  ObjectIdGetDatum(role),
					  CStringGetTextDatum(cluster_history())};

	return own_query("INSERT INTO sendcampaign.run_data"
					 " (job_id, campaign_id, role, schema, database, role_oid, history)"
					 " VALUES ($1, $2, $3::name, $4::name, $5, $6, $7) ON CONFLICT DO NOTHING",
					 7, types, values, NULL) == 1;
}

void
fail_campaign_is_sending(int64 campaign_id)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
					errmsg("campaign %lld is being sent already", (long long) campaign_id),
					errdetail("A run of it under another background job has not ended."),
					errhint("Wait until that run has ended, or if it is paused, call"
							" sendcampaign.resume() or sendcampaign.cancel(); see"
							" sendcampaign.progress.")));
}

static void
fail_job_is_taken(int64 job_id)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_DUPLICATE_OBJECT),
		 errmsg("background job %lld belongs to another campaign", (long long) job_id),
		 errhint(
			 "Use a background job of its own for each sending of a campaign, or leave it out and have one created.")));
}

/* The application has gone back to numbers that it had given to jobs before. */
static void
fail_new_job_has_run(const AppTables *tables, int64 job_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("there is already a run of background job %lld, which was created just now",
					(long long) job_id),
			 errdetail("The numbers of \"%s.ac_background_jobs\" have been given before.",
					   tables->schema),
			 errhint("Set the table's sequence to a number beyond those in sendcampaign.run.")));
}

/* A failed run goes on where it stopped; a test does beside the campaign's own. */
static void
requeue_failed_run(const AppTables *tables, int64 campaign_id, int64 id, int64 job_id, Oid role)
{
	Oid	  types[] = {INT8OID, TEXTOID, OIDOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(GetUserNameFromId(role, false)),
					  ObjectIdGetDatum(role)};

	if (own_query(
			"UPDATE sendcampaign.run_data SET state = 'queued', role = $2::name,"
			" role_oid = $3, finished_at = NULL, error = NULL, next_at = NULL"
			" WHERE id = $1 AND state = 'failed' AND (test_phone IS NOT NULL OR NOT EXISTS"
			"  (SELECT FROM sendcampaign.run_data o WHERE o.campaign_id = run_data.campaign_id"
			"   AND o.schema = run_data.schema AND o.test_phone IS NULL"
			"   AND o.state IN ('queued', 'running', 'paused')))"
			" RETURNING test_phone IS NOT NULL",
			3, types, values, NULL) == 0)
		fail_campaign_is_sending(campaign_id);
	if (!spi_bool(0, 1))
		tables_reopen_job(tables, job_id);
}

/* The run exists: go on, do nothing, or refuse.  True where it goes on. */
static bool
meet_existing_run(const AppTables *tables, int64 campaign_id, int64 job_id, Oid role, Oid caller)
{
	Oid	  types[] = {INT8OID, TEXTOID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id), CStringGetTextDatum(tables->schema),
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	char *state;
	int64 id;

	if (own_query(
			"SELECT campaign_id, state, id, (" ROLE_HERE(
				"$3", "$4") ")::int8"
							" FROM sendcampaign.run_data WHERE job_id = $1 AND schema = $2::name",
			4, types, values, NULL) == 0)
		fail_campaign_is_sending(campaign_id);
	if (spi_int64(0, 1) != campaign_id)
		fail_job_is_taken(job_id);

	state = spi_string(0, 2);
	id = spi_int64(0, 3);
	if (strcmp(state, "failed") == 0 &&
		(superuser_arg(caller) || is_member_of_role(caller, (Oid) spi_int64(0, 4))))
	{
		requeue_failed_run(tables, campaign_id, id, job_id, role);
		return true;
	}
	ereport(NOTICE,
			(errmsg("campaign %lld is %s already for background job %lld", (long long) campaign_id,
					state, (long long) job_id),
			 errdetail("Nothing is sent a second time."),
			 strcmp(state, "paused") == 0 ? errhint("Call sendcampaign.resume() to have it go on.")
										  : 0));
	return false;
}

/* A test of the caller's, which has no job? */
static bool
is_test_of(Oid caller, const AppTables *tables, int64 job_id)
{
	Oid	  types[] = {INT8OID, TEXTOID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id), CStringGetTextDatum(tables->schema),
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	if (own_query(
			"SELECT (" ROLE_HERE(
				"$3", "$4") ")::int8 FROM sendcampaign.run_data"
							" WHERE job_id = $1 AND schema = $2::name AND test_phone IS NOT NULL",
			4, types, values, NULL) == 0)
		return false;
	return superuser_arg(caller) || is_member_of_role(caller, (Oid) spi_int64(0, 1));
}

/* Whether the job has a run already, or the campaign is being sent, shows here. */
static bool
queue_run(const AppTables *tables, int64 campaign_id, int64 job_id, bool job_is_new, Oid role,
		  Oid caller)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(job_id), CStringGetTextDatum(tables->schema)};

	if (insert_run(tables, campaign_id, job_id, role))
		return true;
	if (job_is_new && own_query("SELECT FROM sendcampaign.run_data"
								" WHERE job_id = $1 AND schema = $2::name",
								2, types, values, NULL) > 0)
		fail_new_job_has_run(tables, job_id);
	return meet_existing_run(tables, campaign_id, job_id, role, caller);
}

/* The same for a job that the caller names; the number of a test will do. */
static bool
queue_for_job(const AppTables *tables, int64 campaign_id, int64 job_id, Oid role, Oid caller)
{
	if (job_id < 0 && is_test_of(caller, tables, job_id))
		return meet_existing_run(tables, campaign_id, job_id, role, caller);
	check_job(tables, job_id);
	return queue_run(tables, campaign_id, job_id, false, role, caller);
}

void
act_as(Oid role, ActingScope *scope)
{
	GetUserIdAndSecContext(&scope->caller, &scope->security);
	if (role == scope->caller)
		return;

	/*
	 * Deferred triggers would fire at the commit, as the caller: an error.
	 * Settings that triggers change are the caller's again afterwards.
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

bool
act_for_run(const AppTables *tables, Oid *role, bool at_home, ActingScope *scope)
{
	bool  chosen = at_home && OidIsValid(*role);
	char *foreign = NULL;

	if (!at_home && superuser() && OidIsValid(*role) && tables_find_foreign_code(tables, *role))
		*role = InvalidOid;
	if (!OidIsValid(*role))
		*role = owner_of_list_users(tables);
	if (superuser_arg(*role) || (!chosen && *role != GetUserId()))
		foreign = tables_find_foreign_code(tables, *role);
	if (foreign == NULL)
	{
		act_as(*role, scope);
		return true;
	}
	ereport(
		WARNING,
		(errmsg("the application's tables in schema \"%s\" are not told", tables->schema),
		 errdetail("They would be used with the rights of role \"%s\"%s, but %s.",
				   GetUserNameFromId(*role, false),
				   superuser_arg(*role) ? ", a superuser" : ", which has not chosen them", foreign),
		 errhint("Update the background job, and sentCount of the list user, by hand.")));
	*role = scope->caller = GetUserId();
	return false;
}

void
check_writable(const char *function)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("cannot execute %s during recovery", function),
						errhint("Call it on the primary server.")));
	if (XactReadOnly)
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("cannot execute %s in a read-only transaction", function),
						errhint("Call it in a transaction that is READ WRITE.")));
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	check_writable("send_campaign()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("campaign_id must not be null"),
				 errhint("Pass the id of a row in \"ac_campaigns\".")));
}

/* send_campaign(campaign_id bigint, job_id bigint) returns bigint */
Datum
send_campaign(PG_FUNCTION_ARGS)
{
	int64		campaign_id;
	int64		job_id;
	bool		create_job = PG_ARGISNULL(1);
	AppTables  *tables;
	Oid			role;
	ActingScope scope;

	check_arguments(fcinfo);
	campaign_id = PG_GETARG_INT64(0);
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	tables = open_tables_of_caller(&role);
	check_sender(tables, role, create_job);

	/* from here on not even a superuser's call does more than that role may */
	act_as(role, &scope);
	check_campaign(tables, campaign_id);

	job_id = create_job ? tables_create_job(tables) : PG_GETARG_INT64(1);
	if (create_job ? queue_run(tables, campaign_id, job_id, true, role, scope.caller)
				   : queue_for_job(tables, campaign_id, job_id, role, scope.caller))
		start_worker_at_commit(role);
	act_as_caller(role, &scope);
	if (!sendcampaign_enabled)
		ereport(
			WARNING,
			(errmsg("campaign %lld is queued, but sending is switched off",
					(long long) campaign_id),
			 errhint(
				 "It is sent once \"sendcampaign.enabled\" is on and sendcampaign.wake() is called.")));
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_INT64(job_id);
}
