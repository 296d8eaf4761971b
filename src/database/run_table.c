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
#include "database/list_query.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "database/sweep_times.h"
#include "database/text_ranges.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* SQL condition on a row: it is known of each message what became of it. */
#define RECEIPTS_COMPLETE                                                                          \
	"(finished_at IS NOT NULL AND sent > 0 AND sent = delivered + undelivered + unconfirmed)"

/* SQL expression on a row: what is announced of a run, as text. */
#define ANNOUNCED "'schema', schema, 'job_id', job_id, 'campaign_id', campaign_id, 'state', state"
#define ANNOUNCEMENT                                                                               \
	"CASE WHEN " RECEIPTS_COMPLETE " THEN json_build_object(" ANNOUNCED                            \
	", 'receipts', 'complete')"                                                                    \
	" ELSE json_build_object(" ANNOUNCED ") END::text"

/* SQL expressions on a row: what counts_of_row() reads. */
#define COUNTS                                                                                     \
	" total, sent, failed, skipped, in_doubt, state, error, " WITH_NOTED(                          \
		"delivered") ", " WITH_NOTED("undelivered") ", " WITH_NOTED("unconfirmed")

/* SQL: a person lets the run continue in spite of what has not been delivered so far. */
#define RECEIPTS_ACCEPTED                                                                          \
	"accepted_delivered = " WITH_NOTED("delivered") ", accepted_undelivered = " WITH_NOTED(        \
		"undelivered")

/* SQL: how long after a message the run is swept at the latest. */
#define FIRST_SWEEP "interval '" CppAsString2(SWEEP_EVERY) " s'"

/* SQL: when the last sweep is due again if Twilio could not be reached, and how long. */
#define SWEEP_AGAIN_LATER "interval '" CppAsString2(SWEEP_AGAIN) " s'"
#define LAST_SWEEP                                                                                 \
	"make_interval(secs => " CppAsString2(SWEEP_UNTIL) " + " CppAsString2(SWEEP_GRACE) ")"

/* SQL expression on a row: when the run's last message was sent, or a time shortly after. */
#define LAST_MESSAGE "coalesce(finished_at, last_sent_at, started_at, queued_at)"

static RunCounts
counts_of_row(uint64 row)
{
	return (RunCounts){.total = spi_int64(row, 1),
					   .sent = spi_int64(row, 2),
					   .failed = spi_int64(row, 3),
					   .skipped = spi_int64(row, 4),
					   .in_doubt = spi_int64(row, 5),
					   .state = spi_string(row, 6),
					   .error = spi_string(row, 7),
					   .delivered = spi_int64(row, 8),
					   .undelivered = spi_int64(row, 9),
					   .unconfirmed = spi_int64(row, 10)};
}

/* SQL: the owner of a table. */
#define OWNER_OF(table) "(SELECT c.relowner FROM pg_class c WHERE c.oid = " table ")"

bool
runs_insert(const NewRun *run)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.run_data"
		" (job_id, campaign_id, role, schema, database, role_oid, timeline,"
		"  list_users, list_users_owner, recipients, recipients_list, system_identifier)"
		" VALUES ($1, $2, $3::name, $4::name, $5, $6, $7, $8, " OWNER_OF(
			"$8") ", $9, nullif($10, 0), $11)"
				  " ON CONFLICT DO NOTHING",
		11,
		{INT8OID, INT8OID, TEXTOID, TEXTOID, OIDOID, OIDOID, TEXTOID, OIDOID, TEXTOID, INT8OID,
		 NUMERICOID}};
	Datum values[] = {Int64GetDatum(run->job_id),
					  Int64GetDatum(run->campaign_id),
					  CStringGetTextDatum(GetUserNameFromId(run->role, false)),
					  CStringGetTextDatum(run->schema),
					  ObjectIdGetDatum(MyDatabaseId),
					  ObjectIdGetDatum(run->role),
					  CStringGetTextDatum(cluster_timeline()),
					  ObjectIdGetDatum(run->list_users),
					  optional_text(run->recipients),
					  Int64GetDatum(run->query_list),
					  home_identifier()};

	return own_execute(&statement, values, run->recipients ? NULL : "        n  ") == 1;
}

