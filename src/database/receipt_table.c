/*-------------------------------------------------------------------------
 *
 * receipt_table.c
 *	  What became of messages that Twilio took, and all SQL that writes it.
 *
 * Rows are always written in the order of their keys, so that a callback and
 * the sweep wait for each other, but not in a circle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/receipt_table.h"
#include "database/run_table.h"
#include "database/unreachable_table.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define NUM_COLUMNS 8

/* The most early reports that are taken over at once. */
#define MAX_EARLY "1000"

/* The reports as arrays, one for each column of unnest() below. */
typedef struct Columns
{
	Datum *values[NUM_COLUMNS];
	bool  *nulls[NUM_COLUMNS];
} Columns;

#define COLUMN_TYPES                                                                               \
	TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID,            \
		TIMESTAMPTZARRAYOID, BOOLARRAYOID

static const Oid column_types[NUM_COLUMNS] = {TEXTOID, TEXTOID, INT4OID,		INT4OID,
											  TEXTOID, TEXTOID, TIMESTAMPTZOID, BOOLOID};

static void
set_text(Columns *columns, int column, int row, const char *value)
{
	columns->values[column][row] = optional_text(value);
	columns->nulls[column][row] = value == NULL;
}

static void
set_int(Columns *columns, int column, int row, int value)
{
	columns->values[column][row] = Int32GetDatum(value);
	columns->nulls[column][row] = value == 0;
}

/* Makes the arrays, palloc'd. */
static void
arrays_of_receipts(const Receipt *receipts, int count, Datum *arrays)
{
	Columns		columns;
	TimestampTz now = GetCurrentTimestamp();

	for (int c = 0; c < NUM_COLUMNS; c++)
	{
		columns.values[c] = palloc(Max(count, 1) * sizeof(Datum));
		columns.nulls[c] = palloc0(Max(count, 1) * sizeof(bool));
	}
	for (int i = 0; i < count; i++)
	{
		set_text(&columns, 0, i, receipts[i].sid);
		set_text(&columns, 1, i, receipts[i].status);
		set_int(&columns, 2, i, receipts[i].error_code);
		set_int(&columns, 3, i, receipts[i].segments);
		set_text(&columns, 4, i, receipts[i].price);
		set_text(&columns, 5, i, receipts[i].price_unit);
		columns.values[6][i] = TimestampTzGetDatum(receipts[i].at ? receipts[i].at : now);
		columns.values[7][i] = BoolGetDatum(receipts[i].whatsapp);
	}
	for (int c = 0; c < NUM_COLUMNS; c++)
		arrays[c] = make_array(columns.values[c], columns.nulls[c], count, column_types[c]);
}

/* SQL expression: how far a status has come.  Those from 2 on are final. */
#define RANK(status)                                                                               \
	"CASE " status " WHEN 'queued' THEN 0 WHEN 'sent' THEN 1 WHEN 'read' THEN 3 ELSE 2 END"

/*
 * SQL conditions on what is stored (o) and a report (excluded).  The report is
 * of another message, which retry_failed() has made the recipient's, but not
 * of the one before; or it is of the same message and later, nothing final
 * being known, except that what is delivered may still be read; or it says
 * more of what is known.
 */
#define IS_SAME "(o.sid IS NOT DISTINCT FROM excluded.sid)"
#define IS_LATER                                                                                   \
	"((o.status = 'queued' AND excluded.status <> 'queued')"                                       \
	" OR (o.status = 'sent' AND excluded.status NOT IN ('queued', 'sent'))"                        \
	" OR (o.status = 'delivered' AND excluded.status = 'read'))"
#define SAYS_MORE                                                                                  \
	"((o.price IS NULL AND excluded.price IS NOT NULL)"                                            \
	" OR (o.segments IS NULL AND excluded.segments IS NOT NULL)"                                   \
	" OR (o.error_code IS NULL AND excluded.error_code IS NOT NULL"                                \
	"  AND o.status = excluded.status))"
#define SAYS_SOMETHING                                                                             \
	"CASE WHEN " IS_SAME " THEN " IS_LATER " OR " SAYS_MORE                                        \
	" ELSE o.first_sid IS DISTINCT FROM excluded.sid END"
