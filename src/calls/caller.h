/*-------------------------------------------------------------------------
 *
 * caller.h
 *	  With whose rights a call runs, and with whose it uses the application's
 *	  tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CALLER_H
#define SENDCAMPAIGN_CALLER_H

#include "database/app_tables.h"

/*
 * Throw an error with a hint on a standby, and the second one also in a
 * read-only transaction.  function is the name in the message.
 */
extern void check_primary(const char *function);
extern void check_writable(const char *function);

/*
 * Throws an error if the transaction would not see what others commit while it
 * goes on; "otherwise" says what would come of that.
 */
extern void check_read_committed(const char *function, const char *otherwise);

/* Throws the error that a run of the campaign for another job has not ended. */
extern void fail_campaign_is_sending(int64 campaign_id);

/*
 * Calls a function that makes a run of the campaign unfinished again.  If another
 * run of it, which was not committed when we looked, has come first, throws the same
 * error, and not that of the unique index.
 */
extern void reopen_run(void (*function)(void *arg), void *arg, int64 campaign_id);

/* What act_as_caller() restores. */
typedef struct ActingScope
{
	Oid caller;
	int security;
	int guc_level;
} ActingScope;

/*
 * Whatever a caller, who may be a superuser, does in the application's tables
 * is done between calls of these two, with the rights of the role that sends.
 * After an error in between, the abort of the transaction restores the caller.
 */
extern void act_as(Oid role, ActingScope *scope);
extern void act_as_caller(Oid role, const ActingScope *scope);

/*
 * Like act_as(), for changes by somebody else to the tables of a run's role.
 * If the role no longer exists (invalid), *role becomes the owner of
 * ac_list_users.  If the role has not chosen these tables itself, since the run
 * was not queued here, or with another ac_list_users than "list_users" (0: not
 * known), they must not have other people's code.  Returns false, with a
 * warning, if they have; then they must be left alone.  act_as_caller() must
 * follow in any case.
 */
extern bool act_for_run(const AppTables *tables, Oid *role, bool at_home, Oid list_users,
						ActingScope *scope);

/*
 * Opens the tables that the caller's sendcampaign.schema names, palloc'd, and
 * sets *role to the role with whose rights they are used.  Throws if their
 * code cannot be trusted, or if another node of Citus has them.
 */
extern AppTables *open_tables_of_caller(Oid *role);

/* Does the same on a node of Citus that is not the one which has the tables. */
extern AppTables *open_tables_anywhere(Oid *role);

/* Throws if the role lacks a right that it needs to send, or cannot have a worker. */
extern void check_sender(const AppTables *tables, Oid role, bool creates_job);

/* Throws if the current role can see no such campaign.  SPI must be connected. */
extern void check_campaign(const AppTables *tables, int64 campaign_id);

#endif /* SENDCAMPAIGN_CALLER_H */
