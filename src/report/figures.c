/*-------------------------------------------------------------------------
 *
 * figures.c
 *	  What a report says: all SQL that reads it.
 *
 * The report's functions have a search_path of their own, so names and
 * operators need no schema here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/group.h"
#include "catalog/pg_type.h"
#include "database/own_tables.h"
#include "fmgr.h"
#include "report/figures.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sendcampaign_sender_of);

/* Reads with the rights of the caller. */
static uint64
read_as_caller(const char *sql, int nargs, Oid *types, Datum *values)
{
	return spi_query(sql, &(SpiCall){nargs, types, values, .read_only = true});
}

static ReportedRun *
runs_of_result(uint64 count)
{
	ReportedRun *runs = palloc0((count + 1) * sizeof(ReportedRun));

	for (uint64 i = 0; i < count; i++)
		runs[i] = (ReportedRun){.id = spi_int64(i, 1),
								.schema = spi_string(i, 2),
								.job_id = spi_int64(i, 3),
								.campaign_id = spi_int64(i, 4),
								.role = spi_string(i, 5),
								.state = spi_string(i, 6),
								.total = spi_int64(i, 7),
								.sent = spi_int64(i, 8),
								.failed = spi_int64(i, 9),
								.skipped = spi_int64(i, 10),
								.in_doubt = spi_int64(i, 11),
								.delivered = spi_int64(i, 12),
								.undelivered = spi_int64(i, 13),
								.unconfirmed = spi_int64(i, 14),
								.queued_at = spi_timestamptz(i, 15),
								.started_at = spi_timestamptz(i, 16),
								.finished_at = spi_timestamptz(i, 17),
								.message = spi_string(i, 18),
								.base_url = spi_string(i, 19),
								.is_test = spi_bool(i, 20)};
	return runs;
}

#define SELECT_RUNS                                                                                \
	"SELECT id, schema, job_id, campaign_id, role, state, coalesce(total, -1), sent, failed,"      \
	" skipped, in_doubt, delivered, undelivered, unconfirmed, queued_at, started_at, finished_at," \
	" message, base_url, test_phone IS NOT NULL FROM sendcampaign.run"

ReportedRun *
read_run_of_job(int64 job_id)
{
	Oid	   types[] = {INT8OID, TEXTOID};
	Datum  values[] = {Int64GetDatum(job_id), CStringGetTextDatum(sendcampaign_schema)};
	uint64 count = read_as_caller(SELECT_RUNS " WHERE job_id = $1 AND schema = $2::name", 2, types,
								  values);

	return count > 0 ? runs_of_result(count) : NULL;
}

/* Sets what recipients have done, of runs that are sorted by anything. */
static void
add_responses(ReportedRun *runs, int num_runs)
{
	Oid	   type = INT8ARRAYOID;
	int64 *ids = palloc((num_runs + 1) * sizeof(int64));
	Datum  value;
	uint64 count;

	for (int i = 0; i < num_runs; i++)
		ids[i] = runs[i].id;
	value = array_of_ids(ids, num_runs);
	count = read_as_caller("SELECT run_id, count(*) FILTER (WHERE event = 'open'),"
						   "  count(*) FILTER (WHERE event = 'complete'), 0::bigint, 0::bigint"
						   " FROM sendcampaign.event WHERE run_id = ANY ($1) GROUP BY run_id"
						   " UNION ALL"
						   " SELECT run_id, 0, 0, count(*), count(*) FILTER (WHERE word = 'stop')"
						   " FROM sendcampaign.reply WHERE run_id = ANY ($1) GROUP BY run_id",
						   1, &type, &value);
	for (uint64 i = 0; i < count; i++)
		for (int j = 0; j < num_runs; j++)
		{
			if (runs[j].id != spi_int64(i, 1))
				continue;
			runs[j].opened += spi_int64(i, 2);
			runs[j].completed += spi_int64(i, 3);
			runs[j].replies += spi_int64(i, 4);
			runs[j].opted_out += spi_int64(i, 5);
		}
}