int64
runs_insert_test(const NewRun *run)
{
	Oid	  types[] = {INT8OID, TEXTOID, TEXTOID, OIDOID,	 TEXTOID,	OIDOID,
					 TEXTOID, OIDOID,  TEXTOID, INT8OID, NUMERICOID};
	Datum values[] = {Int64GetDatum(run->campaign_id),
					  CStringGetTextDatum(GetUserNameFromId(run->role, false)),
					  CStringGetTextDatum(run->schema),
					  ObjectIdGetDatum(MyDatabaseId),
					  CStringGetTextDatum(run->test_phone),
					  ObjectIdGetDatum(run->role),
					  CStringGetTextDatum(cluster_timeline()),
					  ObjectIdGetDatum(run->list_users),
					  optional_text(run->recipients),
					  Int64GetDatum(run->query_list),
					  home_identifier()};

	(void) own_query(
		"INSERT INTO sendcampaign.run_data"
		" (job_id, campaign_id, role, schema, database, test_phone, role_oid, timeline,"
		"  list_users, list_users_owner, recipients, recipients_list, system_identifier)"
		" VALUES (nextval('sendcampaign.test_job_id'), $1, $2::name, $3::name, $4, $5,"
		"  $6, $7, $8, " OWNER_OF("$8") ", $9, nullif($10, 0), $11) RETURNING job_id",
		11, types, values, run->recipients ? NULL : "        n  ");
	return spi_int64(0, 1);
}

bool
runs_requeue(int64 id, const NewRun *run, bool *is_test)
{
	Oid	  types[] = {INT8OID, TEXTOID, OIDOID, OIDOID, TEXTOID, INT8OID};
	Datum values[] = {Int64GetDatum(id),
					  CStringGetTextDatum(GetUserNameFromId(run->role, false)),
					  ObjectIdGetDatum(run->role),
					  ObjectIdGetDatum(run->list_users),
					  optional_text(run->recipients),
					  Int64GetDatum(run->query_list)};

	if (own_query(
			"UPDATE sendcampaign.run_data SET state = 'queued', role = $2::name,"
			" role_oid = $3, list_users = $4, list_users_owner = " OWNER_OF(
				"$4") ","
					  " finished_at = NULL, error = NULL, next_at = NULL, " RECEIPTS_ACCEPTED
					  ", recipients = CASE WHEN total IS NULL THEN coalesce($5, recipients)"
					  "  ELSE recipients END, recipients_list = CASE WHEN total IS NULL AND $5 IS NOT"
					  "  NULL THEN nullif($6, 0) ELSE recipients_list END, recipients_error = NULL"
					  " WHERE id = $1 AND state = 'failed'"
					  /* a query never runs as another role than the one for which it was given */
					  " AND (total IS NOT NULL OR recipients IS NULL OR $5 IS NOT NULL"
					  "  OR role_oid = $3) AND (test_phone IS NOT NULL OR NOT EXISTS"
					  "  (SELECT FROM sendcampaign.run_data o WHERE o.campaign_id = run_data.campaign_id"
					  "   AND o.schema = run_data.schema AND o.test_phone IS NULL"
					  "   AND o.state IN ('queued', 'running', 'paused')))"
					  " RETURNING test_phone IS NOT NULL",
			6, types, values, run->recipients ? NULL : "    n ") == 0)
		return false;
	*is_test = spi_bool(0, 1);
	return true;
}

RunQuery
runs_read_query(int64 id)
{
	if (own_query_by_id("SELECT left(recipients, " CppAsString2(
							MAX_LIST_QUERY) "), left(recipients_error, 10000)"
											" FROM sendcampaign.run_data WHERE id = $1",
						id) == 0)
		return (RunQuery){NULL, NULL};
	return (RunQuery){spi_string(0, 1), spi_string(0, 2)};
}

void
runs_check_query(int64 id)
{
	if (own_query_by_id("SELECT job_id, role::text FROM sendcampaign.run_data WHERE id = $1"
						" AND recipients IS NOT NULL AND total IS NULL AND NOT " IS_CONTINUOUS,
						id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the query that selects the recipients of job %lld was loaded, as from a"
						" dump",
						(long long) spi_int64(0, 1)),
				 errdetail("It would run with the rights of role \"%s\".", spi_string(0, 2)),
				 errhint("Look at \"recipients\" in sendcampaign.run. If the query is yours, call"
						 " send_campaign() with it and another job.")));
}

void
runs_set_query_error(int64 id, int64 version, const char *error)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(id), Int64GetDatum(version), CStringGetTextDatum(error)};

	(void) own_query("UPDATE sendcampaign.run_data SET recipients_error = $3"
					 " WHERE id = $1 AND xmin::text::int8 = $2 AND total IS NULL",
					 3, types, values, NULL);
}

