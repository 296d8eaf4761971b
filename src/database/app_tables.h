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
#include "database/trust.h"

/*
 * Limits, in characters, on the values that are read from a row; one character
 * more is read, so that a longer value is recognized.  Values of hundreds of
 * megabytes are as wrong as slightly too long ones, and a batch of such rows
 * must not exhaust memory.  Twilio accepts texts of up to 1600 characters.
 */
#define MAX_PHONE 100
#define MAX_VALUE 1600
#define MAX_TEXT  16000

/* The plan that reads recipients with the values of these keys. */
typedef struct RecipientsPlan
{
	List	  *keys; /* char *, of personal texts */
	SPIPlanPtr plan; /* NULL: there is none */
} RecipientsPlan;

/* The most such plans that are kept; the oldest makes room. */
#define MAX_RECIPIENTS_PLANS 8

/*
 * The tables of one schema with their plans, each prepared at first use.
 * Lives in the memory context in which it was opened; the plans live until
 * tables_close().
 */
typedef struct AppTables
{
	const char	  *schema;
	Oid			   groups;
	Oid			   lists;
	Oid			   campaigns;
	Oid			   list_users;
	Oid			   jobs;
	MemoryContext  context; /* its own, if it may be shared; or NULL */
	int			   shares;	/* number of those who share it */
	bool		   stale;	/* true if it is shared with nobody else, as a table has changed */
	RecipientsPlan read_recipients[MAX_RECIPIENTS_PLANS];
	int			   oldest_plan; /* of these: the one that the next one replaces */
	SPIPlanPtr	   read_campaigns;
	SPIPlanPtr	   read_lists;
	SPIPlanPtr	   read_groups;
	SPIPlanPtr	   read_group_by_id;
	SPIPlanPtr	   count_sent;
	SPIPlanPtr	   lock_recipients;
	SPIPlanPtr	   report_progress;
	SPIPlanPtr	   report_end;
} AppTables;

/*
 * Opens the tables of a schema; the result is palloc'd.  Throws an error with
 * a hint if the schema or a table is missing.
 */
extern AppTables *tables_open(const char *schema);

/*
 * Returns these tables for somebody who shares them, and their plans, with
 * others, as long as nothing about the tables changes.  Everybody closes what
 * he has been given; the plans are kept for the next one, in a context of their
 * own.
 */
extern AppTables *tables_share(const AppTables *tables);

/* Frees the plans, unless they are kept for others. */
extern void tables_close(AppTables *tables);

/*
 * Tells whether rows of several runs may be updated in one statement: ids are
 * unique, so that each row belongs to one of them, and no trigger or rule
 * intervenes.
 */
extern bool tables_allow_sets(const AppTables *tables);

/* Throws if one of the tables leads to code that the role has no reason to trust. */
extern void tables_check_trust(const AppTables *tables, Oid role);

/* Finds that code, as find_foreign_code() does; false if there is none. */
extern bool tables_find_foreign_code(const AppTables *tables, Oid role, ForeignCode *found);

/*
 * Throws if the schema has no such group that the current role may see.  Does
 * nothing for a superuser, since reading the table may run code.
 */
extern void tables_check_group(const char *schema, int64 group_id);

/*
 * SPI must be connected for all functions below; results are in SPI_tuptable.
 * For a superuser, they throw if code would run that belongs to somebody else.
 */

/* Runs a statement that is used once; returns the number of its rows. */
extern uint64 tables_query(const AppTables *tables, const char *sql, const SpiCall *call);

/* These two tell whether the row exists, and throw if its id is not unique. */
extern bool tables_has_campaign(const AppTables *tables, int64 campaign_id);
extern bool tables_has_job(const AppTables *tables, int64 job_id);

/* Inserts a job, and returns its id.  Throws if a trigger or rule suppressed it. */
extern int64 tables_create_job(const AppTables *tables);

/* Clears the error that an earlier attempt left in the job. */
extern void tables_reopen_job(const AppTables *tables, int64 job_id);

/* The contents of a campaign's row; strings are palloc'd, or NULL. */
typedef struct CampaignRow
{
	bool   exists;
	char  *message;
	char  *base_url;
	char **media_urls; /* at most MAX_MEDIA and one more; may be NULL */
	int	   num_media;
	char  *content_sid;
	char  *content_variables;	/* an object, in JSON */
	bool   variables_are_texts; /* true if they are such an object, or missing */
	bool   has_list;
	int64  list_id;
} CampaignRow;

/* Twilio's limit on the media of a message. */
#define MAX_MEDIA 10

/*
 * Reads campaigns with the active snapshot, in the order of the ids (bigint[]
 * with count elements); the result is palloc'd.  Throws if an id is not unique.
 */