ReportedRun *
read_latest_runs(int most, int *count)
{
	Oid			 type = INT4OID;
	Datum		 value = Int32GetDatum(most);
	ReportedRun *runs;

	*count = (int) read_as_caller(SELECT_RUNS " WHERE test_phone IS NULL"
											  " ORDER BY queued_at DESC, id DESC LIMIT $1",
								  1, &type, &value);
	runs = runs_of_result(*count);
	if (*count > 0)
		add_responses(runs, *count);
	return runs;
}

ReportedRun *
read_runs_of_list(int64 run_id, int most, int *count)
{
	Oid			 types[] = {INT8OID, INT4OID};
	Datum		 values[] = {Int64GetDatum(run_id), Int32GetDatum(most)};
	ReportedRun *runs;

	*count = (int) read_as_caller(SELECT_RUNS " WHERE test_phone IS NULL AND (schema, list_id) ="
											  " (SELECT r.schema, r.list_id FROM sendcampaign.run r"
											  "  WHERE r.id = $1)"
											  " ORDER BY queued_at DESC, id DESC LIMIT $2",
								  2, types, values);
	runs = runs_of_result(*count);
	if (*count > 0)
		add_responses(runs, *count);
	return runs;
}

/* SQL: rows may have been loaded from anywhere, so that a sum may have no end. */
#define SUM_OF(column) " least(coalesce(sum(" column "), 0), 9223372036854775807)::bigint"

ReportedRun *
read_all_runs(int64 *count)
{
	ReportedRun *all = palloc0(sizeof(ReportedRun));

	(void) read_as_caller(
		"SELECT count(*)," SUM_OF("total") "," SUM_OF("sent") "," SUM_OF("delivered") "," SUM_OF(
			"failed") "," SUM_OF("undelivered") " FROM sendcampaign.run WHERE test_phone IS NULL",
		0, NULL, NULL);
	*count = spi_int64(0, 1);
	all->total = spi_int64(0, 2);
	all->sent = spi_int64(0, 3);
	all->delivered = spi_int64(0, 4);
	all->failed = spi_int64(0, 5);
	all->undelivered = spi_int64(0, 6);
	return all;
}

/* Steps of a length that people use, at most MAX_STEPS of them. */
#define MAX_STEPS 60

static int64
length_of_step(int64 duration)
{
	static const int seconds[] = {1,   2,	5,	  10,	15,	  30,	 60,	120,   300,
								  600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400};
	int64			 step = 0;

	for (int i = 0; i < lengthof(seconds); i++)
	{
		step = seconds[i] * USECS_PER_SEC;
		if (duration / step < MAX_STEPS)
			return step;
	}
	return (duration / MAX_STEPS / step + 1) * step;
}

/* Rows may have been loaded from anywhere. */
#define LIKELY_TIMES " BETWEEN '1970-01-01 00:00+00' AND '2200-01-01 00:00+00'"

/*
 * SQL for the first and the last time among a run's rows that fulfil a
 * condition.  Recipients are sent to in the order of their ids, so a thousand
 * at each end have both, or nearly.
 */
#define ENDS_OF(column, table, condition)                                                          \
	"(SELECT min(at) AS first, max(at) AS last FROM ("                                             \
	"  (SELECT " column " AS at FROM " table " WHERE run_id = $1 AND " condition                   \
	" AND " column LIKELY_TIMES " ORDER BY list_user_id LIMIT 1000)"                               \
	"  UNION ALL"                                                                                  \
	"  (SELECT " column " FROM " table " WHERE run_id = $1 AND " condition                         \
	" AND " column LIKELY_TIMES " ORDER BY list_user_id DESC LIMIT 1000)) ends)"

/*
 * Most messages are delivered within seconds, and a few perhaps days later: the
 * period ends when about as much time has passed again as sending took.
 */