bool
runs_is_unchanged(int64 id, int64 version)
{
	static OwnStatement statement = {
		"SELECT FROM sendcampaign.run_data WHERE id = $1 AND xmin::text::int8 = $2",
		2,
		{INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(id), Int64GetDatum(version)};

	return own_execute(&statement, values, NULL) > 0;
}

bool
runs_begin(int64 id, const RunBeginning *beginning)
{
	Oid	  types[] = {INT8OID, INT8OID,		TEXTOID, TEXTOID, INT8OID,
					 OIDOID,  TEXTARRAYOID, TEXTOID, INT8OID, TEXTOID};
	char  nulls[] = "          ";
	Datum values[] = {Int64GetDatum(id),
					  Int64GetDatum(beginning->list_id),
					  CStringGetTextDatum(beginning->message),
					  optional_text(beginning->base_url),
					  Int64GetDatum(beginning->total),
					  ObjectIdGetDatum(beginning->list_users),
					  make_text_array(beginning->media_urls, beginning->num_media),
					  optional_text(beginning->content_sid),
					  Int64GetDatum(beginning->version),
					  optional_text(beginning->country_code)};

	nulls[3] = beginning->base_url ? ' ' : 'n';
	nulls[6] = beginning->num_media > 0 ? ' ' : 'n';
	nulls[7] = beginning->content_sid ? ' ' : 'n';
	nulls[9] = beginning->country_code ? ' ' : 'n';
	return own_query(
			   "UPDATE sendcampaign.run_data SET state = 'running',"
			   /* the worker, to whom a list worker leaves it, ends a notice of the job's, too */
			   " error = CASE WHEN $9 <> 0 THEN error END,"
			   " started_at = coalesce(started_at, clock_timestamp()),"
			   " list_id = $2, message = $3, base_url = $4, total = coalesce(total, $5),"
			   " list_users = $6, list_users_owner = " OWNER_OF(
				   "$6") ","
						 " media_urls = $7, content_sid = $8,"
						 " country_code = CASE WHEN total IS NULL THEN $10 ELSE country_code END"
						 " WHERE id = $1 AND ($9 = 0 OR xmin::text::int8 = $9)",
			   10, types, values, nulls) > 0;
}

/* The columns of SmallBeginning, in the order of the statement's parameters. */
static const Oid beginning_types[] = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID,
									  TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID};

static void
fill_beginning(const SmallBeginning *b, Datum *values)
{
	values[0] = Int64GetDatum(b->run_id);
	values[1] = Int64GetDatum(b->list_id);
	values[2] = Int64GetDatum(b->total);
	values[3] = Int64GetDatum(b->skipped);
	values[4] = Int64GetDatum(b->group_id);
	values[5] = CStringGetTextDatum(b->message);
	values[6] = optional_text(b->base_url);
	values[7] = optional_text(b->content_sid);
	values[8] = CStringGetTextDatum(b->account);
	values[9] = optional_text(b->country_code);
	values[10] = BoolGetDatum(b->links_signed);
}

/* Sets the arrays of these columns. */
static void
columns_of_beginnings(const SmallBeginning *beginnings, int count, Datum *arrays)
{
	Datum  values[lengthof(beginning_types)];
	Datum *columns[lengthof(beginning_types)];
	bool  *nulls[lengthof(beginning_types)];

	for (int i = 0; i < lengthof(beginning_types); i++)
	{
		columns[i] = palloc(count * sizeof(Datum));
		nulls[i] = palloc(count * sizeof(bool));
	}
	for (int row = 0; row < count; row++)
	{
		fill_beginning(&beginnings[row], values);
		for (int i = 0; i < lengthof(beginning_types); i++)
		{
			columns[i][row] = values[i];
			nulls[i][row] = beginning_types[i] == TEXTOID && values[i] == (Datum) 0;
		}
	}
	for (int i = 0; i < lengthof(beginning_types); i++)
		arrays[i] = make_array(columns[i], nulls[i], count, beginning_types[i]);
}

#define BEGIN_SMALL                                                                                      \
	"UPDATE sendcampaign.run_data SET state = 'running', error = NULL,"                                  \
	" started_at = coalesce(started_at, clock_timestamp()), list_id = u.list_id,"                        \
	" message = u.message, base_url = u.base_url, content_sid = u.content_sid,"                          \
	" total = u.total, skipped = skipped + u.more_skipped, account = u.account,"                         \
	" group_id = u.group_id, country_code = u.country_code, links_signed = u.links_signed,"              \
	" senders = ($14)[u.first_sender:u.last_sender], list_users = $15,"                                  \
	" list_users_owner = " OWNER_OF(                                                                     \
		"$15") " FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) u(run_id, list_id," \
			   "  total, more_skipped, group_id, message, base_url, content_sid, account, country_code," \
			   "  links_signed, first_sender, last_sender)"                                              \
			   " WHERE " IS_ROW_OF("id", "u.run_id") " AND run_data.total IS NULL"                       \
													 " AND run_data.senders IS NULL"