extern CampaignRow *tables_read_campaigns(AppTables *tables, Datum ids, int count);

/* The count of messages, in a column of that name or a key of data. */
#define SENT_COUNT "sentCount"

/* A list whose users a query selects from another list. */
typedef struct ListQueryRow
{
	int64 list_id;
	char *query;
	bool  deleted;
	bool  has_base; /* false if it does not name another list that exists */
	int64 base_id;
	bool  same_group;
} ListQueryRow;

/* Reads the query of a campaign's list, palloc'd; returns false if it has none. */
extern bool tables_read_list_query(const AppTables *tables, int64 campaign_id, ListQueryRow *row);

/* Texts that a group's configuration may have. */
typedef enum GroupKey
{
	ACCOUNT_SID,
	AUTH_TOKEN,
	API_KEY_SID,
	API_KEY_SECRET,
	NUMBERS, /* in an array of its own, like the words below */
	MESSAGING_SERVICE_SID,
	SEGMENTS_PER_SECOND,
	QUIET_FROM,
	QUIET_TO,
	TIME_ZONE,
	REGION,
	EDGE,
	SMART_ENCODED,
	MAX_MESSAGES,
	MAX_MESSAGES_DAYS,
	STATUS_CALLBACK,
	INBOUND_URL,
	COUNTRY_CODE,
	SIGN_LINKS,
	STOP_WORDS,
	START_WORDS,
	NUM_GROUP_KEYS
} GroupKey;

/*
 * The contents of the rows of a campaign, its list and its group; strings are
 * palloc'd, or NULL.
 */
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
	char	  **stop_words;
	int			num_stop_words;
	char	  **start_words;
	int			num_start_words;
	bool		has_end;
	TimestampTz send_until;
} GroupRow;

/*
 * Reads them for campaigns and their lists, in the order of these (two bigint[]
 * with count elements); the result is palloc'd, and each row's contents in its
 * context.  Throws if one of the ids is not unique.
 */
extern GroupRow *tables_read_groups(AppTables *tables, Datum campaign_ids, Datum list_ids,
									MemoryContext *contexts, int count);

/*
 * Reads a group by its id, without a campaign or list.  Returns false if it
 * does not exist; throws if its id is not unique.
 */
extern bool tables_read_group_by_id(AppTables *tables, int64 group_id, GroupRow *row);

/*
 * Returns the countryCode of a list's group as it is configured, palloc'd; NULL
 * if there is none.  Throws if the list's or the group's id is not unique.
 */
extern char *tables_read_country(const AppTables *tables, int64 list_id);

/*
 * Of a group's senders, and of its words of each kind, at most this many and
 * one more are read.
 */
#define MAX_SENDERS 1000
#define MAX_WORDS	100

/* A user of one of several lists. */
typedef struct ListUser
{
	int64 list_id;
	int64 id;
	bool  has_id;
	char *phone; /* as stored, palloc'd; NULL if there is none, or the user is deleted */
} ListUser;

/*
 * Reads the users of these lists (bigint[]) with the active snapshot, in any
 * order, at most this many; sets *count.  The result is palloc'd.
 */
extern ListUser *tables_read_lists(AppTables *tables, Datum list_ids, int most, int *count);

/*
 * Opens a portal over the ids (bigint) of a list's users, and their phone
 * numbers (text, as stored; null if there is none, or the user is deleted), in
 * any order.  An id may occur twice, or be null.
 */
extern Portal tables_open_list(const AppTables *tables, int64 list_id);

/* Throws the error that the table has two list users with this id. */
pg_noreturn extern void tables_fail_twice(const AppTables *tables, int64 list_user_id);

/* Compares two lists of keys (char *), for qsort(); 0 if they are the same. */
extern int tables_compare_keys(const List *a, const List *b);

/*
 * Prepares all statements that a run uses whose texts have these keys (char *),
 * so that an error in the tables is found before anything is sent; and locks
 * what they use against changes, to the end of the transaction.
 */
extern void tables_plan(AppTables *tables, List *keys);

/* The statements that every run uses. */
typedef enum RunStatement
{
	READ_CAMPAIGNS_STATEMENT,
	READ_LISTS_STATEMENT,
	READ_GROUPS_STATEMENT,
	READ_RECIPIENTS_STATEMENT, /* without keys */
	COUNT_STATEMENT,
	LOCK_STATEMENT,
	PROGRESS_STATEMENT,
	END_STATEMENT
} RunStatement;

#define NUM_RUN_STATEMENTS (END_STATEMENT + 1)

/* Returns the plan of one of them, which is prepared at first use. */
extern SPIPlanPtr tables_statement(AppTables *tables, RunStatement statement);

