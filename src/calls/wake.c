/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  wake(): makes unfinished runs continue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "database/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"
#include "worker/courier.h"
#include "worker/scan.h"

PG_FUNCTION_INFO_V1(sendcampaign_wake);

/* sendcampaign.wake() returns integer */
Datum
sendcampaign_wake(PG_FUNCTION_ARGS)
{
	int started;

	check_writable("sendcampaign.wake()");
	spi_connect();
	started = sendcampaign_enabled ? start_workers_for_queue(superuser()) : 0;
	start_courier_if_needed();
	spi_finish();
	PG_RETURN_INT32(started);
}
