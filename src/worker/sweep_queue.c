/*-------------------------------------------------------------------------
 *
 * sweep_queue.c
 *	  Which runs are to be swept: what became of their messages is asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "database/sweep_times.h"
#include "miscadmin.h"
#include "worker/sweep_queue.h"

static DueRun
due_run(uint64 row, TimestampTz now)
{
	SweptRun swept = {.began_at = spi_timestamptz(row, 9),
					  .last_at = spi_timestamptz(row, 10),
					  .swept_at = spi_timestamptz(row, 11),
					  .has_ended = spi_bool(row, 12)};

	return (DueRun){.id = spi_int64(row, 1),
					.sent = spi_int64(row, 7),
					.open = spi_int64(row, 8),
					.began_at = swept.began_at,
					.since = sweep_since(&swept, now),
					.is_last = sweep_is_last(&swept, now),
					.is_over = sweep_is_over(&swept, now)};
}

/* SQL conditions on a run: it belongs to the role ($1), here, and is due, but not left out. */
#define MAY_BE_SWEPT                                                                               \
	" role_oid = $1 AND " IS_AT_HOME("$2", "$3") SWEEP_IS_DUE                                      \
		" AND id <> ALL ($4) AND (account IS NULL OR account <> ALL ($5))"

/*
 * Replies are read since the latest sweep of one of the group's runs, which may
 * be long ago.  After the last message, all answers to the runs are read each
 * time, as the list may lag.
 */
static TimestampTz
replies_since(const DueGroup *group, bool have_ended, TimestampTz swept_at)
{
	TimestampTz began_at = group->runs[group->num_runs - 1].began_at; /* of the oldest one */

	if (swept_at == 0)
		return began_at;
	return have_ended ? Min(swept_at, began_at) : swept_at;
}

/* Adds the senders that the group had, whatever it has now. */
static void
add_senders(DueGroup *group)
{
	static OwnStatement statement = {
		"SELECT array_agg(DISTINCT u.sender) FROM sendcampaign.run_data r, unnest(r.senders) u(sender)"
		" WHERE r.id = ANY ($1)",
		1,
		{INT8ARRAYOID}};
	Datum *ids = palloc(group->num_runs * sizeof(Datum));
	Datum  value;

	for (int i = 0; i < group->num_runs; i++)
		ids[i] = Int64GetDatum(group->runs[i].id);
	value = make_array(ids, NULL, group->num_runs, INT8OID);
	(void) own_execute(&statement, &value, NULL);
	if (!spi_isnull(0, 1))
		group->senders = spi_strings(0, 1, &group->num_senders);
}

/*
 * The time of the latest sweep is looked for once, not for each run that is due:
 * a group may have as many runs as it has recipients.
 */
DueGroup *
next_due_group(Oid role, Datum runs, Datum accounts)
{
	static OwnStatement statement = {
		"WITH first AS (SELECT schema AS of_schema, account AS of_account, group_id AS of_group"
		"  FROM sendcampaign.run_data WHERE" MAY_BE_SWEPT
		"  ORDER BY sweep_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)"
		" SELECT id, schema::text, account, group_id, campaign_id, list_id, sent,"
		"  greatest(sent - " WITH_NOTED("delivered") " - " WITH_NOTED("undelivered") " - " WITH_NOTED(
			"unconfirmed") ", 0),"
						   "  coalesce(started_at, queued_at), coalesce(finished_at, last_sent_at), swept_at,"
						   "  finished_at IS NOT NULL, coalesce(list_users, 0)::int8,"
						   "  (SELECT max(o.swept_at) FROM sendcampaign.run_data o JOIN first f"
						   "   ON o.account = f.of_account AND o.group_id = f.of_group AND o.schema = f.of_schema"
						   "   WHERE o.role_oid = $1 AND o.system_identifier = $2 AND o.database = $3"
						   "    AND o.written_in <> '0'::xid)"
						   " FROM sendcampaign.run_data JOIN first ON schema = of_schema"
						   "  AND account IS NOT DISTINCT FROM of_account AND group_id IS NOT DISTINCT FROM of_group"
						   " WHERE" MAY_BE_SWEPT " ORDER BY id DESC LIMIT " CppAsString2(
							   MAX_DUE_RUNS) " FOR NO KEY UPDATE OF run_data SKIP LOCKED",
		5,
		{OIDOID, NUMERICOID, OIDOID, INT8ARRAYOID, TEXTARRAYOID}};
	Datum	  values[] = {ObjectIdGetDatum(role), home_identifier(), ObjectIdGetDatum(MyDatabaseId),
						  runs, accounts};
	int		  count = (int) own_execute(&statement, values, NULL);
	bool	  have_ended = true;
	DueGroup *group;

	if (count == 0)
		return NULL;
	group = palloc(sizeof(DueGroup));
	*group = (DueGroup){.schema = spi_string(0, 2),
						.account = spi_string(0, 3),
						.group_id = spi_int64(0, 4),
						.campaign_id = spi_int64(0, 5),
						.list_id = spi_int64(0, 6),
						.list_users = (Oid) spi_int64(0, 13),
						.now = GetCurrentTransactionStartTimestamp(),
						.num_runs = count,
						.runs = palloc(count * sizeof(DueRun))};
	for (int i = 0; i < count; i++)
	{
		group->runs[i] = due_run(i, group->now);
		have_ended &= spi_bool(i, 12);
	}
	group->replies_since = replies_since(group, have_ended, spi_timestamptz(0, 14));
	add_senders(group);
	return group;
}

bool
sweeps_are_due(Oid role)
{
	static OwnStatement statement = {"SELECT FROM sendcampaign.run_data"
									 " WHERE role_oid = $1 AND " IS_AT_HOME("$2", "$3") SWEEP_IS_DUE
									 " LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
									 3,
									 {OIDOID, NUMERICOID, OIDOID}};
	Datum values[] = {ObjectIdGetDatum(role), home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	return own_execute(&statement, values, NULL) > 0;
}

void
put_off_sweeps(Oid role)
{
	Oid	  types[] = {OIDOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(role), home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query("SELECT coalesce(array_agg(id), '{}') FROM (SELECT id"
					 " FROM sendcampaign.run_data WHERE role_oid = $1 AND " IS_AT_HOME("$2", "$3")
						 SWEEP_IS_DUE " LIMIT " CppAsString2(MAX_DUE_RUNS) ") due",
					 3, types, values, NULL);
	(void) runs_plan_sweep(PointerGetDatum(spi_array(0, 1)), GetCurrentTransactionStartTimestamp(),
						   SWEEP_NOT_READ);
}
