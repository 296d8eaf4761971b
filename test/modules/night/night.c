/*
 * night.c
 *		The extension only asks whether it is quiet hours now.  This lets a
 *		test ask for any time.
 */
#include "../../../src/campaign/quiet.c"

#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(night_ends);
PG_FUNCTION_INFO_V1(night_begins);

/* Arguments: from and to in seconds of the day, zone, time. */
static TimestampTz
ask(FunctionCallInfo fcinfo, TimestampTz *night)
{
	QuietHours hours = {PG_GETARG_INT32(0), PG_GETARG_INT32(1)};
	pg_tz	  *zone = pg_tzset(text_to_cstring(PG_GETARG_TEXT_PP(2)));

	if (zone == NULL)
		elog(ERROR, "unknown zone");
	return end_of_night(&hours, zone, PG_GETARG_TIMESTAMPTZ(3), night);
}

/* Null if it is not quiet hours. */
Datum
night_ends(PG_FUNCTION_ARGS)
{
	TimestampTz night;
	TimestampTz end = ask(fcinfo, &night);

	if (end == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(end);
}

/* Null during quiet hours, and if there are none. */
Datum
night_begins(PG_FUNCTION_ARGS)
{
	TimestampTz night;
	TimestampTz end = ask(fcinfo, &night);

	if (end != 0 || night == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(night);
}
