/*-------------------------------------------------------------------------
 *
 * control.c
 *	  What a person does to a run: settle(), pause(), resume(), cancel().
 *
 * A run of a role that the caller is no member of is refused with the same
 * words as one that does not exist.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "control.h"
#include "finish.h"
#include "fmgr.h"
#include "history.h"
#include "miscadmin.h"
#include "own.h"
#include "record.h"
#include "queue.h"
#include "start.h"
#include "tables.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_settle);
PG_FUNCTION_INFO_V1(sendcampaign_pause);
PG_FUNCTION_INFO_V1(sendcampaign_resume);
PG_FUNCTION_INFO_V1(sendcampaign_cancel);

void
fail_no_run(int64 job_id)
{
	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
					errmsg("there is no run of background job %lld", (long long) job_id),
					errhint("See sendcampaign.run for those that your role may see.")));
}

bool
is_for_caller(Oid role)
{
	return superuser() || (OidIsValid(role) && is_member_of_role(GetUserId(), role));
}

Oid
lock_run(int64 job_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(job_id);
	Oid	  role;

	if (own_query(
			"SELECT state, schema::text, role::text, total IS NOT NULL, test_phone IS NOT NULL"
			" FROM sendcampaign.run WHERE job_id = $1 FOR UPDATE",
			1, &type, &value, NULL) == 0)
		fail_no_run(job_id);
	role = get_role_oid(spi_string(0, 3), true);
	if (!is_for_caller(role))
		fail_no_run(job_id);
	return role;
}

void
fail_in_state(int64 job_id, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the run of background job %lld is %s", (long long) job_id, spi_string(0, 1)),
			 errhint("%s", hint)));
}

/* Is the state of the run in SPI_tuptable one of these? */
static bool
is_in_state(const char *a, const char *b, const char *c)
{
	const char *state = spi_string(0, 1);

	return strcmp(state, a) == 0 || (b && strcmp(state, b) == 0) || (c && strcmp(state, c) == 0);
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

static void
count_settled(AppTables *tables, int64 job_id, int64 list_user_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(job_id);
	Datum id = Int64GetDatum(list_user_id);

	(void) own_query("SELECT list_id FROM sendcampaign.run WHERE job_id = $1", 1, &type, &value,
					 NULL);
	if (mark_uncounted(job_id, tables_count_sent(tables, &id, 1, spi_int64(0, 1))))
		ereport(NOTICE,
				(errmsg("sentCount of list user %lld could not be added", (long long) list_user_id),
				 errdetail("The UPDATE was suppressed by a trigger, a rule or a policy.")));
}

/* sendcampaign.settle(job_id bigint, list_user_id bigint, sent boolean) */
Datum
sendcampaign_settle(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	int64		list_user_id = PG_GETARG_INT64(1);
	bool		sent = PG_GETARG_BOOL(2);
	AppTables  *tables;
	Oid			role;
	bool		counts;
	ActingScope scope;

	check_writable("sendcampaign.settle()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	role = lock_run(job_id);
	tables = tables_open(spi_string(0, 2));
	counts = sent && !spi_bool(0, 5); /* a test is counted nowhere */
	settle_message(job_id, list_user_id, sent);
	if (!OidIsValid(role))
		role = GetUserId(); /* it was dropped: only a superuser comes here */
	act_as(role, &scope);
	if (counts)
		count_settled(tables, job_id, list_user_id);
	report_settled(tables, job_id);
	act_as_caller(role, &scope);
	tables_close(tables);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_VOID();
}

/* Writes the state with who has wished it, and what else is given. */
static void
write_state(int64 job_id, const char *assignments, const char *participle)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(job_id),
					  CStringGetTextDatum(
						  psprintf("%s by %s", participle, GetUserNameFromId(GetUserId(), false)))};

	(void) own_query(psprintf("UPDATE sendcampaign.run SET error = $2, state = '%s', %s"
							  " WHERE job_id = $1",
							  participle, assignments),
					 2, types, values, NULL);
}

/* sendcampaign.pause(job_id bigint) */
Datum
sendcampaign_pause(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	Oid	  role;

	check_writable("sendcampaign.pause()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	role = lock_run(job_id);
	if (!is_in_state("queued", "running", NULL))
		fail_in_state(job_id, "Only a queued or running run can be paused.");
	write_state(job_id, "paused_from = state", "paused");
	if (OidIsValid(role))
		wake_worker_at_commit(role);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_VOID();
}

/*
 * What a person has paused goes on as it was.  What was paused as it may have
 * been sent without being known here is taken for what it says to be.
 */
static void
write_resumed(int64 job_id)
{
	Oid	  types[] = {INT8OID, TEXTOID, TEXTOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id),
					  CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier())),
					  CStringGetTextDatum(cluster_history()), ObjectIdGetDatum(MyDatabaseId)};

	if (own_query("UPDATE sendcampaign.run SET error = NULL, next_at = NULL, state = paused_from,"
				  " paused_from = NULL WHERE job_id = $1 AND paused_from IS NOT NULL",
				  1, types, values, NULL) == 0)
		(void) own_query(
			"UPDATE sendcampaign.run SET error = NULL, next_at = NULL, system_identifier = $2::numeric,"
			" database = $4,"
			" history = CASE WHEN total IS NOT NULL THEN $3 END,"
			" state = CASE WHEN total IS NULL THEN 'queued' ELSE 'running' END"
			" WHERE job_id = $1",
			4, types, values, NULL);

	/* quiet hours may have been changed: they are judged anew */
	(void) own_query("UPDATE sendcampaign.batch SET due = NULL"
					 " WHERE job_id = $1 AND due IS NOT NULL",
					 1, types, values, NULL);
}

/* sendcampaign.resume(job_id bigint) */
Datum
sendcampaign_resume(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	Oid	  role;

	check_writable("sendcampaign.resume()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	role = lock_run(job_id);
	if (!is_in_state("paused", NULL, NULL))
		fail_in_state(job_id, "Only a paused run can be resumed.");
	write_resumed(job_id);
	if (OidIsValid(role))
		start_worker_at_commit(role);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_VOID();
}

/* One that was never begun has nothing to be wound up: it ends here. */
static void
cancel_in_queue(int64 job_id, Oid role)
{
	AppTables  *tables = tables_open(spi_string(0, 2));
	ActingScope scope;

	if (!OidIsValid(role))
		role = GetUserId(); /* it was dropped: only a superuser comes here */
	write_state(job_id, "paused_from = NULL, total = 0", "cancelled");
	act_as(role, &scope);
	end_cancelled_in_queue(tables, job_id);
	act_as_caller(role, &scope);
	tables_close(tables);
}

/* sendcampaign.cancel(job_id bigint) */
Datum
sendcampaign_cancel(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	Oid	  role;

	check_writable("sendcampaign.cancel()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	role = lock_run(job_id);
	if (!is_in_state("queued", "running", "paused"))
		fail_in_state(job_id, "Only a queued, running or paused run can be cancelled.");
	if (!spi_bool(0, 4))
		cancel_in_queue(job_id, role);
	else
	{
		write_state(job_id, "paused_from = NULL", "cancelled");
		if (OidIsValid(role))
			start_worker_at_commit(role);
	}
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_VOID();
}
