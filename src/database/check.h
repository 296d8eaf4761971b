/*-------------------------------------------------------------------------
 *
 * check.h
 *	  Are the application's tables such that a campaign can be sent?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CHECK_H
#define SENDCAMPAIGN_CHECK_H

#include "database/app_tables.h"

/*
 * Throws, naming table and column, where one that a run needs is missing, has
 * a type that does not fit, or cannot be written.  It looks at the catalogs
 * alone, so it costs little.
 */
extern void tables_check_columns(const AppTables *tables);

/*
 * Throws with a hint where this role may not write a column that sending
 * writes.  That it has a right on the table, or on some columns, is known.
 */
extern void tables_check_column_rights(const AppTables *tables, Oid role);

/* Throws with a hint where sending needs what this role, or the tables, lack. */
extern void tables_check_rights(const AppTables *tables, Oid role, bool creates_job);

#endif /* SENDCAMPAIGN_CHECK_H */