#define IS_NEWS "(NOT " IS_SAME " OR " IS_LATER ")"

/*
 * "previous" is what the row said before, which no snapshot can tell: so each
 * recipient is counted once, even if a callback and the list report it at the
 * same time.
 */
#define UPSERT                                                                                     \
	"ON CONFLICT (run_id, list_user_id) DO UPDATE SET"                                             \
	" previous = CASE WHEN " IS_SAME " THEN o.status END, sid = excluded.sid,"                     \
	" status = CASE WHEN " IS_NEWS " THEN excluded.status ELSE o.status END,"                      \
	" error_code = CASE WHEN " IS_NEWS " OR (o.error_code IS NULL AND o.status = excluded.status)" \
	"  THEN excluded.error_code ELSE o.error_code END,"                                            \
	" updated_at = CASE WHEN " IS_NEWS " THEN excluded.updated_at ELSE o.updated_at END,"          \
	" segments = coalesce(excluded.segments, CASE WHEN " IS_SAME " THEN o.segments END),"          \
	" price = coalesce(excluded.price, CASE WHEN " IS_SAME " THEN o.price END),"                   \
	" price_unit = coalesce(excluded.price_unit, CASE WHEN " IS_SAME " THEN o.price_unit END)"     \
	" WHERE " SAYS_SOMETHING " RETURNING run_id, list_user_id, status, previous, error_code"

#define DELIVERED	"('delivered', 'read')"
#define UNDELIVERED "('undelivered', 'failed', 'canceled')"
#define UNCONFIRMED "('unknown')"

/* SQL: the stored row has become one with one of these statuses, or how many have. */
#define IS_NEWLY(statuses)	"status IN " statuses " AND coalesce(previous, '') NOT IN " statuses
#define NUM_NEWLY(statuses) "count(*) FILTER (WHERE " IS_NEWLY(statuses) ")"

/*
 * SQL: list users whose phone numbers are to be marked as not reachable by SMS,
 * or no longer.  Nobody looks for marks if the role has none.
 */
#define IS_NEWLY_DELIVERED IS_NEWLY(DELIVERED)
#define TO_BE_MARKED                                                                               \
	"array_agg(list_user_id) FILTER (WHERE ((" IS_NEWLY_DELIVERED                                  \
	"  AND EXISTS (SELECT FROM sendcampaign.unreachable_data x WHERE x.role_oid = $9))"            \
	" OR (status IN ('undelivered', 'failed') AND error_code IN " UNREACHABLE_CODES "))"           \
	" AND (run_id, list_user_id) NOT IN (SELECT k.run_id, k.list_user_id FROM known k"             \
	"  WHERE k.whatsapp))"

#define COUNTS_BY_RUN                                                                              \
	"run_id, " NUM_NEWLY(DELIVERED) ", " NUM_NEWLY(UNDELIVERED) ", " NUM_NEWLY(UNCONFIRMED)

/* What the rows of SPI_tuptable say of one run. */
typedef struct RunReceipts
{
	ReceiptCounts more;
	ArrayType	 *marks; /* list users, see TO_BE_MARKED; or NULL */
} RunReceipts;

/* Adds to the counts of the runs, and changes marks. */
static List *
follow_receipts(const RunReceipts *runs, int count)
{
	List *announcements = NIL;

	for (int i = 0; i < count; i++)
	{
		char *announcement = runs_add_receipts(&runs[i].more);

		if (announcement)
			announcements = lappend(announcements, announcement);
	}
	for (int i = 0; i < count; i++)
	{
		if (runs[i].marks)
			unreachable_follow(runs[i].more.run_id, PointerGetDatum(runs[i].marks));
	}
	return announcements;
}

/* Reads rows of COUNTS_BY_RUN and TO_BE_MARKED, palloc'd. */
static RunReceipts *
read_run_receipts(int count)
{
	RunReceipts *runs = palloc(Max(count, 1) * sizeof(RunReceipts));

	for (int i = 0; i < count; i++)
		runs[i] = (RunReceipts){{.run_id = spi_int64(i, 1),
								 .delivered = spi_int64(i, 2),
								 .undelivered = spi_int64(i, 3),
								 .unconfirmed = spi_int64(i, 4)},
								spi_isnull(i, 5) ? NULL : spi_array(i, 5)};
	return runs;
}

