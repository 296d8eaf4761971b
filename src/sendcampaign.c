/*-------------------------------------------------------------------------
 *
 * sendcampaign.c
 *	  What happens when the library is loaded; version().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/builtins.h"
#include "worker/launcher.h"
#include "worker/start_worker.h"

PG_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	define_settings();
	register_start_callbacks();

	/* the servers that pg_upgrade starts must not send anything */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
		register_launcher();
}

PG_FUNCTION_INFO_V1(sendcampaign_version);

/* sendcampaign.version() returns text */
Datum
sendcampaign_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(SENDCAMPAIGN_VERSION));
}
