/*-------------------------------------------------------------------------
 *
 * control.c
 *	  What a person does to a run: settle(), resume().
 *
 * A run of a role that the caller is no member of is refused with the same
 * words as one that does not exist.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "finish.h"
#include "fmgr.h"
#include "history.h"
#include "miscadmin.h"
#include "own.h"
#include "queue.h"
#include "start.h"
#include "tables.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_settle);
PG_FUNCTION_INFO_V1(sendcampaign_resume);

static void
fail_no_run(int64 job_id)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
					errmsg("there is no run of background job %lld", (long long) job_id),
					errhint("See sendcampaign.run for those that your role may see.")));
}

/*
 * Locks the run, whose state and schema are then in SPI_tuptable (columns 1
 * and 2); throws where there is none for this caller.  Returns its role.
 */
static Oid
lock_run(int64 job_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(job_id);
	Oid	  role;

	if (own_query("SELECT state, schema::text, role::text FROM sendcampaign.run"
				  " WHERE job_id = $1 FOR UPDATE",
				  1, &type, &value, NULL) == 0)
		fail_no_run(job_id);
	role = get_role_oid(spi_string(0, 3), true);
	if (!superuser() && (!OidIsValid(role) || !is_member_of_role(GetUserId(), role)))
		fail_no_run(job_id);
	return role;
}

static void
settle_message(int64 job_id, int64 list_user_id, bool sent)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(job_id), Int64GetDatum(list_user_id),
					  CStringGetTextDatum(sent ? "sent" : "failed")};

	if (own_query("UPDATE sendcampaign.message SET status = $3, updated_at = now()"
				  " WHERE job_id = $1 AND list_user_id = $2 AND status = 'in_doubt'",
				  3, types, values, NULL) == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg("the message of job %lld to list user %lld is not in doubt",
							   (long long) job_id, (long long) list_user_id),
						errhint("Those that are have status 'in_doubt' in sendcampaign.message.")));
	(void) own_query(
		sent
			? "UPDATE sendcampaign.run SET in_doubt = in_doubt - 1, sent = sent + 1 WHERE job_id = $1"
			: "UPDATE sendcampaign.run SET in_doubt = in_doubt - 1, failed = failed + 1 WHERE job_id = $1",
		1, types, values, NULL);
}

/* sendcampaign.settle(job_id bigint, list_user_id bigint, sent boolean) */
Datum
sendcampaign_settle(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	int64		list_user_id = PG_GETARG_INT64(1);
	bool		sent = PG_GETARG_BOOL(2);
	Datum		id = Int64GetDatum(list_user_id);
	AppTables  *tables;
	Oid			role;
	ActingScope scope;

	check_writable("sendcampaign.settle()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	role = lock_run(job_id);
	tables = tables_open(spi_string(0, 2));
	settle_message(job_id, list_user_id, sent);
	if (!OidIsValid(role))
		role = GetUserId(); /* it was dropped: only a superuser comes here */
	act_as(role, &scope);
	if (sent)
		tables_count_sent(tables, make_array(&id, NULL, 1, INT8OID));
	report_settled(tables, job_id);
	act_as_caller(role, &scope);
	tables_close(tables);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_VOID();
}

/* sendcampaign.resume(job_id bigint) */
Datum
sendcampaign_resume(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	Oid	  types[] = {INT8OID, TEXTOID, TEXTOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id),
					  CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier())),
					  CStringGetTextDatum(cluster_history()), ObjectIdGetDatum(MyDatabaseId)};
	Oid	  role;
	char *state;

	check_writable("sendcampaign.resume()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	role = lock_run(job_id);
	state = spi_string(0, 1);
	if (strcmp(state, "paused") != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the run of background job %lld is %s", (long long) job_id, state),
						errhint("Only a paused run can be resumed.")));
	(void) own_query("UPDATE sendcampaign.run SET error = NULL, system_identifier = $2::numeric,"
					 " database = $4,"
					 " history = CASE WHEN total IS NOT NULL THEN $3 END,"
					 " state = CASE WHEN total IS NULL THEN 'queued' ELSE 'running' END"
					 " WHERE job_id = $1",
					 4, types, values, NULL);
	if (OidIsValid(role))
		start_worker_at_commit(role);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_VOID();
}