/* SQL: the runs that a report may be about; the parameters are those of set_scope(). */
#define RUNS_OF_SCOPE                                                                              \
	"(SELECT id FROM sendcampaign.run_data WHERE role_oid = $9 AND account = $10"                  \
	" AND ($11 IS NULL OR (schema = $11::name AND group_id = $12))"                                \
	" AND " IS_AT_HOME("$13", "$14") ")"

/* The parameters after the columns, from $9 on. */
#define SCOPE_TYPES OIDOID, TEXTOID, TEXTOID, INT8OID, NUMERICOID, OIDOID
#define NUM_VALUES	(NUM_COLUMNS + 6)

static void
set_scope(const ReceiptScope *scope, Datum *values, char *nulls)
{
	memset(nulls, ' ', NUM_VALUES);
	values += NUM_COLUMNS;
	nulls += NUM_COLUMNS;
	values[0] = ObjectIdGetDatum(scope->role);
	values[1] = CStringGetTextDatum(scope->account);
	values[2] = optional_text(scope->schema);
	values[3] = Int64GetDatum(scope->group_id);
	values[4] = home_identifier();
	values[5] = ObjectIdGetDatum(MyDatabaseId);
	nulls[2] = nulls[3] = scope->schema ? ' ' : 'n';
}

#define REPORTS                                                                                    \
	"unnest($1, $2, $3, $4, $5, $6, $7, $8) WITH ORDINALITY"                                       \
	" u(sid, status, error_code, segments, price, price_unit, at, whatsapp, n)"

/* SQL: of several reports of a message, what has come further counts, or the first one. */
#define FURTHEST RANK("u.status") " DESC, u.n"

/*
 * SQL condition: what is stored (d) says all that the report (u) says.  A page
 * of the list is read again and again: most of it needs no lock and no WAL.
 */
#define IS_OLD                                                                                     \
	"(d.sid = u.sid AND (d.status = u.status OR d.status NOT IN ('queued', 'sent'))"               \
	" AND NOT (d.status = 'delivered' AND u.status = 'read')"                                      \
	" AND (d.price IS NOT NULL OR u.price IS NULL)"                                                \
	" AND (d.segments IS NOT NULL OR u.segments IS NULL)"                                          \
	" AND (d.error_code IS NOT NULL OR u.error_code IS NULL))"

/*
 * The rows are written in the order of DISTINCT ON.  A message is looked for by
 * its SID, and its run and what is known of it by their ids, whatever the planner
 * believes of the tables: OFFSET keeps it from going through all messages of a
 * run, or all receipts, for each report.
 */
static OwnStatement store = {
	"WITH known AS (SELECT DISTINCT ON (m.run_id, m.list_user_id) m.run_id, m.list_user_id, u.*,"
	"   coalesce(" IS_OLD ", false) AS is_old"
	"  FROM " REPORTS " CROSS JOIN LATERAL (SELECT by_sid.run_id, by_sid.list_user_id"
	"   FROM sendcampaign.message_data by_sid WHERE by_sid.sid = u.sid AND by_sid.status = 'sent'"
	"   OFFSET 0) m"
	"  CROSS JOIN LATERAL (SELECT FROM " RUNS_OF_SCOPE " scope WHERE scope.id = m.run_id"
	"   OFFSET 0) r"
	"  LEFT JOIN LATERAL (SELECT b.sid, b.status, b.price, b.segments, b.error_code"
	"   FROM sendcampaign.receipt_data b WHERE b.run_id = m.run_id"
	"   AND b.list_user_id = m.list_user_id OFFSET 0) d ON true"
	"  ORDER BY m.run_id, m.list_user_id, " FURTHEST "),"
	" stored AS (INSERT INTO sendcampaign.receipt_data AS o (run_id, list_user_id, sid, status,"
	"   error_code, segments, price, price_unit, updated_at)"
	"  SELECT run_id, list_user_id, sid, status, error_code, segments, price::numeric,"
	"   price_unit, at FROM known WHERE NOT is_old " UPSERT ")"
	" SELECT " COUNTS_BY_RUN ", " TO_BE_MARKED ", NULL::int8 FROM stored GROUP BY run_id"
	" UNION ALL SELECT NULL, (SELECT count(*) FROM stored), 0, 0, NULL, count(*) FROM known",
	NUM_VALUES,
	{COLUMN_TYPES, SCOPE_TYPES}};

