/*-------------------------------------------------------------------------
 *
 * run_table.c
 *	  The extension's table of runs, and all SQL that writes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* SQL expression on a row: what is announced of a run, as text. */
#define ANNOUNCEMENT                                                                               \
	"json_build_object('schema', schema, 'job_id', job_id, 'campaign_id', campaign_id,"            \
	" 'state', state)::text"

/* SQL expressions on a row: what counts_of_row() reads. */
#define COUNTS " total, sent, failed, skipped, in_doubt, state, error"

static RunCounts
counts_of_row(void)
{
	return (RunCounts){.total = spi_int64(0, 1),
					   .sent = spi_int64(0, 2),
					   .failed = spi_int64(0, 3),
					   .skipped = spi_int64(0, 4),
					   .in_doubt = spi_int64(0, 5),
					   .state = spi_string(0, 6),
					   .error = spi_string(0, 7)};
}

bool
runs_insert(const NewRun *run)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTOID, TEXTOID, OIDOID, OIDOID, TEXTOID};
	Datum values[] = {Int64GetDatum(run->job_id),
					  Int64GetDatum(run->campaign_id),
					  CStringGetTextDatum(GetUserNameFromId(run->role, false)),
					  CStringGetTextDatum(run->schema),
					  ObjectIdGetDatum(MyDatabaseId),
					  ObjectIdGetDatum(run->role),
					  CStringGetTextDatum(cluster_timeline())};

	return own_query("INSERT INTO sendcampaign.run_data"
					 " (job_id, campaign_id, role, schema, database, role_oid, timeline)"
					 " VALUES ($1, $2, $3::name, $4::name, $5, $6, $7) ON CONFLICT DO NOTHING",
					 7, types, values, NULL) == 1;
}

int64
runs_insert_test(const NewRun *run)
{
	Oid	  types[] = {INT8OID, TEXTOID, TEXTOID, OIDOID, TEXTOID, OIDOID, TEXTOID};
	Datum values[] = {Int64GetDatum(run->campaign_id),
					  CStringGetTextDatum(GetUserNameFromId(run->role, false)),
					  CStringGetTextDatum(run->schema),
					  ObjectIdGetDatum(MyDatabaseId),
					  CStringGetTextDatum(run->test_phone),
					  ObjectIdGetDatum(run->role),
					  CStringGetTextDatum(cluster_timeline())};

	(void) own_query(
		"INSERT INTO sendcampaign.run_data"
		" (job_id, campaign_id, role, schema, database, test_phone, role_oid, timeline)"
		" VALUES (nextval('sendcampaign.test_job_id'), $1, $2::name, $3::name, $4, $5,"
		"  $6, $7) RETURNING job_id",
		7, types, values, NULL);
	return spi_int64(0, 1);
}

bool
runs_requeue(int64 id, Oid role, bool *is_test)
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
		return false;
	*is_test = spi_bool(0, 1);
	return true;
}

void
runs_begin(int64 id, const RunBeginning *beginning)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTOID, TEXTOID, INT8OID, OIDOID};
	Datum values[] = {Int64GetDatum(id),
					  Int64GetDatum(beginning->list_id),
					  CStringGetTextDatum(beginning->message),
					  optional_text(beginning->base_url),
					  Int64GetDatum(beginning->total),
					  ObjectIdGetDatum(beginning->list_users)};

	(void) own_query("UPDATE sendcampaign.run_data SET state = 'running', error = NULL,"
					 " started_at = coalesce(started_at, clock_timestamp()),"
					 " list_id = $2, message = $3, base_url = $4, total = coalesce(total, $5),"
					 " list_users = $6 WHERE id = $1",
					 6, types, values, beginning->base_url ? NULL : "   n  ");
}

bool
runs_lock_counts(int64 id, RunCounts *counts)
{
	static OwnStatement statement = {"SELECT" COUNTS
									 " FROM sendcampaign.run_data WHERE id = $1 FOR NO KEY UPDATE",
									 1,
									 {INT8OID}};
	Datum				value = Int64GetDatum(id);

	if (own_execute(&statement, &value, NULL) == 0)
		return false;
	*counts = counts_of_row();
	return true;
}

RunCounts
runs_add_outcomes(int64 id, const RunCounts *more)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.run_data SET sent = sent + $2, failed = failed + $3,"
		" skipped = skipped + $4, in_doubt = in_doubt + $5 WHERE id = $1 RETURNING" COUNTS,
		5,
		{INT8OID, INT8OID, INT8OID, INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(id), Int64GetDatum(more->sent), Int64GetDatum(more->failed),
					  Int64GetDatum(more->skipped), Int64GetDatum(more->in_doubt)};

	if (own_execute(&statement, values, NULL) != 1)
		elog(ERROR, "run %lld is gone", (long long) id);
	return counts_of_row();
}

