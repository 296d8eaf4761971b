/*-------------------------------------------------------------------------
 *
 * sent_elsewhere.h
 *	  With Citus: whether another node has sent a job whose run is in the queue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SENT_ELSEWHERE_H
#define SENDCAMPAIGN_SENT_ELSEWHERE_H

#include "worker/run.h"

/*
 * Marks the run's job as sent by this node, unless another node has marked it:
 * sets that node's name then, palloc'd.  A run that was cancelled needs no mark.
 * Returns false after an error, as attempt_for_run() does.
 */
extern bool find_sender(Run *run, bool marks, char **node);

/* For a list worker: does the same, and returns the node's name or NULL; throws. */
extern char *find_other_sender(Run *run);

#endif /* SENDCAMPAIGN_SENT_ELSEWHERE_H */