StoredReceipts
receipts_store(const ReceiptScope *scope, const Receipt *receipts, int count)
{
	Datum		   values[NUM_VALUES];
	char		   nulls[NUM_VALUES + 1] = {0};
	int			   num_runs;
	StoredReceipts stored;
	RunReceipts	  *runs;

	arrays_of_receipts(receipts, count, values);
	set_scope(scope, values, nulls);
	num_runs = (int) own_execute(&store, values, nulls) - 1; /* the last row is the total */
	stored.num_known = (int) spi_int64(num_runs, 6);
	stored.num_new = (int) spi_int64(num_runs, 2);
	runs = read_run_receipts(num_runs);
	stored.announcements = follow_receipts(runs, num_runs);
	return stored;
}

/*
 * A callback is about one message, for which the statement above would cost
 * several times as much.
 */
#define STORE_ONE                                                                                        \
	"INSERT INTO sendcampaign.receipt_data AS o (run_id, list_user_id, sid, status, error_code,"         \
	"  updated_at)"                                                                                      \
	" SELECT m.run_id, m.list_user_id, m.sid, $4, $5, now() FROM sendcampaign.message_data m"            \
	"  WHERE m.run_id = $1 AND m.list_user_id = $2 AND m.sid = $3 AND m.status = 'sent' " UPSERT         \
	", " IS_NEWLY_DELIVERED ", " IS_NEWLY(                                                               \
		UNDELIVERED) ", (" IS_NEWLY_DELIVERED                                                            \
					 "  AND EXISTS (SELECT FROM sendcampaign.unreachable_data x WHERE x.role_oid = $6))" \
					 " OR (status IN ('undelivered', 'failed') AND error_code IN " UNREACHABLE_CODES     \
					 ")"

StoredReceipts
receipts_store_one(const KnownMessage *message, const Receipt *receipt)
{
	static OwnStatement statement = {
		STORE_ONE, 6, {INT8OID, INT8OID, TEXTOID, TEXTOID, INT4OID, OIDOID}};
	Datum values[] = {Int64GetDatum(message->run_id),	  Int64GetDatum(message->list_user_id),
					  CStringGetTextDatum(message->sid),  CStringGetTextDatum(receipt->status),
					  Int32GetDatum(receipt->error_code), ObjectIdGetDatum(message->scope.role)};
	StoredReceipts stored = {.num_known = 1};
	RunReceipts	   run = {{.run_id = message->run_id}};

	stored.num_new = (int) own_execute(&statement, values, receipt->error_code ? NULL : "    n ");
	if (stored.num_new == 0)
		return stored;
	run.more.delivered = spi_bool(0, 6);
	run.more.undelivered = spi_bool(0, 7);
	if (spi_bool(0, 8) && !receipt->whatsapp)
		run.marks = DatumGetArrayTypeP(make_array(&values[1], NULL, 1, INT8OID));
	stored.announcements = follow_receipts(&run, 1);
	return stored;
}

/*
 * A message on its way is claimed, and claims are few, so that this is how to
 * find out that there are some.
 */