/*
 * Throws, if another table has taken the name of the list users' table since
 * the tables were opened.  The run can be tried again with the new one.
 */
extern void tables_check_not_replaced(const AppTables *tables);

/*
 * Throws unless list_users still is the table of list users: the ids in
 * another table are those of other people.
 */
extern void tables_check_list_users(const AppTables *tables, Oid list_users);

/* Returns the owner of the table of list users. */
extern Oid tables_owner(const AppTables *tables);

/*
 * Tells whether the role has chosen these tables by a run that it queued with
 * this table of list users: they have the same one, or another one of its owner.
 */
extern bool tables_are_chosen(const AppTables *tables, Oid role, Oid list_users);

/*
 * Throws if the current role has not chosen these tables by a run with this
 * table of list users, and they lead to code that the role has no reason to
 * trust: somebody else may have taken the schema's name meanwhile.
 */
extern void tables_check_chosen(const AppTables *tables, Oid list_users);

/* Tells whether each of the tables still has its name. */
extern bool tables_are_current(const AppTables *tables);

/*
 * The contents of a list user's row; strings are palloc'd, or NULL.  If it no
 * longer exists, "exists" is false.
 */
typedef struct RecipientRow
{
	int64  id;
	bool   in_list;
	bool   exists;
	bool   deleted;
	char  *phone;
	char  *time_zone;
	char **values; /* of the wanted keys, in their order; or NULL */
} RecipientRow;

/* List users to be read: each with the list in which it is expected (bigint[] both). */
typedef struct RecipientIds
{
	Datum ids;
	Datum list_ids;
	int	  count;
} RecipientIds;

/*
 * Reads their rows, in their order, with the values of these keys (char *); the
 * result is palloc'd.  Throws if a list has one of them twice.
 */
extern RecipientRow *tables_read_recipients(AppTables *tables, List *keys,
											const RecipientIds *wanted);

/*
 * Adds one to a count, such as "openCount", of a list user who belongs to the
 * list, or belonged to it when the run started.  Returns false if there is no
 * such row, or a trigger, a rule or a policy keeps it from being updated.  With
 * NULL, the row is only looked for.
 */
extern bool tables_count_once(const AppTables *tables, const char *count, int64 list_user_id,
							  int64 list_id);

/*
 * Adds one to the sentCount of each of these users, if they belong to the list
 * or belonged to it when they were read.  Returns the ids (bigint[]) of those
 * whose row exists but was not updated, because of a trigger, a rule or a
 * policy; 0 if there are none.  Throws if the list has one of them twice, or if
 * another table than "only_in" (0: the one that was opened) has the name.  If
 * tables_allow_sets(), they may be of several lists.
 */
extern Datum tables_count_sent(AppTables *tables, Datum *ids, int count, int64 list_id,
							   Oid only_in);

/*
 * Locks the rows of those of these users (bigint[] with count elements) that
 * nobody else has locked, and returns the ids of the others, palloc'd.
 */
extern Datum *tables_lock_recipients(AppTables *tables, Datum ids, int count, int64 list_id,
									 int *num_locked);

/* Locks the rows of all of them that may be updated; throws if one is already locked. */
extern void tables_lock_all(const AppTables *tables, Datum ids, int64 list_id);

/* What is reported to a job. */
typedef struct JobReport
{
	int64		job_id;
	int			progress;
	Datum		counts; /* a jsonb object, which is merged into the job's data */
	const char *error;	/* or NULL; only if the run ends */
} JobReport;

/*
 * Writes counts and progress to jobs: several of them only if
 * tables_allow_sets().
 */
extern void tables_report_progress(AppTables *tables, const JobReport *reports, int count);

/*
 * Does the same, and sets each job's error, or clears it if it is NULL.  A
 * progress of -1 is not written.  Returns the number of rows updated.
 */
extern uint64 tables_report_end(AppTables *tables, const JobReport *reports, int count);

/* Merges counts into the job's data, unless they are there, or somebody has locked its row. */
extern void tables_report_if_free(const AppTables *tables, int64 job_id, Datum counts);

/*
 * Merges counts into the data of a job whose run goes on, and sets its error.
 * If error is NULL, clears the error instead, provided that it is still the
 * one in "told".  Returns false if somebody has locked the job's row, or if it
 * is gone.
 */
extern bool tables_report_trouble(const AppTables *tables, int64 job_id, Datum counts,
								  const char *error, const char *told);

/* Throws the error that the campaign does not exist, or that the role may not see it. */
pg_noreturn extern void tables_fail_no_campaign(const AppTables *tables, int64 campaign_id);

#endif /* SENDCAMPAIGN_APP_TABLES_H */
