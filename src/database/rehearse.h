/*-------------------------------------------------------------------------
 *
 * rehearse.h
 *	  Whether the statements of a run can be executed, found out at the call.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_REHEARSE_H
#define SENDCAMPAIGN_REHEARSE_H

#include "database/app_tables.h"

/*
 * Plans the statements of a run, as the current role, and throws an error with
 * a hint if one of them cannot be planned; or if it "will_send", and a right is
 * missing for one of them, or it can update no row.  Executes nothing of them,
 * and does nothing if all tables are ordinary ones, about which check.h knows
 * enough, or on a standby.  SPI must be connected.
 */
extern void tables_rehearse(AppTables *tables, bool will_send);

#endif /* SENDCAMPAIGN_REHEARSE_H */