Period
read_period(int64 run_id)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(run_id);
	Period		period = {0};
	TimestampTz last;
	int64		sending;

	(void) own_read(
		"SELECT sent.first, sent.last, delivered.last FROM" ENDS_OF(
			"created_at", "sendcampaign.message_data",
			"status = 'sent'") " sent," ENDS_OF("updated_at", "sendcampaign.receipt_data",
												"status IN ('delivered', 'read')") " delivered",
		1, &type, &value, NULL);
	if (spi_isnull(0, 1))
		return period;
	period.start = spi_timestamptz(0, 1) - spi_timestamptz(0, 1) % USECS_PER_SEC;
	period.last_sent = spi_timestamptz(0, 2);
	last = spi_isnull(0, 3) ? period.last_sent : Max(period.last_sent, spi_timestamptz(0, 3));
	sending = period.last_sent - period.start;
	last = Min(last, period.last_sent + Max(sending, USECS_PER_MINUTE));
	period.step = length_of_step(last - period.start);
	period.num_steps = (int) ((last - period.start) / period.step) + 1;
	period.end = period.start + period.num_steps * period.step - 1;
	return period;
}

static Figures
figures_of_result(uint64 count)
{
	Figures figures = {(int) count, palloc0((count + 1) * sizeof(Figure))};

	for (uint64 i = 0; i < count; i++)
	{
		Figure *line = &figures.lines[i];

		line->part = spi_string(i, 1);
		line->name = spi_string(i, 2);
		line->advice = spi_string(i, 3);
		line->code = spi_int64(i, 4);
		line->time = spi_timestamptz(i, 5);
		for (int j = 0; j < lengthof(line->counts) && 6 + j <= SPI_tuptable->tupdesc->natts; j++)
			line->counts[j] = spi_int64(i, 6 + j);
	}
	return figures;
}

/*
 * One pass over the messages and what became of them, which adds up all that
 * look the same here; the parts of the report are made from these groups.
 * $1 run, $2 step, $3 start, $4 end, $5 senders.
 */
#define MESSAGES_IN_GROUPS                                                                         \
	"WITH alike AS MATERIALIZED ("                                                                 \
	" SELECT m.status, m.error_code, d.status AS delivery, d.error_code AS delivery_code,"         \
	"  CASE WHEN m.status <> 'skipped' THEN NULL"                                                  \
	"   WHEN m.error_message LIKE 'the list user cannot be read:%'"                                \
	"   THEN 'the list user cannot be read' ELSE m.error_message END AS reason,"                   \
	"  CASE WHEN m.status <> 'skipped' THEN sendcampaign.country(m.phone) END AS country,"         \
	"  CASE WHEN m.status = 'skipped' THEN NULL WHEN cardinality($5) = 1 THEN $5[1]"               \
	"   ELSE sendcampaign.sender_of(m.phone, $5) END AS sender,"                                   \
	"  CASE WHEN m.status = 'sent' THEN"                                                           \
	"   date_bin($2, least(greatest(m.created_at, $3), $4), $3) END AS sent_at,"                   \
	"  CASE WHEN d.status IN ('delivered', 'read') THEN"                                           \
	"   date_bin($2, least(greatest(d.updated_at, $3), $4), $3) END AS delivered_at,"              \
	"  d.price_unit, count(*) AS n, count(coalesce(d.segments, m.segments)) AS with_segments,"     \
	"  sum(coalesce(d.segments, m.segments)) AS segments, count(d.price) AS priced,"               \
	"  sum(d.price) AS price"                                                                      \
	" FROM sendcampaign.message_data m"                                                            \
	" LEFT JOIN sendcampaign.receipt_data d ON d.run_id = $1 AND d.run_id = m.run_id"              \
	"  AND d.list_user_id = m.list_user_id AND m.status = 'sent'"                                  \
	"  AND d.sid IS NOT DISTINCT FROM m.sid"                                                       \
	" WHERE m.run_id = $1"                                                                         \
	" GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)"

