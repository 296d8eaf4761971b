/*-------------------------------------------------------------------------
 *
 * receipt_table.h
 *	  What became of messages that Twilio took, and all SQL that writes it.
 *
 * Twilio reports the same message several times, in any order, and in two ways:
 * in its list, and by callbacks.  Here its status goes forward only, whatever
 * order the reports come in, and a final one stays.
 *
 * All functions need a transaction and a connection to SPI, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECEIPT_TABLE_H
#define SENDCAMPAIGN_RECEIPT_TABLE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* What a report says of one message.  Strings but sid and status may be NULL. */
typedef struct Receipt
{
	const char *sid;
	const char *status;		/* one of receipt_data's, see receipt_status() */
	int			error_code; /* 0: none */
	int			segments;	/* as billed; 0: not known */
	const char *price;		/* a number, see receipt_price(); NULL: not known */
	const char *price_unit; /* ISO 4217, see receipt_price_unit() */
	TimestampTz at;			/* when Twilio updated it; 0: not known, now */
	bool		whatsapp;	/* true if it is no SMS, and says nothing about whether these arrive */
} Receipt;

/*
 * Whose messages a report may be about.  Only credentials that are proven to
 * be those of a group prove something about its messages: somebody else's
 * group may name the same account.
 */
typedef struct ReceiptScope
{
	Oid			role;	 /* of the runs */
	const char *account; /* SID of the Twilio account to which they were sent */
	const char *schema;	 /* of the group; NULL: all groups of the role with that account */
	int64		group_id;
	Oid			list_users; /* table with which the latest of the runs began; 0: not known */
} ReceiptScope;

/* What came of storing receipts. */
typedef struct StoredReceipts
{
	int	  num_known;	 /* reports of messages within the scope, new or not */
	int	  num_new;		 /* those of them that said something new */
	List *announcements; /* of runs whose receipts are complete now (char *, palloc'd) */
} StoredReceipts;

/*
 * Stores reports of messages within the scope; others are ignored.  The counts
 * of their runs follow, and marks of phone numbers that cannot be reached.
 * What is to be announced is for announce_all_at_commit(), or in a worker for
 * announce_later() once this is committed.
 *
 * Waits for other sessions that have stored receipts of the same messages and
 * have not committed yet, but never for the rows of runs.
 */
extern StoredReceipts receipts_store(const ReceiptScope *scope, const Receipt *receipts, int count);

/* A message that is recorded as sent, and the group whose credentials prove something of it. */
typedef struct KnownMessage
{
	ReceiptScope scope;
	int64		 run_id;
	int64		 list_user_id;
	const char	*sid;
} KnownMessage;

/* Does the same for one message, now; without price and segments. */
extern StoredReceipts receipts_store_one(const KnownMessage *message, const Receipt *receipt);

/*
 * Keeps reports whose SIDs are not known, which may be of messages that a
 * worker is about to record, as those come.  The scope must name a group;
 * nothing is kept unless messages of that group may be on their way.  Returns
 * how many are kept.
 */
extern int receipts_store_early(const ReceiptScope *scope, const Receipt *receipts, int count);

/* Tells whether any are kept for this role. */
extern bool receipts_are_early(Oid role);

/*
 * Stores reports that came before their messages were recorded, of the runs
 * within the scope.  Costs next to nothing if there are none.  Does not wait
 * for reports that others are just changing.  Deletes those that are more than
 * a day old.
 */
extern StoredReceipts receipts_take_early(const ReceiptScope *scope);

/* Messages of a run of which nothing final is known, among some of its messages. */
typedef struct OpenMessages
{
	int	   num_sids;
	char **sids;	 /* palloc'd */
	int	   num_rows; /* messages that were looked at: less than asked for if these are the last */
	int64  after;	 /* list user of the last one */
} OpenMessages;

/*
 * Looks for such messages, which are to be asked for, among so many messages
 * of the run, in the order of their list users, after this one; begin with
 * PG_INT64_MIN.
 */
extern OpenMessages receipts_find_open(int64 run_id, int64 after, int num_rows);

/*
 * Gives up asking: of these, those that were recorded before this time get the
 * status "unknown".  Looks at so many messages after the list user *after, as
 * above, so that transactions stay short.  Returns false if there are none
 * left.  Appends what is to be announced.
 */
extern bool receipts_close(int64 run_id, TimestampTz before, int64 *after, int num_rows,
						   List **announcements);

/*
 * Takes messages of the run out that were not delivered with this error code,
 * were reported so at least that long ago, and are not sent in place of
 * others: deletes their rows, so that they can be sent again, and remembers
 * their SIDs.  Rows that were loaded prove nothing, and are left alone.
 * Returns the list users, bigint[].
 */
extern Datum receipts_take_undelivered(int64 run_id, int error_code, double seconds, int *count);

/* Erases SIDs in the receipts of these phone numbers' messages (text[]), of the caller's runs. */
extern void receipts_forget_phones(Datum phones);

#endif /* SENDCAMPAIGN_RECEIPT_TABLE_H */
