/*-------------------------------------------------------------------------
 *
 * control.h
 *	  What functions on a run have in common: who may, and in which state.
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
	Oid	  role;	   /* invalid where it was dropped */
	bool  at_home; /* queued here; else loaded, from a dump perhaps */
	char *state;
	char *schema;
	bool  begun;   /* its recipients are fixed */
	bool  is_test; /* send_test() made it */
} LockedRun;

/*
 * Locks the run of the job in the schema that sendcampaign.schema names;
 * throws where there is none for this caller.  SPI must be connected; the
 * strings are palloc'd.
 */
extern void lock_run(int64 job_id, LockedRun *run);

/* May the caller see and change what this role sends? */
extern bool is_for_caller(Oid role);

/* Throws, as for a job that does not exist. */
extern void fail_no_run(int64 job_id);

/* Throws: the run is in a state that does not allow it. */
extern void fail_in_state(const LockedRun *run, const char *hint);

#endif /* SENDCAMPAIGN_CONTROL_H */
