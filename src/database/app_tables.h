/*-------------------------------------------------------------------------
 *
 * app_tables.h
 *	  The application's tables, and all SQL on them.
 *
 * Every statement here runs with the rights of the current role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_APP_TABLES_H
#define SENDCAMPAIGN_APP_TABLES_H

#include "compat.h"
#include "database/spi.h"

/*
 * Nothing that a row says is read beyond so many characters, and one: a value
 * of hundreds of megabytes is as wrong as a longer one than these, and no
 * batch of such rows may take all memory.  Twilio takes texts of 1600.
 */
#define MAX_PHONE 100
#define MAX_VALUE 1600
#define MAX_TEXT  16000

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
	Oid			only_in; /* sentCount is added in this table of list users; or 0 */
	List	   *keys;	 /* char *, of personal texts */
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

/* What a campaign's row says; strings are palloc'd, or NULL. */
typedef struct CampaignRow
{
	char *message;
	char *base_url;
	bool  has_list;
	int64 list_id;
} CampaignRow;

/* False where it is gone. */
extern bool tables_read_campaign(const AppTables *tables, int64 campaign_id, CampaignRow *row);

/* Texts that a group's configuration may have. */
typedef enum GroupKey
{
	ACCOUNT_SID,
	AUTH_TOKEN,
	API_KEY_SID,
	API_KEY_SECRET,
	NUMBERS, /* in an array of their own */
	MESSAGING_SERVICE_SID,
	MESSAGES_PER_SECOND,
	QUIET_FROM,
	QUIET_TO,
	TIME_ZONE,
	NUM_GROUP_KEYS
} GroupKey;

/* What the rows of a campaign, its list and its group say, likewise. */
typedef struct GroupRow
{
	bool		campaign_exists;
	bool		campaign_deleted;
	bool		list_exists;
	bool		list_deleted;
	bool		group_exists;
	bool		group_deleted;
	int64		group_id;
	char	   *values[NUM_GROUP_KEYS];
	char	  **numbers;
	int			num_numbers;
	bool		has_end;
	TimestampTz send_until;
} GroupRow;

extern void tables_read_group(AppTables *tables, int64 campaign_id, int64 list_id, GroupRow *row);

/* Of a group with more senders, only so many and one are read. */
#define MAX_SENDERS 1000

/*
 * A portal over the ids (bigint) of a list's users, in their order; an id may
 * be there twice, or be null.
 */
extern Portal tables_open_list(const AppTables *tables, int64 list_id);

/* A portal over their ids and phones (text, as they are), in any order. */
extern Portal tables_open_phones(const AppTables *tables, int64 list_id);

/* Throws: the table has two list users with this id. */
pg_noreturn extern void tables_fail_twice(const AppTables *tables, int64 list_user_id);

/*
 * The keys (char *) of list users whose values tables_read_recipients is to
 * read from now on; they are the caller's.
 */
extern void tables_want_keys(AppTables *tables, List *keys);

/*
 * Plans all that a run uses, so that what is wrong with the tables is found
 * before anything is sent.
 */
extern void tables_plan(AppTables *tables);

/* Throws an error that may pass where another table has got its name since. */
extern void tables_check_not_replaced(const AppTables *tables);

/*
 * Throws where the table of the list users is not, or no more, this one: the
 * ids of another table are other people's.
 */
extern void tables_check_list_users(const AppTables *tables, Oid list_users);

/* What a list user's row says, likewise; one that is gone does not exist. */
typedef struct RecipientRow
{
	int64  id;
	bool   in_list;
	bool   exists;
	bool   deleted;
	char  *phone;
	char  *time_zone;
	char **values; /* of the keys that are wanted, in their order; or NULL */
} RecipientRow;

/*
 * A row for each of so many ids (bigint[]), in their order, palloc'd.  Throws
 * where the list has one of them twice.
 */
extern RecipientRow *tables_read_recipients(AppTables *tables, Datum ids, int count, int64 list_id);

/*
 * Adds one to sentCount of each of these users of the list, or who were so
 * when they were read.  Returns those
 * (bigint[]) whose row is there and was left as it is, by a trigger, a rule or
 * a policy; 0 for none.  Throws where the list has one of them twice.
 */
extern Datum tables_count_sent(AppTables *tables, Datum *ids, int count, int64 list_id);

/*
 * Locks those of so many users of the list (bigint[]) that nobody else has
 * locked, and returns the ids of those that it could not, palloc'd.
 */
extern Datum *tables_lock_recipients(AppTables *tables, Datum ids, int count, int64 list_id,
									 int *num_locked);

/* Locks all of them that may be updated; throws where one is locked. */
extern void tables_lock_all(const AppTables *tables, Datum ids, int64 list_id);

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

/*
 * Writes an error of a run that goes on, with its counts; or, where that is
 * NULL, takes back the one it was told, if it has that still.  False where
 * somebody has the job locked, or it is gone.
 */
extern bool tables_report_trouble(const AppTables *tables, int64 job_id, Datum counts,
								  const char *error, const char *told);

/* Throws: the campaign is not there, or not for this role. */
pg_noreturn extern void tables_fail_no_campaign(const AppTables *tables, int64 campaign_id);

#endif /* SENDCAMPAIGN_APP_TABLES_H */
