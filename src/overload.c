/*-------------------------------------------------------------------------
 *
 * overload.c
 *	  send_campaign() for arguments of other types.
 *
 * PostgreSQL prefers a function that fits the types of a call exactly, so
 * somebody else's send_campaign(integer) would be called in place of ours by
 * send_campaign(1).  These take the place of all that fit better than
 * send_campaign(bigint, bigint): nobody else can create them in its schema.
 * They call it, and may be called by whoever may call it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(sendcampaign_overload);

/* send_campaign(bigint, bigint), in the same schema. */
static Oid
function_itself(Oid overload)
{
	Oid		  types[] = {INT8OID, INT8OID};
	char	 *name = get_func_name(overload);
	HeapTuple tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name),
									  PointerGetDatum(buildoidvector(types, lengthof(types))),
									  ObjectIdGetDatum(get_func_namespace(overload)));
	Oid		  function;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function %s(bigint, bigint) does not exist", name)));
	function = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
	ReleaseSysCache(tuple);
	if (!compat_can_execute(function, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, name);
	return function;
}

/* A number, or the text of one. */
static int64
number_of(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		case TEXTOID:
			return DatumGetInt64(
				DirectFunctionCall1(int8in, CStringGetDatum(TextDatumGetCString(value))));
		default:
			elog(ERROR, "unexpected type %u", type);
	}
}

/* send_campaign(campaign_id, job_id), of any of these types; job_id may be left out */
Datum
sendcampaign_overload(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(call, 2);
	FmgrInfo function;
	Oid		*types;
	int		 nargs;
	Datum	 job_id;

	fmgr_info(function_itself(fcinfo->flinfo->fn_oid), &function);
	InitFunctionCallInfoData(*call, &function, 2, InvalidOid, NULL, NULL);
	(void) get_func_signature(fcinfo->flinfo->fn_oid, &types, &nargs);
	for (int i = 0; i < 2; i++)
	{
		call->args[i].isnull = i >= nargs || PG_ARGISNULL(i);
		call->args[i].value = call->args[i].isnull
								  ? (Datum) 0
								  : Int64GetDatum(number_of(PG_GETARG_DATUM(i), types[i]));
	}
	job_id = FunctionCallInvoke(call);
	fcinfo->isnull = call->isnull;
	return job_id;
}