void
runs_settle(int64 id, bool sent)
{
	(void) own_query_by_id(
		sent
			? "UPDATE sendcampaign.run_data SET in_doubt = in_doubt - 1, sent = sent + 1 WHERE id = $1"
			: "UPDATE sendcampaign.run_data SET in_doubt = in_doubt - 1, failed = failed + 1 WHERE id = $1",
		id);
}

void
runs_expect_overlaps(int64 id)
{
	(void) own_query_by_id("UPDATE sendcampaign.run_data SET may_overlap = true WHERE id = $1", id);
}

void
runs_set_list_users(int64 id, Oid list_users)
{
	Oid	  types[] = {INT8OID, OIDOID};
	Datum values[] = {Int64GetDatum(id), ObjectIdGetDatum(list_users)};

	(void) own_query("UPDATE sendcampaign.run_data SET list_users = $2 WHERE id = $1", 2, types,
					 values, NULL);
}

void
runs_set_read_back(int64 id)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(cluster_timeline())};

	(void) own_query("UPDATE sendcampaign.run_data SET timeline = $2, read_back = true,"
					 " written_in = DEFAULT WHERE id = $1",
					 2, types, values, NULL);
	accept_loaded_rows(id);
}

bool
runs_sleep(int64 id, TimestampTz next_at, RunCounts *counts)
{
	static OwnStatement statement = {"UPDATE sendcampaign.run_data SET next_at = $2 WHERE id = $1"
									 " RETURNING" COUNTS,
									 2,
									 {INT8OID, TIMESTAMPTZOID}};
	Datum				values[] = {Int64GetDatum(id), TimestampTzGetDatum(next_at)};

	if (own_execute(&statement, values, NULL) == 0)
		return false;
	*counts = counts_of_row();
	return true;
}

void
runs_wake(int64 id)
{
	(void) own_query_by_id("UPDATE sendcampaign.run_data SET next_at = NULL"
						   " WHERE id = $1 AND next_at IS NOT NULL",
						   id);
}

/* Does not wait for locks. */
bool
runs_set_notice(int64 id, const char *notice)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.run_data SET error = $2 WHERE id = (SELECT r.id"
		" FROM sendcampaign.run_data r WHERE r.id = $1 AND r.state IN ('queued', 'running')"
		" FOR NO KEY UPDATE SKIP LOCKED)",
		2,
		{INT8OID, TEXTOID}};
	Datum values[] = {Int64GetDatum(id), optional_text(notice)};

	return own_execute(&statement, values, notice ? "  " : " n") > 0;
}

char *
runs_end(int64 id, const char *state, const char *error)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.run_data SET state = $2, error = $3, finished_at = clock_timestamp()"
		" WHERE id = $1 RETURNING " ANNOUNCEMENT,
		3,
		{INT8OID, TEXTOID, TEXTOID}};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(state), optional_text(error)};

	return own_execute(&statement, values, error ? "   " : "  n") > 0 ? spi_string(0, 1) : NULL;
}

bool
runs_set_summary(int64 id, const char *error)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(id), optional_text(error)};

	return own_query("UPDATE sendcampaign.run_data SET error = $2"
					 " WHERE id = $1 AND state = 'completed'",
					 2, types, values, error ? "  " : " n") > 0;
}

bool
runs_pause_itself(int64 id, const char *reason, const char *paused_from, RunCounts *counts)
{
	Oid	  types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(reason), optional_text(paused_from)};

	if (own_query("UPDATE sendcampaign.run_data SET state = 'paused', error = $2, paused_from = $3"
				  " WHERE id = $1 AND state IN ('queued', 'running') RETURNING" COUNTS,
				  3, types, values, paused_from ? NULL : "  n") == 0)
		return false;
	*counts = counts_of_row();
	return true;
}

/* The statement's $2 says who did this. */
static void
change_by_person(int64 id, const char *sql, const char *participle)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(id),
					  CStringGetTextDatum(
						  psprintf("%s by %s", participle, GetUserNameFromId(GetUserId(), false)))};

	(void) own_query(sql, 2, types, values, NULL);
}

void
runs_pause(int64 id)
{
	change_by_person(id,
					 "UPDATE sendcampaign.run_data SET error = $2, state = 'paused',"
					 " paused_from = state WHERE id = $1",
					 "paused");
}

