/*-------------------------------------------------------------------------
 *
 * opt_out.c
 *	  opt_out(), opt_in() and opt_outs(): who wants no more messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "campaign/phone.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "database/app_tables.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(sendcampaign_opt_out);
PG_FUNCTION_INFO_V1(sendcampaign_opt_in);
PG_FUNCTION_INFO_V1(sendcampaign_opt_outs);

/*
 * An administrator grants this, as it stops messages of all roles.  Nobody
 * inserts through the view, so the right has no other meaning.
 */
static void
check_may_opt_out_of_all(void)
{
	Oid view = get_relname_relid("opt_out", get_namespace_oid("sendcampaign", false));

	if (OidIsValid(view) && pg_class_aclcheck(view, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to opt a phone number out of all groups"),
			 errdetail("This stops the messages of all roles."),
			 errhint("Pass a group, or have an administrator use GRANT INSERT ON"
					 " sendcampaign.opt_out TO %s.",
					 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

/* Reads the arguments of both functions: phone, schema, group; null: all groups. */
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
	spi_connect();
	if (PG_ARGISNULL(1))
		check_may_opt_out_of_all();
	else
		tables_check_group(sendcampaign_schema, PG_GETARG_INT64(1));
	count = own_query(
		"INSERT INTO sendcampaign.opt_out_data AS o"
		" (phone, schema, group_id, reason, role, role_oid)"
		" VALUES ($1, $2::name, $3, $4, $5::name, $6)"
		" ON CONFLICT (phone, schema, group_id, role_oid) DO UPDATE SET source = 'person',"
		"  reason = excluded.reason, created_at = excluded.created_at WHERE o.source <> 'person'",
		6, types, values, nulls);
	spi_finish();
	PG_RETURN_BOOL(count > 0);
}

/* The rows that opt_in() deletes, if it may. */
#define ROWS_OF_PHONE                                                                              \
	" o.phone OPERATOR(pg_catalog.=) $1 AND ($3 IS NULL OR (o.schema OPERATOR(pg_catalog.=) $2"    \
	"  AND o.group_id OPERATOR(pg_catalog.=) $3))"

/* Deletes those that the caller ($4; a superuser if $5) may delete. */
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

/*
 * Tells the caller of another role, among those visible to it, that has
 * recorded the same opt-out or one for all groups; throws if nothing was
 * deleted.
 */
static void
tell_who_is_left(const Datum *values, const char *nulls, bool deleted)
{
	Oid		types[] = {TEXTOID, NAMEOID, INT8OID};
	Datum	copy[] = {values[0], values[1], values[2]};
	SpiCall call = {3, types, copy, nulls, .limit = 1};
	bool	same;

	if (spi_query("SELECT o.role::pg_catalog.text, coalesce((" ROWS_OF_PHONE "), false)"
				  " FROM sendcampaign.opt_out o WHERE o.phone OPERATOR(pg_catalog.=) $1"
				  " AND (o.group_id IS NULL OR" ROWS_OF_PHONE ") ORDER BY 2 DESC, 1 LIMIT 1",
				  &call) == 0)
		return;
	same = spi_bool(0, 2);
	if (same && !deleted)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the phone number was opted out by role \"%s\"", spi_string(0, 1)),
				 errhint("Only members of that role can opt it in again.")));
	ereport(NOTICE,
			(errmsg("the phone number is still opted out"),
			 same
				? errdetail("Role \"%s\" has opted it out, too.", spi_string(0, 1))
				: errdetail("Role \"%s\" has opted it out of all groups.", spi_string(0, 1))));
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
	spi_connect();
	count = delete_own(values, nulls);
	tell_who_is_left(values, nulls, count > 0);
	spi_finish();
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
	spi_connect();
	tables_check_group(sendcampaign_schema, PG_GETARG_INT64(0));
	count = own_query("SELECT phone, group_id IS NULL, reason, role, created_at"
					  " FROM sendcampaign.opt_out_data"
					  " WHERE group_id IS NULL OR (schema = $1::name AND group_id = $2)"
					  " ORDER BY phone, created_at",
					  2, types, values, NULL);
	for (uint64 i = 0; i < count; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	spi_finish();
	PG_RETURN_NULL();
}
