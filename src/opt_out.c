/*-------------------------------------------------------------------------
 *
 * opt_out.c
 *	  Who wants no more messages: opt_out(), opt_in(), opt_outs(), and what
 *	  comes of it.
 *
 * It is asked when a message is claimed, so that a STOP that was committed a
 * moment ago counts for all that are not claimed yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "guard.h"
#include "home.h"
#include "miscadmin.h"
#include "opt_out.h"
#include "own.h"
#include "queue.h"
#include "phone.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(sendcampaign_opt_out);
PG_FUNCTION_INFO_V1(sendcampaign_opt_in);
PG_FUNCTION_INFO_V1(sendcampaign_opt_outs);

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

typedef struct OwnCall
{
	OwnStatement *statement;
	Datum		 *values;
} OwnCall;

static void
execute_call(void *arg)
{
	OwnCall *call = arg;

	(void) own_execute(call->statement, call->values, NULL);
}

/*
 * In a subtransaction: somebody who writes one of them down just now, and
 * takes his time until he commits, must not keep us from recording outcomes.
 * What is left out for that, he has written, or Twilio says once more.
 */
static void
insert_if_not_locked(OwnStatement *statement, Datum *values)
{
	OwnCall	   call = {statement, values};
	ErrorData *error = attempt(execute_call, &call);

	if (error == NULL)
		return;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	ereport(LOG,
			(errmsg("sendcampaign: opt-outs are not written down, as others have them locked")));
}

void
store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, Oid role)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.opt_out_data (phone, schema, group_id, reason, role, role_oid)"
		" SELECT DISTINCT u.phone, $2::name, $3, $4, $5::name, $6 FROM unnest($1) u(phone)"
		" ORDER BY 1 ON CONFLICT DO NOTHING",
		6,
		{TEXTARRAYOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, OIDOID}};
	Datum values[] = {phones,
					  CStringGetTextDatum(campaign->tables->schema),
					  Int64GetDatum(campaign->group->id),
					  CStringGetTextDatum(reason),
					  CStringGetTextDatum(GetUserNameFromId(role, false)),
					  ObjectIdGetDatum(role)};

	insert_if_not_locked(&statement, values);
}

/*
 * What an administrator grants, as it stops everybody's messages.  Nobody
 * inserts through the view, so the right means nothing else.
 */
