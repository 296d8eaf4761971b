/*-------------------------------------------------------------------------
 *
 * receipt_reader.h
 *	  Asks Twilio what became of messages: its list of messages, or single ones.
 *
 * Nothing here uses the database.  What comes is kept, a page for each request
 * under way, until it has been stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RECEIPT_READER_H
#define SENDCAMPAIGN_RECEIPT_READER_H

#include "campaign/replies.h"
#include "database/receipt_table.h"
#include "worker/list_reader.h"
#include "worker/run.h"

/* The most requests under way for one reader. */
#define MAX_CHAINS 4

struct ReceiptReader;

/* Requests that follow each other, and the page that came last. */
typedef struct Chain
{
	CallKind			  kind; /* CALL_SWEEP; first, as the tag of a request */
	struct ReceiptReader *owner;
	ListReader			  reader;
	MemoryContext		  page_context; /* for the contents of the page */
	bool				  page_is_new;	/* true if it is still to be stored */
	Receipt				 *receipts;		/* in page_context */
	int					  num_receipts;
	Inbound				 *inbound; /* the same */
	int					  num_inbound;
	int					  num_stored; /* of both: so many are stored, inbound ones first */
} Chain;

/* A list, or a single message, that is to be read. */
typedef struct Question
{
	const char *sid;   /* of the message; or NULL */
	const char *query; /* of the list */
	pg_time_t	since; /* what is older is not wanted */
} Question;

typedef struct ReceiptReader
{
	MemoryContext context;
	Account		 *account;
	Question	 *questions;
	int			  num_questions;
	int			  next_question;
	int			  under_way;	 /* requests */
	const char	 *problem;		 /* why nothing more is asked, for people; or NULL */
	TimestampTz	  inbound_since; /* inbound messages from before this are not kept */
	/* to which each message is given, its creation by our clock, instead of being kept; or NULL */
	ListedMessageFunction function;
	void				 *arg;
	Chain				  chains[MAX_CHAINS];
} ReceiptReader;

/* Makes a reader, which lives in this context, as does what it asks. */
extern ReceiptReader *receipt_reader_create(MemoryContext context, Account *account);

/*
 * Adds a question: for a message with this SID, for the list of all messages
 * since that time, or for the list of messages from a sender, or to a number.
 * Strings are copied.
 */
extern void ask_for_message(ReceiptReader *reader, const char *sid);
extern void ask_for_list(ReceiptReader *reader, TimestampTz since);
extern void ask_for_messages_from(ReceiptReader *reader, const char *sender, TimestampTz since);
extern void ask_for_messages_to(ReceiptReader *reader, const char *number, TimestampTz since);

/* Removes all questions. */
extern void forget_questions(ReceiptReader *reader);

/*
 * Starts the requests that are due, as far as the account has room for them.
 * It is called before messages are sent, and after that, when "spare" is true:
 * only what they leave is for receipts if it is little.
 */
extern void receipt_reader_ask(ReceiptReader *reader, TimestampTz now, bool spare);

/* Takes an answer. */
extern void take_receipt_answer(Chain *chain, const HttpResponse *response);

/* Returns one whose page is to be stored, or NULL. */
extern Chain *chain_with_page(ReceiptReader *reader);

/* Notes that it is stored, or of no use. */
extern void forget_page(Chain *chain);

/* Tells whether everything has been read, and stored. */
extern bool receipt_reader_is_through(const ReceiptReader *reader);

#endif /* SENDCAMPAIGN_RECEIPT_READER_H */