void
runs_cancel(int64 id, bool begun)
{
	change_by_person(id,
					 begun ? "UPDATE sendcampaign.run_data SET error = $2, state = 'cancelled',"
							 " paused_from = NULL WHERE id = $1"
						   : "UPDATE sendcampaign.run_data SET error = $2, state = 'cancelled',"
							 " paused_from = NULL, total = 0 WHERE id = $1",
					 "cancelled");
}

bool
runs_resume(int64 id)
{
	return own_query_by_id("UPDATE sendcampaign.run_data SET error = NULL, next_at = NULL,"
						   " state = paused_from, paused_from = NULL"
						   " WHERE id = $1 AND paused_from IS NOT NULL",
						   id) > 0;
}

#define STATE_RESUMED                                                                              \
	" error = NULL, next_at = NULL, list_users = NULL,"                                            \
	" state = CASE WHEN total IS NULL THEN 'queued' ELSE 'running' END"

void
runs_resume_anew(int64 id)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(cluster_timeline())};

	(void) own_query("UPDATE sendcampaign.run_data SET" STATE_RESUMED ", timeline = $2,"
					 " written_in = DEFAULT, may_overlap = true WHERE id = $1",
					 2, types, values, NULL);
	accept_loaded_rows(id);
}

Oid
runs_bring_home(int64 id)
{
	Oid	  types[] = {INT8OID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(id), system_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	if (own_query("UPDATE sendcampaign.run_data SET" STATE_RESUMED ", system_identifier = $2,"
				  " database = $3, timeline = '', written_in = DEFAULT, role_oid = r.oid"
				  " FROM pg_roles r WHERE id = $1 AND r.rolname = role"
				  " RETURNING r.oid::int8",
				  3, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role of the run does not exist in this cluster"),
				 errhint("Create the role that sendcampaign.run names, with its rights on the"
						 " application's tables.")));
	return (Oid) spi_int64(0, 1);
}

void
runs_reopen(int64 id, int64 count)
{
	Oid	  types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(id), Int64GetDatum(count)};

	(void) own_query("UPDATE sendcampaign.run_data SET state = 'running', finished_at = NULL,"
					 " error = NULL, failed = failed - $2 WHERE id = $1",
					 2, types, values, NULL);
}

