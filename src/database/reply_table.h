/*-------------------------------------------------------------------------
 *
 * reply_table.h
 *	  What recipients have answered, and all SQL that writes it.
 *
 * Twilio reports an inbound message in its list, and by a callback, and may
 * report it again and again.  Each role that it concerns has it once, for the
 * group that it answers.  If it is a stop or start word, each other group for
 * which that counts has a row that says no more than that it does.
 *
 * All functions need a transaction and a connection to SPI, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_REPLY_TABLE_H
#define SENDCAMPAIGN_REPLY_TABLE_H

#include "database/receipt_table.h"
#include "nodes/pg_list.h"

#define WORD_STOP  "stop"
#define WORD_START "start"

/* An inbound message; its strings are in the database's encoding. */
typedef struct Reply
{
	const char *sid;
	const char *phone;	/* that it came from, in E.164 */
	const char *sender; /* that it came to */
	const char *body;
	TimestampTz at;
	/* the group that it is for, and the message that it answers */
	const char *schema; /* NULL: none */
	int64		group_id;
	const char *word;	/* by the group's words: WORD_STOP, WORD_START, or NULL: any other text */
	int64		run_id; /* 0: it answers none */
	int64		list_user_id;
	/* whether it is in the table */
	bool is_known;	/* it was there already */
	bool is_erased; /* and nothing else is known of it */
	bool is_new;	/* it is since replies_store() */
} Reply;

/*
 * Sets whether the role has these replies already, and of those that it has,
 * the word.
 */
extern void replies_find_known(Oid role, Reply *replies, int count);

/* A message that a reply may answer: a group's latest one to the phone number. */
typedef struct AnsweredMessage
{
	int			reply; /* its index */
	const char *schema;
	int64		group_id;
	int64		run_id;
	int64		list_user_id;
	bool is_before; /* it was recorded before the reply; otherwise, its run was queued then */
	TimestampTz at;
} AnsweredMessage;

/*
 * Returns the messages that these replies may answer, of all groups of the
 * role with this account, palloc'd.
 */
extern AnsweredMessage *replies_find_answered(Oid role, const char *account, const Reply *replies,
											  int count, int *num_messages);

/* A group that has sent something. */
typedef struct SendingGroup
{
	const char *schema;
	int64		group_id;
	TimestampTz since; /* when its first run was queued, as far as clocks can tell */
} SendingGroup;

/*
 * Returns the groups of the role that have had runs with this account, palloc'd,
 * that with the latest run first (SendingGroup *).
 */
extern List *replies_find_groups(Oid role, const char *account);

/*
 * Stores the replies that have a group and are not known, and marks them as
 * new.  Returns a list (char *) of what is to be announced, palloc'd: a line for
 * each.
 */
extern List *replies_store(Oid role, Reply *replies, int count);

/* What a stop or start word means for one of the groups with the sender it came to. */
typedef struct GroupWord
{
	const Reply *reply;
	ReceiptScope scope;
	const char	*word;	 /* WORD_STOP or WORD_START */
	bool		 is_new; /* set by replies_store_words() */
} GroupWord;

/*
 * Notes that these words (GroupWord *) count for these groups, and sets which of
 * them did not until now.
 */
extern void replies_store_words(Oid role, List *words);

/*
 * Makes the transaction wait for others that record a stop or start word of
 * this phone number for a group of the scope's role, and those that come later
 * wait for it.
 */
extern void replies_lock_words(const ReceiptScope *scope, const char *phone);

/*
 * Tells whether a start word that is later than this reply has come from its
 * phone number, to the group or to the same sender.
 */
extern bool replies_start_after(const ReceiptScope *scope, const Reply *reply);

/*
 * Erase the replies from these phone numbers (text[]), or from before this
 * time, that belong to roles of which the caller is a member.  What is left of
 * one is forgotten after some time.
 */
extern void replies_forget_phones(Datum phones);
extern void replies_forget(TimestampTz before);

#endif /* SENDCAMPAIGN_REPLY_TABLE_H */
