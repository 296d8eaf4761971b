/*-------------------------------------------------------------------------
 *
 * bucket.c
 *	  bucket(): divides list users into parts that never change.
 *
 * Who is in which part must be the same in all versions and on all machines, as
 * people send to one part now, and to another one later.  So the hash is one
 * that others can compute as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

PG_FUNCTION_INFO_V1(sendcampaign_bucket);

/* Returns the first eight bytes of SHA-256, as a number. */
static uint64
hash_of(const char *text)
{
	Datum				 hash = DirectFunctionCall1(sha256_bytea, CStringGetTextDatum(text));
	const unsigned char *bytes = (const unsigned char *) VARDATA_ANY(DatumGetByteaPP(hash));
	uint64				 number = 0;

	for (int i = 0; i < 8; i++)
		number = number << 8 | bytes[i];
	return number;
}

/* sendcampaign.bucket(list_user_id bigint, salt text, buckets integer) returns integer */
Datum
sendcampaign_bucket(PG_FUNCTION_ARGS)
{
	char *salt = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int32 buckets = PG_GETARG_INT32(2);

	if (buckets < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of buckets must be at least 1"),
				 errhint("Pass the number of parts into which list users are to be divided.")));
	salt = pg_server_to_any(salt, strlen(salt), PG_UTF8);
	PG_RETURN_INT32(hash_of(psprintf("%s:%lld", salt, (long long) PG_GETARG_INT64(0))) % buckets);
}
