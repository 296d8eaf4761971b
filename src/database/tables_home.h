/*-------------------------------------------------------------------------
 *
 * tables_home.h
 *	  With Citus: which node sends the campaigns of the application's tables.
 *
 * It is the node that has them.  As tables can move to another node while a
 * campaign is being sent, or one is about to begin, the row of the job, which
 * moves with them, is marked by the node that sends it.  None of this does
 * anything without Citus.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TABLES_HOME_H
#define SENDCAMPAIGN_TABLES_HOME_H

#include "database/app_tables.h"

/*
 * Returns the group of the node that has all of the tables, -1 without Citus.
 * Throws if there is no such node.
 */
extern int32 tables_check_layout(const AppTables *tables);

/* Throws if that group is not this node's. */
extern void tables_check_home(const AppTables *tables, int32 group);

/*
 * Marks the job as sent by this node, in the caller's transaction, with the
 * rights of the current role.  Throws if another node has marked it.
 */
extern void tables_mark_job(const AppTables *tables, int64 job_id);

/*
 * Does the same for a run that is about to be sent, unless another node has
 * marked the job: returns that node's name then, palloc'd; otherwise NULL.  What
 * this node was before pg_upgrade is no other node.
 */
extern char *tables_other_sender(const AppTables *tables, int64 job_id, int64 run_id);

/*
 * Does the same for a run that a person continues here: throws only if a node
 * that is still in the cluster has marked it, unless "anyway".  Returns true if
 * another one had: then it may have sent something.
 */
extern bool tables_take_job(const AppTables *tables, int64 job_id, bool anyway);

#endif /* SENDCAMPAIGN_TABLES_HOME_H */
