/*-------------------------------------------------------------------------
 *
 * list_query.h
 *	  A query that selects recipients.
 *
 * It runs with the rights of the current role, read-only, and for at most
 * sendcampaign.query_timeout.  All functions must be called in a transaction
 * with SPI connected, and throw.  Errors of the query itself say that they are
 * the query's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LIST_QUERY_H
#define SENDCAMPAIGN_LIST_QUERY_H

typedef struct ListQuery ListQuery;

/* The longest query, in bytes. */
#define MAX_LIST_QUERY 100000

/*
 * Checks the query and plans it, which locks what it reads: a snapshot that is
 * taken afterwards sees all that others have done to its tables before.
 */
extern ListQuery *list_query_prepare(const char *sql);

/* Does the same, and checks the rights on what it reads, but does not run it. */
extern void list_query_check(const char *sql);

/* Gets an id that the query has returned.  Its memory context is reset now and then. */
typedef void (*ListQueryFunction)(void *arg, int64 id);

/*
 * Runs the query with the active snapshot, and calls that function for each id,
 * nulls left out.
 */
extern void list_query_read(ListQuery *query, ListQueryFunction function, void *arg);

#endif /* SENDCAMPAIGN_LIST_QUERY_H */