bool
runs_skip_batches(int64 id, int batches)
{
	static OwnStatement statement = {
		"WITH b AS (DELETE FROM sendcampaign.batch WHERE run_id = $1 AND number = ANY (ARRAY("
		"   SELECT n.number FROM sendcampaign.batch n WHERE n.run_id = $1"
		"   ORDER BY n.number LIMIT $2))"
		"  RETURNING list_user_ids),"
		" m AS (INSERT INTO sendcampaign.message_data (run_id, list_user_id, status, error_message)"
		"  SELECT $1, u.id, 'skipped', 'cancelled' FROM b, unnest(b.list_user_ids) u(id)"
		"  WHERE u.id IS NOT NULL AND NOT EXISTS (SELECT FROM sendcampaign.claim c"
		"   WHERE c.run_id = $1 AND u.id = ANY (c.list_user_ids))"
		"  ON CONFLICT DO NOTHING RETURNING 1)"
		" UPDATE sendcampaign.run_data SET skipped = skipped + (SELECT count(*) FROM m)"
		" WHERE id = $1 AND EXISTS (SELECT FROM b)",
		2,
		{INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(id), Int64GetDatum(batches)};

	return own_execute(&statement, values, NULL) > 0;
}

void
runs_rename_role(Oid role, const char *name, Datum ids)
{
	Oid	  types[] = {OIDOID, TEXTOID, INT8ARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(role), CStringGetTextDatum(name), ids, system_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query("UPDATE sendcampaign.run_data SET role = $2::name WHERE role_oid = $1"
					 " AND role <> $2::name AND (finished_at IS NULL OR id = ANY ($3))"
					 " AND " IS_AT_HOME("$4", "$5"),
					 5, types, values, NULL);
}

char *
runs_announcement(int64 id)
{
	static OwnStatement statement = {
		"SELECT " ANNOUNCEMENT " FROM sendcampaign.run_data WHERE id = $1", 1, {INT8OID}};
	Datum value = Int64GetDatum(id);

	return own_execute(&statement, &value, NULL) > 0 ? spi_string(0, 1) : NULL;
}

/* For statements that return ANNOUNCEMENT, whose parameters are a value and a reason. */
static List *
announcements_of(const char *sql, Oid type, Datum value, const char *reason)
{
	Oid	   types[] = {type, TEXTOID};
	Datum  values[] = {value, CStringGetTextDatum(reason)};
	uint64 count = own_query(sql, 2, types, values, NULL);
	List  *announcements = NIL;

	for (uint64 i = 0; i < count; i++)
		announcements = lappend(announcements, spi_string(i, 1));
	return announcements;
}

List *
runs_fail_of_role(Oid role, const char *reason)
{
	return announcements_of("UPDATE sendcampaign.run_data SET state = 'failed', error = $2,"
							" finished_at = now()"
							" WHERE id = ANY (ARRAY(SELECT r.id FROM sendcampaign.run_data r"
							"  WHERE r.role_oid = $1 AND r.state IN ('queued', 'running')"
							"  FOR NO KEY UPDATE SKIP LOCKED)) RETURNING " ANNOUNCEMENT,
							OIDOID, ObjectIdGetDatum(role), reason);
}

/*
 * Ends cancelled runs with a reason ($2).  Loaded rows may name a recipient
 * twice, or contain nulls.
 */
#define WIND_UP(condition)                                                                         \
	"WITH r AS (SELECT id FROM sendcampaign.run_data WHERE " condition                             \
	"  AND finished_at IS NULL AND state = 'cancelled' FOR NO KEY UPDATE SKIP LOCKED),"            \
	" b AS (DELETE FROM sendcampaign.batch USING r WHERE batch.run_id = r.id"                      \
	"  RETURNING batch.run_id, list_user_ids),"                                                    \
	" c AS (DELETE FROM sendcampaign.claim USING r WHERE claim.run_id = r.id"                      \
	"  RETURNING claim.run_id, list_user_ids, phones, account),"                                   \
	" m AS (INSERT INTO sendcampaign.message_data"                                                 \
	"   (run_id, list_user_id, phone, status, error_message, attempts, account)"                   \
	"  SELECT c.run_id, u.id, u.phone, 'in_doubt',"                                                \
	"   'the worker ended before Twilio''s answer; ' || $2, 1, c.account"                          \
	"  FROM c, unnest(c.list_user_ids, c.phones) u(id, phone) WHERE u.id IS NOT NULL"              \
	"  UNION ALL SELECT b.run_id, u.id, NULL, 'skipped', 'cancelled', 0, NULL"                     \
	"  FROM b, unnest(b.list_user_ids) u(id) WHERE u.id IS NOT NULL"                               \
	"  ON CONFLICT DO NOTHING RETURNING run_id, status)"                                           \
	" UPDATE sendcampaign.run_data SET finished_at = now(), error = concat_ws('. ', error, $2),"   \
	"  skipped = skipped + (SELECT count(*) FROM m"                                                \
	"   WHERE m.run_id = run_data.id AND m.status = 'skipped'),"                                   \
	"  in_doubt = in_doubt + (SELECT count(*) FROM m"                                              \
	"   WHERE m.run_id = run_data.id AND m.status = 'in_doubt')"                                   \
	" FROM r WHERE run_data.id = r.id RETURNING " ANNOUNCEMENT

List *
runs_wind_up_of_role(Oid role, const char *reason)
{
	return announcements_of(WIND_UP("role_oid = $1"), OIDOID, ObjectIdGetDatum(role), reason);
}

List *
runs_wind_up(int64 id, const char *reason)
{
	return announcements_of(WIND_UP("id = $1"), INT8OID, Int64GetDatum(id), reason);
}

int64
runs_forget(TimestampTz before)
{
	Oid	  types[] = {OIDOID, BOOLOID, TIMESTAMPTZOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()),
					  TimestampTzGetDatum(before), system_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query(
		"WITH r AS (DELETE FROM sendcampaign.run_data"
		"  WHERE finished_at < $3 AND" IS_FOR_CALLER "RETURNING id),"
		" m AS (DELETE FROM sendcampaign.message_data USING r WHERE message_data.run_id = r.id),"
		" w AS (DELETE FROM sendcampaign.read_back_message USING r WHERE read_back_message.run_id = r.id),"
		" b AS (DELETE FROM sendcampaign.batch USING r WHERE batch.run_id = r.id),"
		" t AS (DELETE FROM sendcampaign.chosen USING r WHERE chosen.run_id = r.id),"
		" c AS (DELETE FROM sendcampaign.claim USING r WHERE claim.run_id = r.id)"
		" SELECT count(*) FROM r",
		5, types, values, NULL);
	return spi_int64(0, 1);
}

void
runs_forget_test_phones(Datum phones)
{
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), phones,
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query("UPDATE sendcampaign.run_data SET test_phone = ''"
					 " WHERE test_phone = ANY ($3) AND finished_at IS NOT NULL AND" IS_FOR_CALLER,
					 5, types, values, NULL);
}
