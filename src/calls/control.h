/*-------------------------------------------------------------------------
 *
 * control.h
 *	  What functions on a run have in common: permission and state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CONTROL_H
#define SENDCAMPAIGN_CONTROL_H

#include "datatype/timestamp.h"

/* A run that is locked to the end of the transaction. */
typedef struct LockedRun
{
	int64 id;
	int64 job_id;
	int64 campaign_id;
	Oid	  role;	   /* invalid if it was dropped */
	bool  at_home; /* true if queued here; false if loaded from elsewhere */
	char *state;
	char *schema;
	bool  begun;	  /* true if its recipients are fixed */
	bool  is_test;	  /* true if made by send_test() */
	Oid	  list_users; /* the table that the role has chosen; 0: not known */
} LockedRun;

/*
 * Locks the run of the job in the schema that sendcampaign.schema names.
 * Throws if there is none that this caller may use.  SPI must be connected;
 * the strings are palloc'd.
 */
extern void lock_run(int64 job_id, LockedRun *run);

/* Tells whether the caller may see and change what this role sends. */
extern bool is_for_caller(Oid role);

/* Throws the error that the job has no run. */
extern void fail_no_run(int64 job_id);

/* Throws if the run is a copy, as a clone has it, of one of another node of Citus. */
extern void check_is_own(const LockedRun *run);

/* Throws the error that the run is in a state that does not allow the call. */
extern void fail_in_state(const LockedRun *run, const char *hint);

#endif /* SENDCAMPAIGN_CONTROL_H */