void
runs_begin_small(const SmallBeginning *beginnings, int count, Oid list_users)
{
	static OwnStatement statement = {BEGIN_SMALL,
									 15,
									 {INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
									  INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
									  TEXTARRAYOID, TEXTARRAYOID, BOOLARRAYOID, INT4ARRAYOID,
									  INT4ARRAYOID, TEXTARRAYOID, OIDOID}};
	TextRanges			senders = text_ranges(count);
	Datum				values[15];
	uint64				begun;

	for (int i = 0; i < count; i++)
		text_ranges_add(&senders, beginnings[i].senders, beginnings[i].num_senders, true);
	columns_of_beginnings(beginnings, count, values);
	values[11] = make_array(senders.first, NULL, count, INT4OID);
	values[12] = make_array(senders.last, NULL, count, INT4OID);
	values[13] = text_ranges_array(&senders);
	values[14] = ObjectIdGetDatum(list_users);
	begun = own_execute(&statement, values, NULL);
	if (begun != count)
		elog(ERROR, "of %d runs, " UINT64_FORMAT " could begin", count, begun);
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
	*counts = counts_of_row(0);
	return true;
}

bool
runs_read_counts(int64 id, RunCounts *counts)
{
	static OwnStatement statement = {
		"SELECT" COUNTS " FROM sendcampaign.run_data WHERE id = $1", 1, {INT8OID}};
	Datum value = Int64GetDatum(id);

	if (own_execute(&statement, &value, NULL) == 0)
		return false;
	*counts = counts_of_row(0);
	return true;
}

/* SQL condition on a run, with what is added to it: it completes, with nothing to be said. */
#define COMPLETES                                                                                  \
	"(u.is_last AND state IN ('queued', 'running') AND failed + u.more_failed = 0"                 \
	" AND in_doubt + u.more_in_doubt = 0 AND skipped + u.more_skipped < total"                     \
	" AND total = sent + u.more_sent + skipped + u.more_skipped)"

#define ADD_OUTCOMES                                                                               \
	"UPDATE sendcampaign.run_data SET sent = sent + u.more_sent, failed = failed + u.more_failed," \
	" skipped = skipped + u.more_skipped, in_doubt = in_doubt + u.more_in_doubt,"                  \
	" last_sent_at = CASE WHEN u.more_sent > 0 THEN clock_timestamp() ELSE last_sent_at END,"      \
	" sweep_at = CASE WHEN u.more_sent > 0 AND $7"                                                 \
	"  THEN least(sweep_at, clock_timestamp() + " FIRST_SWEEP ") ELSE sweep_at END,"               \
	" state = CASE WHEN " COMPLETES " THEN 'completed' ELSE state END,"                            \
	" error = CASE WHEN NOT " COMPLETES " THEN error END,"                                         \
	" finished_at = CASE WHEN " COMPLETES " THEN clock_timestamp() ELSE finished_at END"           \
	" FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY"                                         \
	"  u(run_id, more_sent, more_failed, more_skipped, more_in_doubt, is_last, n)"                 \
	" WHERE " IS_ROW_OF("id", "u.run_id") " RETURNING" COUNTS                                      \
										  ", u.n, u.is_last AND state = 'completed',"              \
										  " " ANNOUNCEMENT

/* Adds what is noted for these runs (bigint[]). */
static void
add_noted(Datum ids)
{
	static OwnStatement statement = {
		"SELECT DISTINCT run_id FROM sendcampaign.receipt_count WHERE run_id = ANY ($1)",
		1,
		{INT8ARRAYOID}};
	int	   count = (int) own_execute(&statement, &ids, NULL);
	int64 *noted = palloc(Max(count, 1) * sizeof(int64));

	for (int i = 0; i < count; i++)
		noted[i] = spi_int64(i, 1);
	for (int i = 0; i < count; i++)
		(void) runs_add_noted_receipts(noted[i]);
}

static void
take_new_counts(RunOutcomes *outcomes, uint64 row)
{
	RunOutcomes *of = &outcomes[spi_int64(row, 11) - 1];

	of->counts = counts_of_row(row);
	of->completed = spi_bool(row, 12);
	of->announcement = of->completed ? spi_string(row, 13) : NULL;
}

/* The numbers of RunOutcomes, in the order of the statement's parameters. */
static void
columns_of_outcomes(const RunOutcomes *outcomes, int count, Datum *values)
{
	static const Oid types[] = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, BOOLOID};
	Datum			*columns[lengthof(types)];

	for (int i = 0; i < lengthof(types); i++)
		columns[i] = palloc(count * sizeof(Datum));
	for (int i = 0; i < count; i++)
	{
		columns[0][i] = Int64GetDatum(outcomes[i].run_id);
		columns[1][i] = Int64GetDatum(outcomes[i].more.sent);
		columns[2][i] = Int64GetDatum(outcomes[i].more.failed);
		columns[3][i] = Int64GetDatum(outcomes[i].more.skipped);
		columns[4][i] = Int64GetDatum(outcomes[i].more.in_doubt);
		columns[5][i] = BoolGetDatum(outcomes[i].is_last);
	}
	for (int i = 0; i < lengthof(types); i++)
		values[i] = make_array(columns[i], NULL, count, types[i]);
}

