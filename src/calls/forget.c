/*-------------------------------------------------------------------------
 *
 * forget.c
 *	  forget() and forget_recipient(): delete what need not, or must not, be
 *	  kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "campaign/phone.h"
#include "catalog/pg_type.h"
#include "database/event_table.h"
#include "database/own_tables.h"
#include "database/receipt_table.h"
#include "database/reply_table.h"
#include "database/run_table.h"
#include "database/unreachable_table.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_forget);
PG_FUNCTION_INFO_V1(sendcampaign_forget_recipient);

/*
 * With Citus: forgets that opt-outs were deleted, where this node has told it to all
 * others, or another one has told it to us.  A node that does not know it yet, as it
 * was down, may tell such an opt-out once more, which counts again then: nobody gets
 * a message because of that.  If the clock of the node where it was deleted is ahead,
 * it is kept until our own has come as far: a later opt-out has to be later by it.
 */
static void
forget_deleted_opt_outs(const char *condition, Datum value, Oid type)
{
	Oid	  types[] = {OIDOID, BOOLOID, type};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), value};

	/* the objects may still be those of 1.0 */
	if (own_query("SELECT FROM pg_class WHERE oid = to_regclass('sendcampaign.opt_out_change')", 0,
				  NULL, NULL, NULL) == 0)
		return;
	(void) own_query(psprintf("DELETE FROM sendcampaign.opt_out_change c"
							  " WHERE NOT c.opted_out AND c.waiting = '{}'"
							  " AND c.changed_at < clock_timestamp() AND %s AND ($2 OR EXISTS"
							  " (SELECT FROM pg_roles r WHERE r.rolname = c.role"
							  "  AND pg_has_role($1, r.oid, 'MEMBER')))",
							  condition),
					 3, types, values, NULL);
}

/* sendcampaign.forget(before timestamptz) returns bigint */
Datum
sendcampaign_forget(PG_FUNCTION_ARGS)
{
	int64 count;

	check_writable("sendcampaign.forget()");
	spi_connect();
	count = runs_forget(PG_GETARG_TIMESTAMPTZ(0));
	replies_forget(PG_GETARG_TIMESTAMPTZ(0));
	forget_deleted_opt_outs("c.changed_at < $3", PG_GETARG_DATUM(0), TIMESTAMPTZOID);
	spi_finish();
	PG_RETURN_INT64(count);
}

/* Returns all spellings of the number in messages, text[]: in E.164, and those from lists. */
static Datum
spellings(const char *phone)
{
	Oid	   types[] = {TEXTOID, TEXTOID};
	char  *e164 = normalize_phone(phone);
	Datum  values[2];
	uint64 count;
	char **found;
	int	   num_found = 0;

	if (e164 == NULL)
		return make_text_array((char *const *) &phone, 1);
	values[0] = CStringGetTextDatum(e164);
	values[1] = CStringGetTextDatum(e164 + 1);
	count = own_query("SELECT DISTINCT phone FROM sendcampaign.message_data"
					  " WHERE status = 'skipped' AND phone <> $1"
					  " AND (phone ~ '[^ -~]' OR regexp_replace(phone, '[^0-9]', '', 'g')"
					  "  IN ($2, '00' || $2) OR regexp_replace(phone,"
					  "   '[(][[:space:]]*0[[:space:]]*[)]|[^0-9]', '', 'g') IN ($2, '00' || $2))",
					  2, types, values, NULL);
	found = palloc((count + 1) * sizeof(char *));
	found[num_found++] = e164;
	for (uint64 i = 0; i < count; i++)
	{
		char *stored = spi_string(i, 1);
		char *normal = normalize_phone(stored);

		if (normal && strcmp(normal, e164) == 0)
			found[num_found++] = stored;
	}
	return make_text_array(found, num_found);
}

static void
fail_number_is_needed(int64 job_id, bool under_way)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("the phone number cannot be forgotten yet"),
			 under_way
				? errdetail("A message of background job %lld to it may be on its way.",
							(long long) job_id)
				: errdetail("Only the number shows that a message of background job %lld was sent"
							" to it.",
							(long long) job_id),
			 errhint("Try again when that run has ended. If it has failed, call send_campaign() to"
					 " continue it, or sendcampaign.forget() to delete it.")));
}

/*
 * Without the number nobody could tell whether a message was sent to it, and
 * it might be sent again.
 */
static void
check_is_not_needed(Oid *types, Datum *values)
{
	if (own_query("SELECT r.job_id FROM " RUNS_OF_CALLER
				  " JOIN sendcampaign.claim c ON c.run_id = r.id WHERE c.phones && $3 LIMIT 1",
				  5, types, values, NULL) > 0)
		fail_number_is_needed(spi_int64(0, 1), true);
	if (own_query(
			"SELECT r.job_id FROM " RUNS_OF_CALLER
			" JOIN sendcampaign.read_back_message w ON w.run_id = r.id WHERE w.phone = ANY ($3)"
			" AND (r.finished_at IS NULL OR r.state = 'failed') LIMIT 1",
			5, types, values, NULL) > 0)
		fail_number_is_needed(spi_int64(0, 1), false);
}

/* What a worker has read back since check_is_not_needed() is still needed. */
static void
forget_read_back(Oid *types, Datum *values)
{
	(void) own_query("DELETE FROM sendcampaign.read_back_message USING " RUNS_OF_CALLER
					 " WHERE r.id = read_back_message.run_id AND read_back_message.phone = ANY ($3)"
					 " AND r.finished_at IS NOT NULL AND r.state <> 'failed'",
					 5, types, values, NULL);
}

/* sendcampaign.forget_recipient(phone text) returns bigint */
Datum
sendcampaign_forget_recipient(PG_FUNCTION_ARGS)
{
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), 0,
					  home_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	int64 count;

	check_writable("sendcampaign.forget_recipient()");
	check_read_committed("sendcampaign.forget_recipient()",
						 "Otherwise what others are storing about the recipient would be left"
						 " behind.");
	spi_connect();
	values[2] = spellings(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	check_is_not_needed(types, values);
	/* rows are locked in this order: runs, messages, receipts */
	runs_forget_test_phones(values[2]);
	events_forget_phones(values[2]);
	receipts_forget_phones(values[2]);
	unreachable_forget(values[2]);
	forget_deleted_opt_outs("c.phone = ANY ($3)", values[2], TEXTARRAYOID);
	count = (int64) own_query(
		"UPDATE sendcampaign.message_data SET phone = NULL, sid = NULL, error_message = NULL"
		" FROM " RUNS_OF_CALLER " WHERE r.id = message_data.run_id"
		" AND message_data.phone = ANY ($3)",
		5, types, values, NULL);
	replies_forget_phones(values[2]);
	forget_read_back(types, values);
	spi_finish();
	PG_RETURN_INT64(count);
}
