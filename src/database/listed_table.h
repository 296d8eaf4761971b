/*-------------------------------------------------------------------------
 *
 * listed_table.h
 *	  Twilio's list of messages as a table of one call, and how it differs
 *	  from what is recorded.
 *
 * All functions need a transaction and the same connection to SPI, and may
 * throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LISTED_TABLE_H
#define SENDCAMPAIGN_LISTED_TABLE_H

#include "datatype/timestamp.h"

/* By what a listed message shows that it is of the run. */
typedef enum ListedAs
{
	LISTED_AS_OTHER, /* it need not be of the run */
	LISTED_AS_TEXT,	 /* it has a text of the run's: if its number is a recipient's, it is of it */
	LISTED_AS_CAMPAIGN, /* it has one of the campaign's links, but nobody can tell whose */
	LISTED_AS_LINK		/* it has a list user's link */
} ListedAs;

/* A message of the list.  Strings but sid may be NULL. */
typedef struct ListedRow
{
	const char *sid;
	const char *phone;		/* E.164 */
	const char *status;		/* see receipt_status() */
	const char *price;		/* see receipt_price() */
	const char *price_unit; /* see receipt_price_unit() */
	int			segments;	/* 0: not known */
	TimestampTz created;	/* by Twilio's clock; 0: not specified */
	ListedAs	as;
	int64		list_user_id; /* whose link it has */
} ListedRow;

typedef struct ListedTable ListedTable;

/* Makes an empty one for this connection to SPI; palloc'd. */
extern ListedTable *listed_create(void);

/* Removes its file, if it has one; after an error, the end of the transaction does. */
extern void listed_free(ListedTable *table);

/* Adds a message, which is copied.  The same one may be added more than once. */
extern void listed_add(ListedTable *table, const ListedRow *row);

/* Messages that are recorded as sent: parallel arrays. */
typedef struct RecordedMessages
{
	int	   count;
	char **sids;		  /* palloc'd */
	Datum  list_user_ids; /* bigint[] */
	Datum  phones;		  /* text[], with nulls */
	Datum  sid_array;	  /* text[] */
} RecordedMessages;

/* Returns the run's messages that are recorded as sent, but are not in the table. */
extern RecordedMessages listed_find_missing(ListedTable *table, int64 run_id);

/*
 * Fills SPI_tuptable with the differences: rows as sendcampaign.reconcile()
 * returns them, and returns their number.  Of the messages "missing", those
 * are one that the table has not got by now either.
 */
extern uint64 listed_compare(ListedTable *table, int64 run_id, const RecordedMessages *missing);

#endif /* SENDCAMPAIGN_LISTED_TABLE_H */