#define MESSAGES_BY_TIME                                                                           \
	"SELECT 'time' AS part, NULL AS name, NULL AS advice, NULL::bigint AS code, t.at,"             \
	" sum(t.sent)::bigint AS a, sum(t.delivered)::bigint AS b, 0::bigint AS c"                     \
	" FROM (SELECT sent_at AS at, n AS sent, 0 AS delivered FROM alike UNION ALL"                  \
	"       SELECT delivered_at, 0, n FROM alike) t"                                               \
	" WHERE t.at IS NOT NULL GROUP BY t.at"

#define MESSAGES_NOT_SENT                                                                          \
	"SELECT a.status, coalesce(e.description, a.reason), e.what_to_do, a.error_code, NULL,"        \
	" sum(a.n)::bigint, 0, 0"                                                                      \
	" FROM alike a LEFT JOIN sendcampaign.error_code e ON e.code = a.error_code"                   \
	" WHERE a.status <> 'sent' GROUP BY 1, 2, 3, 4"

#define MESSAGES_NOT_DELIVERED                                                                     \
	"SELECT 'undelivered', e.description, e.what_to_do, a.delivery_code, NULL,"                    \
	" sum(a.n)::bigint, 0, 0"                                                                      \
	" FROM alike a LEFT JOIN sendcampaign.error_code e ON e.code = a.delivery_code"                \
	" WHERE a.delivery IN ('undelivered', 'failed', 'canceled') GROUP BY 1, 2, 3, 4"

/* "column" is sender or country */
#define MESSAGES_BY(column)                                                                        \
	"SELECT '" column "', " column ", NULL, NULL, NULL,"                                           \
	" coalesce(sum(n) FILTER (WHERE status = 'sent'), 0)::bigint,"                                 \
	" coalesce(sum(n) FILTER (WHERE delivery IN ('delivered', 'read')), 0)::bigint,"               \
	" coalesce(sum(n) FILTER (WHERE status = 'failed'"                                             \
	"  OR delivery IN ('undelivered', 'failed', 'canceled')), 0)::bigint"                          \
	" FROM alike WHERE status <> 'skipped' GROUP BY " column

#define MESSAGES_COST                                                                              \
	"SELECT 'cost', to_char(sum(price), 'FM999G999G999G990D0099'), price_unit, NULL, NULL,"        \
	" sum(priced)::bigint, coalesce(sum(segments), 0)::bigint, 0"                                  \
	" FROM alike WHERE priced > 0 GROUP BY price_unit"                                             \
	" UNION ALL"                                                                                   \
	" SELECT 'segments', NULL, NULL, NULL, NULL, coalesce(sum(with_segments), 0)::bigint,"         \
	" coalesce(sum(segments), 0)::bigint, 0 FROM alike WHERE status = 'sent'"

/* Returns the senders that a run's group had, text[]. */
static Datum
senders_of(int64 run_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(run_id);

	(void) own_read("SELECT coalesce(senders, '{}') FROM sendcampaign.run_data WHERE id = $1", 1,
					&type, &value, NULL);
	return PointerGetDatum(spi_array(0, 1));
}

static Datum
interval_datum(int64 microseconds)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

Figures
read_messages(int64 run_id, const Period *period)
{
	Oid	  types[] = {INT8OID, INTERVALOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTARRAYOID};
	Datum values[] = {Int64GetDatum(run_id), interval_datum(Max(period->step, USECS_PER_SEC)),
					  TimestampTzGetDatum(period->start), TimestampTzGetDatum(period->end),
					  senders_of(run_id)};

	return figures_of_result(
		own_read(MESSAGES_IN_GROUPS
				 " SELECT * FROM (" MESSAGES_BY_TIME " UNION ALL " MESSAGES_NOT_SENT
				 " UNION ALL " MESSAGES_NOT_DELIVERED
				 " UNION ALL " MESSAGES_BY("sender") " UNION ALL " MESSAGES_BY(
					 "country") " UNION ALL "
								"" MESSAGES_COST ") parts ORDER BY part, at, a DESC, name, code",
				 5, types, values, NULL));
}

