/*-------------------------------------------------------------------------
 *
 * left_alone.h
 *	  Which runs in the queue a worker leaves alone for a while, and until when.
 *
 * None of these functions throws, unless memory is short.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LEFT_ALONE_H
#define SENDCAMPAIGN_LEFT_ALONE_H

#include "worker/run.h"

/*
 * Notes that the run could not be taken up because of an error that may pass, as
 * run->claiming says.  If all runs of its schema have the same trouble, they are
 * left alone as well: returns true then.  Nothing bad happens if the open
 * transaction is rolled back.
 */
extern bool leave_alone(const Run *run);

/* Tells whether this is one of them now. */
extern bool is_left_alone(const Run *run);

/* Notes that the run could be taken up: the others of its schema are tried again soon. */
extern void stop_leaving_alone(const Run *run);

/*
 * The same for what is on another node of Citus, by its group: whether it
 * cannot be reached is found out once for all runs.
 */
extern void leave_node_alone(int32 group);
extern bool node_is_left_alone(int32 group);
extern bool nodes_are_left_alone(void);
extern void stop_leaving_node_alone(int32 group);

/* Tells whether anything is left alone now; forgets what has not been tried again for long. */
extern bool some_are_left_alone(void);

/* Return the ids of these runs as a bigint[], and the schemas as a text[], palloc'd. */
extern Datum ids_left_alone(void);
extern Datum schemas_left_alone(void);

#endif /* SENDCAMPAIGN_LEFT_ALONE_H */