static void
check_may_opt_out_of_all(void)
{
	Oid view = get_relname_relid("opt_out", get_namespace_oid("sendcampaign", false));

	if (OidIsValid(view) && pg_class_aclcheck(view, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		return;
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("permission denied to opt a phone out of all groups"),
					errdetail("That stops the messages of all roles."),
					errhint("Pass the group, or have an administrator GRANT INSERT ON"
							" sendcampaign.opt_out TO %s;",
							quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

/* The arguments of both functions: phone, schema, group; null: all groups. */
static void
read_arguments(FunctionCallInfo fcinfo, Datum *values, char *nulls)
{
	bool  all = PG_ARGISNULL(1);
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
	Oid	   types[] = {TEXTOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, OIDOID};
	Datum  values[6];
	char   nulls[] = "      ";
	uint64 count;

	check_writable("sendcampaign.opt_out()");
	read_arguments(fcinfo, values, nulls);
	values[3] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	nulls[3] = PG_ARGISNULL(2) ? 'n' : ' ';
	values[4] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[5] = ObjectIdGetDatum(GetUserId());
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	if (PG_ARGISNULL(1))
		check_may_opt_out_of_all();
	else
		tables_check_group(sendcampaign_schema, PG_GETARG_INT64(1));
	count = own_query(
		"INSERT INTO sendcampaign.opt_out_data (phone, schema, group_id, reason, role, role_oid)"
		" VALUES ($1, $2::name, $3, $4, $5::name, $6) ON CONFLICT DO NOTHING",
		6, types, values, nulls);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_BOOL(count > 0);
}

/* The rows that opt_in() is about. */
#define ROWS_OF_PHONE                                                                              \
	" o.phone OPERATOR(pg_catalog.=) $1 AND ($3 IS NULL OR (o.schema OPERATOR(pg_catalog.=) $2"    \
	"  AND o.group_id OPERATOR(pg_catalog.=) $3))"

/* Those of them that the caller ($4, a superuser if $5) may take back. */
static uint64
delete_own(const Datum *values, const char *nulls)
{
	Oid	  types[] = {TEXTOID, NAMEOID, INT8OID, OIDOID, BOOLOID, NUMERICOID};
	Datum all[] = {values[0],
				   values[1],
				   values[2],
				   ObjectIdGetDatum(GetUserId()),
				   BoolGetDatum(superuser()),
				   system_identifier()};
	char  all_nulls[] = {nulls[0], nulls[1], nulls[2], ' ', ' ', ' '};

	return own_query("DELETE FROM sendcampaign.opt_out_data o WHERE" ROWS_OF_PHONE
					 " AND ($5 OR CASE WHEN o.system_identifier = $6"
					 "  THEN pg_has_role($4, o.role_oid, 'MEMBER')"
					 "  ELSE o.role IN (SELECT r.rolname FROM pg_roles r"
					 "   WHERE pg_has_role($4, r.oid, 'MEMBER')) END)",
					 6, types, all, all_nulls);
}

/* Whom the caller may see of those who have written down the same, or more. */
static void
tell_who_is_left(const Datum *values, const char *nulls, bool deleted)
{
	Oid	  types[] = {TEXTOID, NAMEOID, INT8OID};
	Datum copy[] = {values[0], values[1], values[2]};
	bool  same;

	spi_check(SPI_execute_with_args(
				  "SELECT o.role::pg_catalog.text, coalesce((" ROWS_OF_PHONE "), false)"
				  " FROM sendcampaign.opt_out o WHERE o.phone OPERATOR(pg_catalog.=) $1"
				  " AND (o.group_id IS NULL OR" ROWS_OF_PHONE ") ORDER BY 2 DESC, 1 LIMIT 1",
				  3, types, copy, nulls, false, 1),
			  SPI_OK_SELECT, "could not read opt-outs");
	if (SPI_processed == 0)
		return;
	same = spi_bool(0, 2);
	if (same && !deleted)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("another role has written down that this phone opted out"),
						errdetail("It is role \"%s\".", spi_string(0, 1)),
						errhint("Only members of that role can take it back.")));
	ereport(NOTICE, (errmsg("the phone is still opted out"),
					 errdetail(same ? "Role \"%s\" has written that down as well."
									: "Role \"%s\" has written that down for all groups.",
							   spi_string(0, 1))));
}

/* sendcampaign.opt_in(phone text, group_id bigint) */
Datum
sendcampaign_opt_in(PG_FUNCTION_ARGS)
{
	Datum  values[3];
	char   nulls[3];
	uint64 count;

	check_writable("sendcampaign.opt_in()");
	read_arguments(fcinfo, values, nulls);
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(sendcampaign_schema));
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	count = delete_own(values, nulls);
	tell_who_is_left(values, nulls, count > 0);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_BOOL(count > 0);
}

/* sendcampaign.opt_outs(group_id bigint) */
Datum
sendcampaign_opt_outs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			   types[] = {TEXTOID, INT8OID};
	Datum		   values[] = {CStringGetTextDatum(sendcampaign_schema), PG_GETARG_DATUM(0)};
	uint64		   count;

	InitMaterializedSRF(fcinfo, 0);
	spi_check(SPI_connect(), SPI_OK_CONNECT, "SPI_connect");
	tables_check_group(sendcampaign_schema, PG_GETARG_INT64(0));
	count = own_query("SELECT phone, group_id IS NULL, reason, role, created_at"
					  " FROM sendcampaign.opt_out_data"
					  " WHERE group_id IS NULL OR (schema = $1::name AND group_id = $2)"
					  " ORDER BY phone, created_at",
					  2, types, values, NULL);
	for (uint64 i = 0; i < count; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	spi_check(SPI_finish(), SPI_OK_FINISH, "SPI_finish");
	PG_RETURN_NULL();
}