int
receipts_store_early(const ReceiptScope *scope, const Receipt *receipts, int count)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.early_receipt AS o (role_oid, schema, group_id, sid, account,"
		" status, error_code, segments, price, price_unit, updated_at, whatsapp)"
		" SELECT DISTINCT ON (u.sid) $9, $11::name, $12, u.sid, $10, u.status, u.error_code,"
		"  u.segments, u.price, u.price_unit, u.at, u.whatsapp FROM " REPORTS
		" WHERE NOT EXISTS (SELECT FROM sendcampaign.message_data m WHERE m.sid = u.sid)"
		"  AND EXISTS (SELECT FROM sendcampaign.claim c CROSS JOIN LATERAL"
		"   (SELECT FROM " RUNS_OF_SCOPE " scope WHERE scope.id = c.run_id OFFSET 0) r"
		"   WHERE split_part(c.account, '@', 1) = $10)"
		" ORDER BY u.sid, " FURTHEST
		" ON CONFLICT (role_oid, schema, group_id, sid) DO UPDATE SET status = excluded.status,"
		"  error_code = excluded.error_code, segments = coalesce(excluded.segments, o.segments),"
		"  price = coalesce(excluded.price, o.price),"
		"  price_unit = coalesce(excluded.price_unit, o.price_unit),"
		"  updated_at = excluded.updated_at WHERE " IS_LATER,
		NUM_VALUES,
		{COLUMN_TYPES, SCOPE_TYPES}};
	Datum values[NUM_VALUES];
	char  nulls[NUM_VALUES + 1] = {0};

	arrays_of_receipts(receipts, count, values);
	set_scope(scope, values, nulls);
	return (int) own_execute(&statement, values, nulls);
}

bool
receipts_are_early(Oid role)
{
	static OwnStatement statement = {
		"SELECT FROM sendcampaign.early_receipt WHERE role_oid = $1 LIMIT 1", 1, {OIDOID}};
	Datum value = ObjectIdGetDatum(role);

	return own_execute(&statement, &value, NULL) > 0;
}

/* An early report, and the group whose credentials have proven it. */
typedef struct EarlyReceipt
{
	Receipt receipt;
	char   *schema;
	int64	group_id;
} EarlyReceipt;

/* Deletes those whose messages are recorded by now, and returns them, by group; palloc'd. */
static EarlyReceipt *
delete_early(const ReceiptScope *scope, int *count)
{
	static OwnStatement statement = {
		"WITH found AS (SELECT e.sid, e.schema, e.group_id FROM sendcampaign.early_receipt e"
		"  WHERE e.role_oid = $1 AND e.account = $2"
		"   AND ($3 IS NULL OR (e.schema = $3::name AND e.group_id = $4))"
		"   AND (e.received_at < now() - interval '1 day'"
		"    OR EXISTS (SELECT FROM sendcampaign.message_data m WHERE m.sid = e.sid))"
		"  LIMIT " MAX_EARLY " FOR UPDATE SKIP LOCKED),"
		" gone AS (DELETE FROM sendcampaign.early_receipt e USING found f WHERE e.role_oid = $1"
		"  AND e.schema = f.schema AND e.group_id = f.group_id AND e.sid = f.sid RETURNING e.*)"
		" SELECT schema::text, group_id, sid, status, error_code, segments, price, price_unit,"
		"  updated_at, whatsapp FROM gone ORDER BY schema, group_id",
		4,
		{OIDOID, TEXTOID, TEXTOID, INT8OID}};
	Datum		  values[] = {ObjectIdGetDatum(scope->role), CStringGetTextDatum(scope->account),
							  optional_text(scope->schema), Int64GetDatum(scope->group_id)};
	EarlyReceipt *early;

	*count = (int) own_execute(&statement, values, scope->schema ? NULL : "  nn");
	early = palloc(Max(*count, 1) * sizeof(EarlyReceipt));
	for (int i = 0; i < *count; i++)
		early[i] = (EarlyReceipt){{.sid = spi_string(i, 3),
								   .status = spi_string(i, 4),
								   .error_code = spi_int32(i, 5),
								   .segments = spi_int32(i, 6),
								   .price = spi_string(i, 7),
								   .price_unit = spi_string(i, 8),
								   .at = spi_timestamptz(i, 9),
								   .whatsapp = spi_bool(i, 10)},
								  spi_string(i, 1),
								  spi_int64(i, 2)};
	return early;
}

static bool
is_of_group(const EarlyReceipt *early, const ReceiptScope *group)
{
	return early->group_id == group->group_id && strcmp(early->schema, group->schema) == 0;
}

