/*-------------------------------------------------------------------------
 *
 * sendcampaign.c
 *	  What happens when the library is loaded; version().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "settings.h"
#include "twilio/classify.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
#include "worker/courier.h"
#include "worker/launcher.h"
#include "worker/start_worker.h"

PG_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	define_settings();
	register_start_callbacks();
	register_courier_callbacks();

	/* the servers that pg_upgrade starts must not send anything */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
		register_launcher();
}

PG_FUNCTION_INFO_V1(sendcampaign_version);
PG_FUNCTION_INFO_V1(sendcampaign_error_codes);

/* sendcampaign.version() returns text */
Datum
sendcampaign_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(SENDCAMPAIGN_VERSION));
}

/*
 * sendcampaign.error_codes(OUT code integer, OUT description text, OUT
 * what_to_do text) returns setof record: for the extension's script, which fills
 * sendcampaign.error_code
 */
Datum
sendcampaign_error_codes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			   code;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; (code = known_error_code(i)) != 0; i++)
	{
		Datum values[] = {Int32GetDatum(code), CStringGetTextDatum(describe_error_code(code)),
						  CStringGetTextDatum(advise_on_error_code(code))};
		bool  nulls[] = {false, false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}
