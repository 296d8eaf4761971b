/*-------------------------------------------------------------------------
 *
 * process.h
 *	  What the extension's background processes have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_PROCESS_H
#define SENDCAMPAIGN_PROCESS_H

#include "postmaster/bgworker.h"

/*
 * Describes a process that runs this function of the library, once.  "type" is
 * what pg_stat_activity shows of it.
 */
extern void describe_process(BackgroundWorker *process, const char *function, const char *type);

/*
 * For a new process that works for a role: connects it, with the settings that
 * our transactions need, and remembers the role in "worker".  Throws.
 */
extern void connect_as(Oid database, Oid role);

#endif /* SENDCAMPAIGN_PROCESS_H */
