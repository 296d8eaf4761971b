/*-------------------------------------------------------------------------
 *
 * summary.c
 *	  What a person should know about a run, in words.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/own_tables.h"
#include "twilio/classify.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "worker/summary.h"

/* SPI_tuptable has an error code, a text and a count in each row. */
static void
append_counted_reasons(StringInfo buf, uint64 count)
{
	for (uint64 i = 0; i < count; i++)
	{
		int			code = spi_int32(i, 1);
		const char *known = describe_error_code(code);

		appendStringInfoString(buf, i == 0 ? ": " : ", ");
		if (i == 5)
		{
			appendStringInfoString(buf, "...");
			break;
		}
		if (code)
			appendStringInfo(buf, "%d ", code);
		appendStringInfo(buf, "%s (%lld)", known ? known : spi_string(i, 2),
						 (long long) spi_int64(i, 3));
	}
}

void
append_reasons(StringInfo buf, int64 id, const char *status, TimestampTz since)
{
	Oid	  types[] = {INT8OID, TEXTOID, TIMESTAMPTZOID};
	Datum values[] = {Int64GetDatum(id), CStringGetTextDatum(status), TimestampTzGetDatum(since)};

	append_counted_reasons(
		buf,
		own_query("SELECT error_code, coalesce(min(error_message), 'reason erased'), count(*)"
				  " FROM sendcampaign.message_data"
				  " WHERE run_id = $1 AND status = $2 AND created_at >= $3 GROUP BY error_code,"
				  " CASE WHEN error_code IS NULL THEN error_message END"
				  " ORDER BY count(*) DESC, error_code LIMIT 6",
				  3, types, values, NULL));
}

void
append_undelivered_reasons(StringInfo buf, int64 id)
{
	append_counted_reasons(
		buf, own_query_by_id("SELECT error_code, CASE WHEN error_code IS NULL THEN status"
							 "  ELSE 'unknown code' END, count(*)"
							 " FROM sendcampaign.receipt_data WHERE run_id = $1"
							 " AND status IN ('undelivered', 'failed', 'canceled')"
							 " AND first_sid IS DISTINCT FROM sid"
							 " GROUP BY 1, 2 ORDER BY count(*) DESC, error_code, 2 LIMIT 6",
							 id));
}

/* Appends how many messages could not be counted in their list user's row. */
static void
append_uncounted(StringInfo buf, int64 id)
{
	int64 count;

	(void) own_query_by_id(
		"SELECT count(*) FROM sendcampaign.message_data WHERE run_id = $1 AND NOT counted", id);
	count = spi_int64(0, 1);
	if (count > 0)
	{
		appendStringInfoString(buf, buf->len > 0 ? "; " : "");
		appendStringInfo(
			buf,
			ngettext(
				"sentCount of %lld list user could not be increased: a trigger, rule or policy suppressed the UPDATE",
				"sentCount of %lld list users could not be increased: a trigger, rule or policy suppressed the UPDATE",
				count),
			(long long) count);
	}
}

char *
run_summary(int64 id, const RunCounts *counts, bool uncounted)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (counts->failed == 0 && counts->in_doubt == 0)
	{
		if (uncounted)
			append_uncounted(&buf, id);
		return buf.len > 0 ? buf.data : NULL;
	}
	if (counts->failed > 0)
	{
		appendStringInfo(
			&buf,
			ngettext("%lld of %lld message failed", "%lld of %lld messages failed", counts->total),
			(long long) counts->failed, (long long) counts->total);
		append_reasons(&buf, id, "failed", DT_NOBEGIN);
	}
	if (counts->in_doubt > 0)
	{
		appendStringInfoString(&buf, buf.len > 0 ? "; " : "");
		appendStringInfo(&buf,
						 ngettext("%lld of %lld message in doubt", "%lld of %lld messages in doubt",
								  counts->total),
						 (long long) counts->in_doubt, (long long) counts->total);
		append_reasons(&buf, id, "in_doubt", DT_NOBEGIN);
	}
	if (counts->skipped > 0)
	{
		appendStringInfo(&buf, "; %lld of %lld skipped", (long long) counts->skipped,
						 (long long) counts->total);
		append_reasons(&buf, id, "skipped", DT_NOBEGIN);
	}
	if (uncounted)
		append_uncounted(&buf, id);
	return buf.data;
}