/* Quarters of an hour are added up first: each time zone has whole ones of them. */
Figures
read_hours(int64 run_id)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(run_id);

	return figures_of_result(read_as_caller(
		"SELECT 'hour', NULL, NULL, extract(hour FROM q.at)::bigint, NULL::timestamptz, sum(q.replies)::bigint,"
		" sum(q.opens)::bigint, sum(q.completions)::bigint, sum(q.stops)::bigint"
		" FROM (SELECT date_bin('15 minutes', received_at, '2000-01-01 00:00+00') AS at,"
		"        count(*) AS replies, 0 AS opens, 0 AS completions,"
		"        count(*) FILTER (WHERE word = 'stop') AS stops"
		"       FROM sendcampaign.reply WHERE run_id = $1 AND isfinite(received_at) GROUP BY 1"
		"       UNION ALL"
		"       SELECT date_bin('15 minutes', created_at, '2000-01-01 00:00+00'), 0,"
		"        count(*) FILTER (WHERE event = 'open'), count(*) FILTER (WHERE event = 'complete'),"
		"        0"
		"       FROM sendcampaign.event WHERE run_id = $1 AND isfinite(created_at) GROUP BY 1) q"
		" GROUP BY 4 ORDER BY 4",
		1, &type, &value));
}

Reply *
read_replies(int64 run_id, int most, int *count)
{
	Oid	   types[] = {INT8OID, INT4OID};
	Datum  values[] = {Int64GetDatum(run_id), Int32GetDatum(most)};
	Reply *replies;

	*count = (int) read_as_caller("SELECT phone, body, word, received_at FROM sendcampaign.reply"
								  " WHERE run_id = $1 ORDER BY received_at DESC, sid LIMIT $2",
								  2, types, values);
	replies = palloc0((*count + 1) * sizeof(Reply));
	for (int i = 0; i < *count; i++)
		replies[i] = (Reply){spi_string(i, 1), spi_string(i, 2), spi_string(i, 3),
							 spi_timestamptz(i, 4)};
	return replies;
}

/* Returns the names in an array, which live as long as the calling expression. */
static char **
names_of(FunctionCallInfo fcinfo, ArrayType *array, int *count)
{
	MemoryContext context = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Datum		 *elements;
	bool		 *nulls;
	char		**names;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, count);
	names = palloc((*count + 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
		names[i] = nulls[i] ? "" : TextDatumGetCString(elements[i]);
	MemoryContextSwitchTo(context);
	return names;
}

/* The names of the last call, which are mostly those of the next one. */
typedef struct SenderNames
{
	int		   count;
	char	 **names;
	ArrayType *array;
} SenderNames;

/*
 * sendcampaign.sender_of(phone text, senders text[]) returns text: the sender
 * that sends to a phone number
 */
Datum
sendcampaign_sender_of(PG_FUNCTION_ARGS)
{
	char		*phone = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ArrayType	*array = PG_GETARG_ARRAYTYPE_P(1);
	SenderNames *kept = fcinfo->flinfo->fn_extra;

	if (kept == NULL)
		kept = fcinfo->flinfo->fn_extra = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
																 sizeof(SenderNames));
	if (kept->array == NULL || VARSIZE(array) != VARSIZE(kept->array) ||
		memcmp(array, kept->array, VARSIZE(array)) != 0)
	{
		kept->names = names_of(fcinfo, array, &kept->count);
		kept->array = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, VARSIZE(array));
		memcpy(kept->array, array, VARSIZE(array));
	}
	if (kept->count == 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(kept->names[choose_sender(kept->names, kept->count, phone)]));
}