StoredReceipts
receipts_take_early(const ReceiptScope *scope)
{
	StoredReceipts total = {0};
	int			   count;
	EarlyReceipt  *early = delete_early(scope, &count);
	Receipt		  *receipts = palloc(Max(count, 1) * sizeof(Receipt));
	int			   next;

	for (int first = 0; first < count; first = next)
	{
		ReceiptScope   group = {scope->role, scope->account, early[first].schema,
								early[first].group_id};
		StoredReceipts stored;

		for (next = first; next < count && is_of_group(&early[next], &group); next++)
			receipts[next - first] = early[next].receipt;
		stored = receipts_store(&group, receipts, next - first);
		total.num_known += stored.num_known;
		total.num_new += stored.num_new;
		total.announcements = list_concat(total.announcements, stored.announcements);
	}
	return total;
}

/* SQL: so many ($3) messages of a run ($1), in the order of their list users, from one ($2) on. */
#define SOME_MESSAGES                                                                              \
	"part AS MATERIALIZED (SELECT m.list_user_id, m.sid, m.status, m.created_at"                   \
	"  FROM sendcampaign.message_data m WHERE m.run_id = $1 AND m.list_user_id > $2"               \
	"  ORDER BY m.list_user_id LIMIT $3)"

/* SQL: what they are joined with, and a condition: nothing final is known. */
#define THEIR_RECEIPTS                                                                             \
	" LEFT JOIN sendcampaign.receipt_data d ON d.run_id = $1 AND d.list_user_id = s.list_user_id"
#define IS_OPEN                                                                                    \
	"(s.status = 'sent' AND (d.run_id IS NULL OR d.sid IS DISTINCT FROM s.sid"                     \
	" OR d.status IN ('queued', 'sent')))"

OpenMessages
receipts_find_open(int64 run_id, int64 after, int num_rows)
{
	static OwnStatement statement = {
		"WITH " SOME_MESSAGES " SELECT max(s.list_user_id), count(*),"
		" array_agg(s.sid) FILTER (WHERE s.sid IS NOT NULL AND " IS_OPEN ")"
		" FROM part s" THEIR_RECEIPTS,
		3,
		{INT8OID, INT8OID, INT8OID}};
	Datum		 values[] = {Int64GetDatum(run_id), Int64GetDatum(after), Int64GetDatum(num_rows)};
	OpenMessages open = {.after = after};

	(void) own_execute(&statement, values, NULL);
	if (spi_isnull(0, 1))
		return open;
	open.after = spi_int64(0, 1);
	open.num_rows = (int) spi_int64(0, 2);
	open.sids = spi_strings(0, 3, &open.num_sids);
	return open;
}

bool
receipts_close(int64 run_id, TimestampTz before, int64 *after, int num_rows, List **announcements)
{
	static OwnStatement statement = {
		"WITH " SOME_MESSAGES ", stored AS (INSERT INTO sendcampaign.receipt_data AS o (run_id,"
		"   list_user_id, sid, status, updated_at)"
		"  SELECT $1, s.list_user_id, s.sid, 'unknown', now() FROM part s" THEIR_RECEIPTS
		"  WHERE s.created_at < $4 AND " IS_OPEN " ORDER BY s.list_user_id " UPSERT ")"
		" SELECT (SELECT max(list_user_id) FROM part), (SELECT count(*) FROM part),"
		"  count(*) FILTER (WHERE coalesce(previous, '') <> 'unknown') FROM stored",
		4,
		{INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID}};
	Datum		values[] = {Int64GetDatum(run_id), Int64GetDatum(*after), Int64GetDatum(num_rows),
							TimestampTzGetDatum(before)};
	RunReceipts run = {{.run_id = run_id}};
	bool		more;

	(void) own_execute(&statement, values, NULL);
	if (spi_isnull(0, 1))
		return false;
	*after = spi_int64(0, 1);
	more = spi_int64(0, 2) == num_rows;
	run.more.unconfirmed = spi_int64(0, 3);
	*announcements = list_concat(*announcements, follow_receipts(&run, 1));
	return more;
}

/*
 * SQL: messages of a run ($1), and what became of them, that may be sent again.
 * Both rows must be the extension's own: a loaded message may have somebody
 * else's SID, and a loaded receipt may say anything.
 */