void
runs_add_outcomes(RunOutcomes *outcomes, int count)
{
	static OwnStatement statement = {ADD_OUTCOMES,
									 7,
									 {INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
									  INT8ARRAYOID, BOOLARRAYOID, BOOLOID}};
	Datum				values[7];
	uint64				rows;

	columns_of_outcomes(outcomes, count, values);
	values[6] = BoolGetDatum(sendcampaign_receipts);
	add_noted(values[0]);
	rows = own_execute(&statement, values, NULL);
	if (rows != count)
		elog(ERROR, "of %d runs, " UINT64_FORMAT " are left", count, rows);
	for (uint64 i = 0; i < rows; i++)
		take_new_counts(outcomes, i);
}

/* A run that is gone has no counts. */
static void
note_receipts(const ReceiptCounts *more)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.receipt_count (run_id, delivered, undelivered, unconfirmed)"
		" SELECT r.id, $2, $3, $4 FROM sendcampaign.run_data r WHERE r.id = $1",
		4,
		{INT8OID, INT8OID, INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(more->run_id), Int64GetDatum(more->delivered),
					  Int64GetDatum(more->undelivered), Int64GetDatum(more->unconfirmed)};

	(void) own_execute(&statement, values, NULL);
}

/*
 * Whoever has taken a callback and has not committed yet must not keep the
 * run's worker, or a person, from writing the run's row, nor wait for them.
 */
char *
runs_add_receipts(const ReceiptCounts *more)
{
	static OwnStatement statement = {
		"WITH r AS (SELECT id FROM sendcampaign.run_data WHERE id = $1 AND finished_at IS NOT NULL"
		"  FOR NO KEY UPDATE SKIP LOCKED),"
		" noted AS (DELETE FROM sendcampaign.receipt_count c USING r WHERE c.run_id = r.id"
		"  RETURNING c.delivered, c.undelivered, c.unconfirmed),"
		" more AS (SELECT $2 + coalesce(sum(delivered), 0) AS d,"
		"  $3 + coalesce(sum(undelivered), 0) AS u, $4 + coalesce(sum(unconfirmed), 0) AS c"
		"  FROM noted)"
		" UPDATE sendcampaign.run_data SET delivered = delivered + more.d,"
		"  undelivered = undelivered + more.u, unconfirmed = unconfirmed + more.c"
		" FROM r, more WHERE run_data.id = r.id"
		" RETURNING CASE WHEN " RECEIPTS_COMPLETE " THEN " ANNOUNCEMENT " END",
		4,
		{INT8OID, INT8OID, INT8OID, INT8OID}};
	Datum values[] = {Int64GetDatum(more->run_id), Int64GetDatum(more->delivered),
					  Int64GetDatum(more->undelivered), Int64GetDatum(more->unconfirmed)};

	if (more->delivered == 0 && more->undelivered == 0 && more->unconfirmed == 0)
		return NULL;
	if (own_execute(&statement, values, NULL) > 0)
		return spi_string(0, 1);
	note_receipts(more);
	return NULL;
}

char *
runs_add_noted_receipts(int64 id)
{
	static OwnStatement statement = {
		"WITH noted AS (DELETE FROM sendcampaign.receipt_count WHERE run_id = $1"
		"  RETURNING delivered, undelivered, unconfirmed),"
		" more AS (SELECT sum(delivered) AS d, sum(undelivered) AS u, sum(unconfirmed) AS c,"
		"  count(*) AS n FROM noted)"
		" UPDATE sendcampaign.run_data SET delivered = delivered + more.d,"
		"  undelivered = undelivered + more.u, unconfirmed = unconfirmed + more.c"
		" FROM more WHERE id = $1 AND more.n > 0"
		" RETURNING CASE WHEN " RECEIPTS_COMPLETE " THEN " ANNOUNCEMENT " END",
		1,
		{INT8OID}};
	Datum value = Int64GetDatum(id);

	return own_execute(&statement, &value, NULL) > 0 ? spi_string(0, 1) : NULL;
}

/*
 * The time at which the sweep began decides, as when it was begun: or else what
 * is still open could miss its last sweep.
 */
