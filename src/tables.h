/*-------------------------------------------------------------------------
 *
 * tables.h
 *	  The application's tables, and all SQL on them.
 *
 * Every statement here runs with the rights of the current role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TABLES_H
#define SENDCAMPAIGN_TABLES_H

#include "executor/spi.h"

/*
 * The tables of one schema with their plans, each prepared at first use.
 * Lives in the memory context it was opened in; the plans live until
 * tables_close.
 */
typedef struct AppTables
{
	const char *schema;
	Oid			groups;
	Oid			lists;
	Oid			campaigns;
	Oid			list_users;
	Oid			jobs;
	List	   *keys; /* char *, of personal texts */
	SPIPlanPtr	read_group;
	SPIPlanPtr	read_recipients;
	SPIPlanPtr	count_sent;
	SPIPlanPtr	lock_recipients;
	SPIPlanPtr	report_progress;
	SPIPlanPtr	report_end;
} AppTables;

/* Throws with a hint where the schema, a table or a column is missing. */
extern AppTables *tables_open(const char *schema);
extern void		  tables_close(AppTables *tables);

/* Throws with a hint where this role lacks a right that sending needs. */
extern void tables_check_rights(const AppTables *tables, Oid role, bool creates_job);

/* Throws where one of the tables leads to code that the role has no reason to trust. */
extern void tables_check_trust(const AppTables *tables, Oid role);

/* Likewise: that code, as find_foreign_code has it, or NULL. */
extern char *tables_find_foreign_code(const AppTables *tables, Oid role);

/*
 * Throws where the schema has no such group that the current role may see.
 * For a superuser nothing is looked at, as that may run code.
 */
extern void tables_check_group(const char *schema, int64 group_id);

/*
 * For all below, SPI must be connected; results are in SPI_tuptable.  For a
 * superuser they throw where code would run that belongs to somebody else.
 */

extern bool	 tables_has_campaign(const AppTables *tables, int64 campaign_id);
extern bool	 tables_has_job(const AppTables *tables, int64 job_id);
extern int64 tables_create_job(const AppTables *tables);
/* Clears what an earlier attempt left in the job. */
extern void tables_reopen_job(const AppTables *tables, int64 job_id);

/* One row: message text, base URL text, list id bigint; none if it is gone. */
extern uint64 tables_read_campaign(const AppTables *tables, int64 campaign_id);

/* One row; group.c has its columns. */
extern void tables_read_group(AppTables *tables, int64 campaign_id, int64 list_id);

/* A portal over the ids (bigint) of a list's users, in their order. */
extern Portal tables_open_list(const AppTables *tables, int64 list_id);

/* A portal over their ids and phones (text, as they are), in any order. */
extern Portal tables_open_phones(const AppTables *tables, int64 list_id);

/*
 * The keys (char *) of list users whose values tables_read_recipients is to
 * read from now on; they are the caller's.
 */
extern void tables_want_keys(AppTables *tables, List *keys);

/*
 * A row for each of the ids, in their order: id bigint, exists bool, in the
 * list bool, phone text, time zone text, and the values of the keys, text[].
 */
extern uint64 tables_read_recipients(AppTables *tables, Datum ids, int64 list_id);

/* Adds one to sentCount of each of these list users. */
extern void tables_count_sent(AppTables *tables, Datum ids);

/*
 * Locks those of the list users that nobody else has locked; a row for each
 * that exists: id bigint, locked bool.
 */
extern uint64 tables_lock_recipients(AppTables *tables, Datum ids);

/* Locks all of them that may be updated; throws where one is locked. */
extern void tables_lock_all(const AppTables *tables, Datum ids);

/* Merges counts (a jsonb object) into the job's data and sets its progress. */
extern void tables_report_progress(AppTables *tables, int64 job_id, int progress, Datum counts);

/*
 * The same, and sets its error; a progress of -1 leaves it as it is.  Returns
 * the number of rows updated.
 */
extern uint64 tables_report_end(AppTables *tables, int64 job_id, int progress, Datum counts,
								const char *error);

/* Merges counts into the job's data, unless somebody has it locked. */
extern void tables_report_if_free(const AppTables *tables, int64 job_id, Datum counts);

#endif /* SENDCAMPAIGN_TABLES_H */
