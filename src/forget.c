/*-------------------------------------------------------------------------
 *
 * forget.c
 *	  forget(), forget_recipient(): what need not, or must not, be kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "home.h"
#include "miscadmin.h"
#include "own.h"
#include "queue.h"
#include "phone.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_forget);
PG_FUNCTION_INFO_V1(sendcampaign_forget_recipient);

/*
 * Runs of the caller ($1, a superuser if $2), in this cluster ($4) and database
 * ($5); for all below.
 */
#define IS_FOR_CALLER  " ($2 OR pg_has_role($1, (" ROLE_HERE("$4", "$5") "), 'MEMBER')) "
#define RUNS_OF_CALLER "(SELECT * FROM sendcampaign.run_data WHERE" IS_FOR_CALLER ") r"

/* sendcampaign.forget(before timestamptz) returns bigint */
Datum
sendcampaign_forget(PG_FUNCTION_ARGS)
{
	Oid	  types[] = {OIDOID, BOOLOID, TIMESTAMPTZOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), PG_GETARG_DATUM(0),
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	int64 count;

	check_writable("sendcampaign.forget()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	(void) own_query(
		"WITH r AS (DELETE FROM sendcampaign.run_data"
		"  WHERE finished_at < $3 AND" IS_FOR_CALLER "RETURNING id),"
		" m AS (DELETE FROM sendcampaign.message_data USING r WHERE message_data.run_id = r.id),"
		" w AS (DELETE FROM sendcampaign.witness USING r WHERE witness.run_id = r.id),"
		" b AS (DELETE FROM sendcampaign.batch USING r WHERE batch.run_id = r.id),"
		" t AS (DELETE FROM sendcampaign.chosen USING r WHERE chosen.run_id = r.id),"
		" c AS (DELETE FROM sendcampaign.claim USING r WHERE claim.run_id = r.id)"
		" SELECT count(*) FROM r",
		5, types, values, NULL);
	count = spi_int64(0, 1);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_INT64(count);
}

/* The number as it is in messages: in E.164, or as it was in the list. */
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
fail_number_is_needed(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE), errmsg("the number cannot be forgotten yet"),
			 errdetail(detail, (long long) spi_int64(0, 1)),
			 errhint("Try again when that run has ended; what a failed run has left is settled when"
					 " it goes on, or gone with sendcampaign.forget().")));
}

/*
 * Without the number nobody could tell any more whether a message went to it,
 * and it might be sent again.
 */
static void
check_is_not_needed(Oid *types, Datum *values)
{
	if (own_query("SELECT r.job_id FROM " RUNS_OF_CALLER
				  " JOIN sendcampaign.claim c ON c.run_id = r.id WHERE c.phones && $3 LIMIT 1",
				  5, types, values, NULL) > 0)
		fail_number_is_needed("A message of job %lld to it may be under way.");
	if (own_query("SELECT r.job_id FROM " RUNS_OF_CALLER
				  " JOIN sendcampaign.witness w ON w.run_id = r.id WHERE w.phone = ANY ($3)"
				  " AND (r.finished_at IS NULL OR r.state = 'failed') LIMIT 1",
				  5, types, values, NULL) > 0)
		fail_number_is_needed("That a message of job %lld to it was sent is known by it only.");
}

/* sendcampaign.forget_recipient(phone text) returns bigint */
Datum
sendcampaign_forget_recipient(PG_FUNCTION_ARGS)
{
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), 0,
					  system_identifier(), ObjectIdGetDatum(MyDatabaseId)};
	int64 count;

	check_writable("sendcampaign.forget_recipient()");
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	values[2] = spellings(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	check_is_not_needed(types, values);
	count = (int64) own_query(
		"UPDATE sendcampaign.message_data SET phone = NULL, sid = NULL, error_message = NULL"
		" FROM " RUNS_OF_CALLER " WHERE r.id = message_data.run_id"
		" AND message_data.phone = ANY ($3)",
		5, types, values, NULL);
	(void) own_query("UPDATE sendcampaign.run_data SET test_phone = ''"
					 " WHERE test_phone = ANY ($3) AND finished_at IS NOT NULL AND" IS_FOR_CALLER,
					 5, types, values, NULL);
	(void) own_query("DELETE FROM sendcampaign.witness USING " RUNS_OF_CALLER
					 " WHERE r.id = witness.run_id AND witness.phone = ANY ($3)",
					 5, types, values, NULL);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_INT64(count);
}
