/*-------------------------------------------------------------------------
 *
 * opt_out.c
 *	  Who wants no more messages: opt_out(), opt_in(), and what comes of it.
 *
 * It is asked when a message is claimed, so that a STOP that was committed a
 * moment ago counts for all that are not claimed yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "opt_out.h"
#include "own.h"
#include "queue.h"
#include "render.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(sendcampaign_opt_out);
PG_FUNCTION_INFO_V1(sendcampaign_opt_in);

/* The phones of those who would get a message, text[]. */
static Datum
phones_of(const Recipient *recipients, int count)
{
	char **phones = palloc(Max(count, 1) * sizeof(char *));
	int	   num_phones = 0;

	for (int i = 0; i < count; i++)
	{
		if (recipients[i].skip == NOT_SKIPPED)
			phones[num_phones++] = recipients[i].phone;
	}
	return make_text_array(phones, num_phones);
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

void
skip_opted_out(const Campaign *campaign, Recipient *recipients, int count)
{
	static OwnStatement statement = {
		"SELECT phone FROM sendcampaign.opt_out_data WHERE phone = ANY ($1)"
		" AND (group_id IS NULL OR (group_id = $2 AND schema = $3::name))",
		3,
		{TEXTARRAYOID, INT8OID, TEXTOID}};
	Datum		  values[] = {phones_of(recipients, count), Int64GetDatum(campaign->group->id),
							  CStringGetTextDatum(campaign->tables->schema)};
	MemoryContext context = CurrentMemoryContext;
	int			  found = (int) own_execute(&statement, values, NULL);
	char		**opted_out;

	MemoryContextSwitchTo(context); /* SPI leaves us in its own */
	opted_out = palloc(Max(found, 1) * sizeof(char *));
	for (int i = 0; i < found; i++)
		opted_out[i] = spi_string(i, 1);
	qsort(opted_out, found, sizeof(char *), compare_strings);
	for (int i = 0; found > 0 && i < count; i++)
	{
		if (recipients[i].phone &&
			bsearch(&recipients[i].phone, opted_out, found, sizeof(char *), compare_strings))
			recipient_skip(&recipients[i], SKIP_OPTED_OUT, "opted out");
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * In a subtransaction: somebody who writes one of them down just now, and
 * takes his time until he commits, must not keep us from recording outcomes.
 * What is left out for that, he has written, or Twilio says once more.
 */
static void
insert_if_not_locked(OwnStatement *statement, Datum *values)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		(void) own_execute(statement, values, NULL);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(error);
		ereport(
			LOG,
			(errmsg("sendcampaign: opt-outs are not written down, as others have them locked")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

void
store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, const char *role)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.opt_out_data (phone, schema, group_id, reason, role)"
		" SELECT DISTINCT u.phone, $2::name, $3, $4, $5::name FROM unnest($1) u(phone) ORDER BY 1"
		" ON CONFLICT DO NOTHING",
		5,
		{TEXTARRAYOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};
	Datum values[] = {phones, CStringGetTextDatum(campaign->tables->schema),
					  Int64GetDatum(campaign->group->id), CStringGetTextDatum(reason),
					  CStringGetTextDatum(role)};

	insert_if_not_locked(&statement, values);
}

/* The arguments of both functions: phone, schema, group; null: all groups. */
static void
read_arguments(FunctionCallInfo fcinfo, Datum *values, char *nulls)
{
	bool all = PG_ARGISNULL(1);

	char *phone = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	values[0] = CStringGetTextDatum(require_phone(phone));
	values[1] = CStringGetTextDatum(sendcampaign_schema);
	values[2] = all ? (Datum) 0 : PG_GETARG_DATUM(1);
	nulls[0] = ' ';
	nulls[1] = nulls[2] = all ? 'n' : ' ';
}

/* sendcampaign.opt_out(phone text, group_id bigint, reason text) */
Datum
sendcampaign_opt_out(PG_FUNCTION_ARGS)
{
	Oid	   types[] = {TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID};
	Datum  values[5];
	char   nulls[] = "     ";
	uint64 count;

	check_writable("sendcampaign.opt_out()");
	read_arguments(fcinfo, values, nulls);
	values[3] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	nulls[3] = PG_ARGISNULL(2) ? 'n' : ' ';
	values[4] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	count = own_query(
		"INSERT INTO sendcampaign.opt_out_data (phone, schema, group_id, reason, role)"
		" VALUES ($1, $2::name, $3, $4, $5::name) ON CONFLICT DO NOTHING",
		5, types, values, nulls);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_BOOL(count > 0);
}

/* The rows that opt_in() takes back. */
#define OPTED_OUT_ROWS "phone = $1 AND ($3 IS NULL OR (schema = $2::name AND group_id = $3))"

/* What a role has written down, only its members may take back. */
static void
check_may_opt_in(const Datum *values, const char *nulls)
{
	Oid	  types[] = {TEXTOID, TEXTOID, INT8OID, OIDOID};
	Datum with_user[] = {values[0], values[1], values[2], ObjectIdGetDatum(GetUserId())};
	char  with_nulls[] = {nulls[0], nulls[1], nulls[2], ' '};

	if (own_query(
			"SELECT FROM sendcampaign.opt_out_data o LEFT JOIN pg_roles r ON r.rolname = o.role"
			" WHERE " OPTED_OUT_ROWS " AND NOT coalesce(pg_has_role($4, r.oid, 'MEMBER'), false)",
			4, types, with_user, with_nulls) > 0 &&
		!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("another role has written down that this phone opted out"),
						errhint("Only members of that role can take it back.")));
}

/* sendcampaign.opt_in(phone text, group_id bigint) */
Datum
sendcampaign_opt_in(PG_FUNCTION_ARGS)
{
	Oid	   types[] = {TEXTOID, TEXTOID, INT8OID};
	Datum  values[3];
	char   nulls[3];
	uint64 count;

	check_writable("sendcampaign.opt_in()");
	read_arguments(fcinfo, values, nulls);
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	check_may_opt_in(values, nulls);
	count = own_query("DELETE FROM sendcampaign.opt_out_data WHERE " OPTED_OUT_ROWS, 3, types,
					  values, nulls);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_BOOL(count > 0);
}
