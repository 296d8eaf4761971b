/*-------------------------------------------------------------------------
 *
 * control.h
 *	  What functions on a run have in common: who may, and in which state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CONTROL_H
#define SENDCAMPAIGN_CONTROL_H

/*
 * Locks the run, of which are then in SPI_tuptable: state, schema, role,
 * whether it was begun; throws where there is none for this caller.  Returns
 * its role, invalid where that was dropped.
 */
extern Oid lock_run(int64 job_id);

/* May the caller see and change what this role sends? */
extern bool is_for_caller(Oid role);

/* Throws, as for a job that does not exist. */
extern void fail_no_run(int64 job_id);

/* Throws: the run in SPI_tuptable is in a state that does not allow it. */
extern void fail_in_state(int64 job_id, const char *hint);

#endif /* SENDCAMPAIGN_CONTROL_H */
