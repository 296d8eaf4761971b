/*-------------------------------------------------------------------------
 *
 * caller.h
 *	  Whose rights a call has, and whose the application's tables are used with.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CALLER_H
#define SENDCAMPAIGN_CALLER_H

#include "database/app_tables.h"

/* Throws, with a hint, on a standby and in a read-only transaction. */
extern void check_writable(const char *function);

/* Throws: a run of the campaign under another job has not ended. */
extern void fail_campaign_is_sending(int64 campaign_id);

/* To restore what act_as changed. */
typedef struct ActingScope
{
	Oid caller;
	int security;
	int guc_level;
} ActingScope;

/*
 * What a caller, a superuser perhaps, does in the application's tables is
 * done between these two, with the rights of the role that sends.  An error
 * in between is fine: the abort undoes the first one.
 */
extern void act_as(Oid role, ActingScope *scope);
extern void act_as_caller(Oid role, const ActingScope *scope);

/*
 * As act_as, for what a run is to be told by somebody else.  *role is who it
 * is then: where the run's role is gone (invalid), or has not chosen these
 * tables itself, as the run was not queued here, the owner of the list users.
 * False, with a warning, where that would run code of others: the tables are to
 * be left alone.
 */
extern bool act_for_run(const AppTables *tables, Oid *role, bool at_home, ActingScope *scope);

/*
 * The tables that the caller's sendcampaign.schema names, and the role with
 * whose rights they are used.  Throws where these cannot be trusted.
 */
extern AppTables *open_tables_of_caller(Oid *role);

/* Throws where the role lacks a right to send, or cannot have a worker. */
extern void check_sender(const AppTables *tables, Oid role, bool creates_job);

/* Throws where there is no such campaign, for the current role. */
extern void check_campaign(const AppTables *tables, int64 campaign_id);

#endif /* SENDCAMPAIGN_CALLER_H */