#define UNDELIVERED_MESSAGES                                                                       \
	"SELECT d.list_user_id FROM sendcampaign.receipt_data d"                                       \
	" JOIN sendcampaign.message_data m ON m.run_id = d.run_id"                                     \
	"  AND m.list_user_id = d.list_user_id AND m.sid = d.sid"                                      \
	" WHERE d.run_id = $1 AND d.status IN ('undelivered', 'failed') AND d.error_code = $2"         \
	"  AND d.first_sid IS NULL AND d.updated_at <= now() - make_interval(secs => $3)"              \
	"  AND m.status = 'sent' AND d.xmin = d.written_in AND m.xmin = m.written_in"

/* Locks the messages, in the order of their list users, and returns these, bigint[]. */
static Datum
lock_undelivered(Oid *types, Datum *values)
{
	(void) own_query("SELECT coalesce(array_agg(list_user_id), '{}') FROM (" UNDELIVERED_MESSAGES
					 " ORDER BY m.list_user_id FOR UPDATE OF m) locked",
					 3, types, values, NULL);
	return PointerGetDatum(spi_array(0, 1));
}

/* Messages are locked before receipts, as forget_recipient() does. */
Datum
receipts_take_undelivered(int64 run_id, int error_code, double seconds, int *count)
{
	static const char *const sql =
		"WITH found AS (" UNDELIVERED_MESSAGES " AND d.list_user_id = ANY ($4)"
		"  ORDER BY d.list_user_id FOR UPDATE OF d),"
		" kept AS (UPDATE sendcampaign.receipt_data d SET first_sid = d.sid FROM found f"
		"  WHERE d.run_id = $1 AND d.list_user_id = f.list_user_id AND d.first_sid IS NULL"
		"  RETURNING d.list_user_id),"
		" gone AS (DELETE FROM sendcampaign.message_data m USING kept k"
		"  WHERE m.run_id = $1 AND m.list_user_id = k.list_user_id RETURNING m.list_user_id)"
		" SELECT coalesce(array_agg(list_user_id), '{}'), count(*) FROM gone";
	Oid	  types[] = {INT8OID, INT4OID, FLOAT8OID, INT8ARRAYOID};
	Datum values[] = {Int64GetDatum(run_id), Int32GetDatum(error_code), Float8GetDatum(seconds), 0};

	values[3] = lock_undelivered(types, values);
	(void) own_query(sql, 4, types, values, NULL);
	*count = (int) spi_int64(0, 2);
	return PointerGetDatum(spi_array(0, 1));
}

/*
 * What was reported of the message before, in place of which another was sent,
 * would be taken for the other one's once neither has a SID.
 */
void
receipts_forget_phones(Datum phones)
{
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), phones,
					  home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query("WITH found AS (SELECT d.run_id, d.list_user_id,"
					 "   d.sid IS NOT DISTINCT FROM m.sid AS is_of_message"
					 "  FROM " RUNS_OF_CALLER
					 "  JOIN sendcampaign.message_data m ON m.run_id = r.id"
					 "  JOIN sendcampaign.receipt_data d ON d.run_id = m.run_id"
					 "   AND d.list_user_id = m.list_user_id"
					 "  WHERE m.phone = ANY ($3)"
					 "  ORDER BY d.run_id, d.list_user_id FOR UPDATE OF d),"
					 " gone AS (DELETE FROM sendcampaign.receipt_data d USING found f"
					 "  WHERE d.run_id = f.run_id AND d.list_user_id = f.list_user_id"
					 "   AND NOT f.is_of_message)"
					 " UPDATE sendcampaign.receipt_data d SET sid = NULL, first_sid = NULL"
					 " FROM found f WHERE d.run_id = f.run_id AND d.list_user_id = f.list_user_id"
					 "  AND f.is_of_message",
					 5, types, values, NULL);
	(void) own_query("DELETE FROM sendcampaign.early_receipt e USING " RUNS_OF_CALLER
					 " JOIN sendcampaign.message_data m ON m.run_id = r.id"
					 " WHERE m.phone = ANY ($3) AND e.sid = m.sid",
					 5, types, values, NULL);
}
