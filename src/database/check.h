/*-------------------------------------------------------------------------
 *
 * check.h
 *	  Checks that the application's tables are suitable for sending a campaign.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CHECK_H
#define SENDCAMPAIGN_CHECK_H

#include "database/app_tables.h"

/*
 * Throws an error that names table and column if a column that a run needs is
 * missing, has an unsuitable type, or cannot be written.  Cheap: it only reads
 * the catalogs.
 */
extern void tables_check_columns(const AppTables *tables);

/*
 * Throws an error with a hint if the role may not write a column that sending
 * writes.  The caller has checked its rights on the tables, or on some
 * columns.
 */
extern void tables_check_column_rights(const AppTables *tables, Oid role);

/*
 * Throws an error with a hint if the role lacks a right that sending needs, or
 * if the tables are unsuitable.
 */
extern void tables_check_rights(const AppTables *tables, Oid role, bool creates_job);

#endif /* SENDCAMPAIGN_CHECK_H */