List *
runs_plan_sweep(Datum ids, TimestampTz began_at, SweepResult result)
{
	static OwnStatement statement = {
		"WITH planned AS (UPDATE sendcampaign.run_data SET"
		"  swept_at = CASE WHEN $3 THEN $2 ELSE swept_at END,"
		"  sweep_at = coalesce((SELECT min(greatest(next.at, now() + " FIRST_SWEEP ")) FROM"
		"   (SELECT " LAST_MESSAGE " + make_interval(secs => u.seconds)"
		"    FROM unnest($4) u(seconds)) next(at) WHERE next.at > $2),"
		"   CASE WHEN $5 AND " LAST_MESSAGE " + " LAST_SWEEP " > $2 THEN now() + " SWEEP_AGAIN_LATER
		"   END)"
		"  WHERE id = ANY (ARRAY(SELECT r.id FROM sendcampaign.run_data r WHERE r.id = ANY ($1)"
		"   FOR NO KEY UPDATE SKIP LOCKED)) RETURNING id)"
		" SELECT id FROM planned UNION ALL SELECT u.id FROM unnest($1) u(id)"
		" WHERE NOT EXISTS (SELECT FROM sendcampaign.run_data r WHERE r.id = u.id)",
		5,
		{INT8ARRAYOID, TIMESTAMPTZOID, BOOLOID, INT4ARRAYOID, BOOLOID}};
	Datum  values[] = {ids, TimestampTzGetDatum(began_at), BoolGetDatum(result == SWEEP_READ),
					   sweep_intervals(), BoolGetDatum(result == SWEEP_FAILED)};
	uint64 count = own_execute(&statement, values, NULL);
	List  *planned = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		int64 *id = palloc(sizeof(int64));

		*id = spi_int64(i, 1);
		planned = lappend(planned, id);
	}
	return planned;
}

