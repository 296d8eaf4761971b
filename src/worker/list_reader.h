/*-------------------------------------------------------------------------
 *
 * list_reader.h
 *	  Reads Twilio's list of messages, page by page.
 *
 * None of these functions uses the database, and none throws, except for a
 * lack of memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LIST_READER_H
#define SENDCAMPAIGN_LIST_READER_H

#include "twilio/http.h"
#include "twilio/listing.h"
#include "utils/timestamp.h"
#include "worker/account.h"

/* How much Twilio's clocks and ours may differ, in seconds. */
#define LIST_TIME_SLACK (15 * 60)

/* One chain of pages, or one message.  Initialized by the functions below. */
typedef struct ListReader
{
	MemoryContext context; /* of the URL and the refusal */
	bool		  single;  /* true if the URL is that of one message */
	char		 *url;	   /* of the next page; NULL once all are read */
	Account		 *account; /* of the request under way */
	bool		  under_way;
	int			  pages;	/* read so far */
	int			  failures; /* consecutive */
	const char	 *problem;	/* what was wrong with the last answer; lives as long as that */
	const char	 *refusal;	/* why the list cannot be read, for people; or NULL */
	TimestampTz	  due;		/* no request before this */
	pg_time_t	  since;	/* what is older by all its dates need not be read; by our clock */
	pg_time_t	  offset;	/* Twilio's clock minus ours, in seconds, as of the last answer */
	/* of the page being read */
	pg_time_t first_created;
	pg_time_t last_created;
	bool	  is_old; /* true if everything on it is older than that */
} ListReader;

/*
 * Makes the reader begin with this URL, which is copied into the context: a
 * list, of which everything since that time is wanted, or a single message.
 */
extern void list_begin(ListReader *reader, MemoryContext context, const char *url, pg_time_t since);
extern void list_begin_single(ListReader *reader, MemoryContext context, const char *url);

/* Tells whether there is a page that may be asked for now. */
extern bool list_is_due(const ListReader *reader, TimestampTz now);

/*
 * Asks for it with the account's credentials; max_bytes limits its length.  The
 * tag is returned with the answer.  Returns false if HTTP has no room.
 */
extern bool list_ask(ListReader *reader, Account *account, int max_bytes, void *tag);

/*
 * Takes the answer: calls the function for each message of the page, and goes
 * on to the next page.  Returns false if that is not a page: then the reader
 * has a refusal, or is due again later.  At the end of the list, or after a
 * page of which everything is older than what is wanted, the URL is NULL.  If
 * the list turns out to be endless, the reader has a refusal after that page.
 * A single message that Twilio does not have counts as an empty page.
 */
extern bool list_take(ListReader *reader, const HttpResponse *response,
					  ListedMessageFunction function, void *arg);

/* Returns that time by Twilio's clock, as soon as there has been an answer. */
static inline pg_time_t
list_since(const ListReader *reader)
{
	return reader->since + reader->offset;
}

/* Tells whether a date of the list is older than a time.  Dates may be missing (0). */
static inline bool
list_date_is_older(pg_time_t date, pg_time_t than)
{
	return date > 0 && date < than;
}

#endif /* SENDCAMPAIGN_LIST_READER_H */