void
runs_cancel_sweeps(Oid role)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.run_data SET sweep_at = NULL WHERE id = ANY (ARRAY("
		" SELECT r.id FROM sendcampaign.run_data r WHERE r.role_oid = $1"
		"  AND " IS_AT_HOME("$2", "$3") SWEEP_IS_DUE " LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED))",
		3,
		{OIDOID, NUMERICOID, OIDOID}};
	Datum values[] = {ObjectIdGetDatum(role), home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	(void) own_execute(&statement, values, NULL);
}

/* A message that is sent has no SID.  The sweep closes it, if only later. */
void
runs_settle(int64 id, bool sent)
{
	Oid	  types[] = {INT8OID, BOOLOID, BOOLOID};
	Datum values[] = {Int64GetDatum(id), BoolGetDatum(sent), BoolGetDatum(sendcampaign_receipts)};

	(void) own_query("UPDATE sendcampaign.run_data SET in_doubt = in_doubt - 1,"
					 " sent = sent + $2::integer, failed = failed + (NOT $2)::integer,"
					 " sweep_at = CASE WHEN $2 AND $3 THEN least(sweep_at, now() + " FIRST_SWEEP
					 ") ELSE sweep_at END WHERE id = $1",
					 3, types, values, NULL);
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

	(void) own_query("UPDATE sendcampaign.run_data SET list_users = $2,"
					 " list_users_owner = " OWNER_OF("$2") " WHERE id = $1",
					 2, types, values, NULL);
}

bool
runs_chose_owner(Oid role, Oid list_users, Oid owner)
{
	Oid	  types[] = {OIDOID, OIDOID, OIDOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(role), ObjectIdGetDatum(list_users), ObjectIdGetDatum(owner),
					  home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	return own_query("SELECT FROM sendcampaign.run_data WHERE role_oid = $1 AND list_users = $2"
					 " AND list_users_owner = $3 AND " IS_AT_HOME("$4", "$5") " LIMIT 1",
					 5, types, values, NULL) > 0;
}

void
runs_set_group(int64 id, const char *account, int64 group_id, char **senders, int num_senders,
			   bool links_signed)
{
	Oid	  types[] = {INT8OID, TEXTOID, INT8OID, TEXTARRAYOID, BOOLOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(account), Int64GetDatum(group_id),
					  make_text_array(senders, num_senders), BoolGetDatum(links_signed)};

	(void) own_query("UPDATE sendcampaign.run_data SET account = $2, group_id = $3,"
					 "  links_signed = links_signed IS NOT FALSE AND $5,"
					 "  senders = ARRAY(SELECT unnest(senders) UNION SELECT unnest($4) ORDER BY 1)"
					 " WHERE id = $1 AND (account IS DISTINCT FROM $2"
					 "  OR group_id IS DISTINCT FROM $3 OR NOT coalesce(senders @> $4, false)"
					 "  OR links_signed IS DISTINCT FROM (links_signed IS NOT FALSE AND $5))",
					 5, types, values, NULL);
}

bool
runs_links_are_signed(int64 id)
{
	static OwnStatement statement = {
		"SELECT links_signed IS TRUE FROM sendcampaign.run_data WHERE id = $1", 1, {INT8OID}};
	Datum value = Int64GetDatum(id);

	return own_execute(&statement, &value, NULL) > 0 && spi_bool(0, 1);
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
	*counts = counts_of_row(0);
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

	(void) runs_add_noted_receipts(id);
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
	*counts = counts_of_row(0);
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
						   " state = paused_from, paused_from = NULL, " RECEIPTS_ACCEPTED
						   " WHERE id = $1 AND paused_from IS NOT NULL",
						   id) > 0;
}

#define STATE_RESUMED                                                                              \
	" error = NULL, next_at = NULL, list_users = NULL, " RECEIPTS_ACCEPTED ","                     \
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

void
runs_read_back_first(int64 id)
{
	(void) own_query_by_id("UPDATE sendcampaign.run_data SET timeline = '' WHERE id = $1", id);
}

Oid
runs_bring_home(int64 id)
{
	Oid	  types[] = {INT8OID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(id), home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

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
runs_reopen(int64 id, int64 failed, int64 undelivered)
{
	Oid	  types[] = {INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(id), Int64GetDatum(failed), Int64GetDatum(undelivered)};

	(void) runs_add_noted_receipts(id);
	(void) own_query("UPDATE sendcampaign.run_data SET state = 'running', finished_at = NULL,"
					 " error = NULL, failed = failed - $2, sent = sent - $3,"
					 " undelivered = undelivered - $3, accepted_delivered = delivered,"
					 " accepted_undelivered = undelivered - $3 WHERE id = $1",
					 3, types, values, NULL);
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

/* Returns these runs (bigint[]), or NULL if there are none. */
static ArrayType *
runs_with_old_name(Oid role, const char *name, Datum ids)
{
	Oid	  types[] = {OIDOID, TEXTOID, INT8ARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(role), CStringGetTextDatum(name), ids, home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query("SELECT array_agg(id) FROM sendcampaign.run_data WHERE role_oid = $1"
					 " AND role <> $2::name AND (finished_at IS NULL OR id = ANY ($3))"
					 " AND " IS_AT_HOME("$4", "$5"),
					 5, types, values, NULL);
	return spi_array(0, 1);
}

bool
runs_rename_role(Oid role, const char *name, Datum ids)
{
	ArrayType *runs = runs_with_old_name(role, name, ids);
	Oid		   types[] = {INT8ARRAYOID, TEXTOID};
	Datum	   values[] = {PointerGetDatum(runs), CStringGetTextDatum(name)};

	if (runs == NULL)
		return true;
	return own_query("UPDATE sendcampaign.run_data SET role = $2::name WHERE id = ANY (ARRAY("
					 " SELECT r.id FROM sendcampaign.run_data r WHERE r.id = ANY ($1)"
					 " FOR NO KEY UPDATE SKIP LOCKED))",
					 2, types, values, NULL) == ArrayGetNItems(ARR_NDIM(runs), ARR_DIMS(runs));
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
 * Locks runs, and returns their ids, bigint[].  What belongs to them is looked for
 * by another statement: one that has waited for a worker's transaction, or has just
 * missed it, would not see what that has written.
 */
static Datum
lock_runs(const char *condition_and_lock, int nargs, Oid *types, Datum *values)
{
	(void) own_query(psprintf("SELECT coalesce(array_agg(id), '{}') FROM (SELECT id"
							  " FROM sendcampaign.run_data WHERE %s) locked",
							  condition_and_lock),
					 nargs, types, values, NULL);
	return PointerGetDatum(spi_array(0, 1));
}

/*
 * Ends cancelled runs ($1) with a reason ($2).  Loaded rows may name a recipient
 * twice, or contain nulls.
 */
#define WIND_UP                                                                                    \
	"WITH b AS (DELETE FROM sendcampaign.batch WHERE run_id = ANY ($1)"                            \
	"  RETURNING batch.run_id, list_user_ids),"                                                    \
	" c AS (DELETE FROM sendcampaign.claim WHERE run_id = ANY ($1)"                                \
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
	" WHERE id = ANY ($1) RETURNING " ANNOUNCEMENT

Datum
runs_lock_cancelled(Oid role)
{
	Oid	  type = OIDOID;
	Datum value = ObjectIdGetDatum(role);

	return lock_runs("role_oid = $1 AND finished_at IS NULL AND state = 'cancelled'"
					 " FOR NO KEY UPDATE SKIP LOCKED",
					 1, &type, &value);
}

List *
runs_wind_up(Datum ids, const char *reason)
{
	return announcements_of(WIND_UP, INT8ARRAYOID, ids, reason);
}

/*
 * Whoever was storing receipts while their run was being deleted has left them
 * behind.  Run by run, as they are many and runs are few.  What was loaded stays:
 * it may be here before its run is, as each table is loaded by itself.  Counts do
 * not tell whether they were, but messages are loaded before them.
 */
static void
delete_left_behind(void)
{
	(void) own_query(
		"WITH RECURSIVE ids AS (SELECT min(run_id) AS id FROM sendcampaign.receipt_data"
		"  UNION ALL SELECT (SELECT min(d.run_id) FROM sendcampaign.receipt_data d"
		"   WHERE d.run_id > ids.id) FROM ids WHERE ids.id IS NOT NULL),"
		" gone AS (SELECT id FROM ids WHERE NOT EXISTS"
		"  (SELECT FROM sendcampaign.run_data r WHERE r.id = ids.id))"
		" DELETE FROM sendcampaign.receipt_data d USING gone WHERE d.run_id = gone.id"
		"  AND d.xmin = d.written_in",
		0, NULL, NULL, NULL);
	(void) own_query("WITH RECURSIVE ids AS (SELECT min(run_id) AS id FROM sendcampaign.event_data"
					 "  UNION ALL SELECT (SELECT min(e.run_id) FROM sendcampaign.event_data e"
					 "   WHERE e.run_id > ids.id) FROM ids WHERE ids.id IS NOT NULL),"
					 " gone AS (SELECT id FROM ids WHERE NOT EXISTS"
					 "  (SELECT FROM sendcampaign.run_data r WHERE r.id = ids.id))"
					 " DELETE FROM sendcampaign.event_data e USING gone WHERE e.run_id = gone.id"
					 "  AND e.xmin = e.written_in",
					 0, NULL, NULL, NULL);
	(void) own_query("DELETE FROM sendcampaign.receipt_count c WHERE NOT EXISTS"
					 " (SELECT FROM sendcampaign.run_data r WHERE r.id = c.run_id) AND NOT EXISTS"
					 " (SELECT FROM sendcampaign.message_data m WHERE m.run_id = c.run_id)",
					 0, NULL, NULL, NULL);
}

/*
 * A worker still has a run that somebody else has ended.  It moves recipients from
 * batches to claims, or back, without writing to the run: what it has moved while
 * we have waited for it is seen the next time.  It moves nothing that we have
 * deleted.
 */
static void
delete_recipients(Datum ids)
{
	Oid type = INT8ARRAYOID;

	while (own_query("SELECT WHERE EXISTS (SELECT FROM sendcampaign.batch WHERE run_id = ANY ($1))"
					 " OR EXISTS (SELECT FROM sendcampaign.claim WHERE run_id = ANY ($1))",
					 1, &type, &ids, NULL) > 0)
		(void) own_query("WITH b AS (DELETE FROM sendcampaign.batch WHERE run_id = ANY ($1))"
						 " DELETE FROM sendcampaign.claim WHERE run_id = ANY ($1)",
						 1, &type, &ids, NULL);
}

/* Deletes runs, and what belongs to them; returns their number. */
static int64
delete_runs(Datum ids)
{
	Oid type = INT8ARRAYOID;

	delete_recipients(ids);
	/* before receipts, as forget_recipient() locks them: parts of one statement have no order */
	(void) own_query("DELETE FROM sendcampaign.message_data WHERE run_id = ANY ($1)", 1, &type,
					 &ids, NULL);
	return (int64) own_query(
		"WITH w AS (DELETE FROM sendcampaign.read_back_message WHERE run_id = ANY ($1)),"
		" t AS (DELETE FROM sendcampaign.chosen WHERE run_id = ANY ($1)),"
		" d AS (DELETE FROM sendcampaign.receipt_data WHERE run_id = ANY ($1)),"
		" n AS (DELETE FROM sendcampaign.receipt_count WHERE run_id = ANY ($1))"
		" DELETE FROM sendcampaign.run_data WHERE id = ANY ($1)",
		1, &type, &ids, NULL);
}

/* Those that somebody was recording are there, as no message is any more: see events_find_run(). */
static void
delete_events(Datum ids)
{
	Oid type = INT8ARRAYOID;

	(void) own_query("DELETE FROM sendcampaign.event_data WHERE run_id = ANY ($1)", 1, &type, &ids,
					 NULL);
}

int64
runs_forget(TimestampTz before)
{
	Oid	  types[] = {OIDOID, BOOLOID, TIMESTAMPTZOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()),
					  TimestampTzGetDatum(before), home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};
	Datum ids;
	int64 count;

	ids = lock_runs("finished_at < $3 AND" IS_FOR_CALLER "ORDER BY id FOR UPDATE", 5, types,
					values);
	count = delete_runs(ids);
	delete_events(ids);
	(void) own_query("DELETE FROM sendcampaign.early_receipt"
					 " WHERE received_at < least($1, now() - interval '1 day')",
					 1, &types[2], &values[2], NULL);
	delete_left_behind();
	return count;
}

void
runs_forget_test_phones(Datum phones)
{
	Oid	  id_type = INT8ARRAYOID;
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), phones,
					  home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	values[2] = lock_runs("test_phone = ANY ($3) AND finished_at IS NOT NULL AND" IS_FOR_CALLER
						  "ORDER BY id FOR NO KEY UPDATE",
						  5, types, values);
	(void) own_query("UPDATE sendcampaign.run_data SET test_phone = '' WHERE id = ANY ($1)", 1,
					 &id_type, &values[2], NULL);
}
