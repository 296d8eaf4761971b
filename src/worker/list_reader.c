/*-------------------------------------------------------------------------
 *
 * list_reader.c
 *	  Reads Twilio's list of messages, page by page.
 *
 * The list is sorted by date of creation or of sending, newest first, if at
 * all.  Either date may be missing, such as the sending date while a message
 * is queued.  So reading ends only after a page of which every message is
 * older than what is wanted by both dates, and which is itself in order.
 * While it is read, messages that are sent move the others down: what was on
 * one page may be on the next one again, which does no harm.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "twilio/request.h"
#include "utils/memutils.h"
#include "worker/backoff.h"
#include "worker/list_reader.h"
#include "worker/run.h"

#define MAX_PAGES 10000

/* What look_at_row() needs. */
typedef struct PageReading
{
	ListReader			 *reader;
	ListedMessageFunction function;
	void				 *arg;
} PageReading;

static void
begin(ListReader *reader, MemoryContext context, const char *url)
{
	*reader = (ListReader){.context = context, .url = MemoryContextStrdup(context, url)};
}

void
list_begin(ListReader *reader, MemoryContext context, const char *url, pg_time_t since)
{
	begin(reader, context, url);
	reader->since = since;
}

void
list_begin_single(ListReader *reader, MemoryContext context, const char *url)
{
	begin(reader, context, url);
	reader->single = true;
}

bool
list_is_due(const ListReader *reader, TimestampTz now)
{
	return reader->url && reader->refusal == NULL && !reader->under_way && reader->due <= now;
}

bool
list_ask(ListReader *reader, Account *account, int max_bytes, void *tag)
{
	if (!account_start(account, reader->url, NULL, max_bytes, tag))
		return false;
	reader->account = account;
	reader->under_way = true;
	return true;
}

static void
look_at_row(void *arg, const ListedMessage *listed)
{
	PageReading *reading = arg;
	ListReader	*reader = reading->reader;

	if (reader->first_created == 0)
		reader->first_created = listed->created;
	reader->last_created = listed->created;
	if (!list_date_is_older(listed->created, list_since(reader)) ||
		!list_date_is_older(listed->sent, list_since(reader)))
		reader->is_old = false;
	reading->function(reading->arg, listed);
}

/* Tells whether it is the list's end, or the list has come to what is not wanted. */
static bool
is_last_page(const ListReader *reader, const char *next_page)
{
	return next_page == NULL || (reader->is_old && reader->first_created > 0 &&
								 reader->first_created >= reader->last_created);
}

static void
take_failure(ListReader *reader, const HttpResponse *response, const char *problem)
{
	int delay = backoff_delay(reader->failures++);

	reader->problem = problem;
	if (response->status >= 400 && response->status < 500 && response->status != 429 &&
		response->status != 408)
		reader->refusal = MemoryContextStrdup(reader->context, problem);
	if (response->retry_after > 0)
		delay = Max(delay, response->retry_after * 1000);
	reader->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
}

static void
go_on(ListReader *reader, const char *next_page)
{
	StringInfoData url;
	bool		   is_last = is_last_page(reader, next_page);

	initStringInfo(&url);
	if (!is_last && (++reader->pages >= MAX_PAGES ||
					 !append_next_page_url(&url, reader->account->host, next_page)))
		reader->refusal = "Twilio's list of messages does not end";
	else
		replace_string(reader->context, &reader->url, is_last ? NULL : url.data);
}

bool
list_take(ListReader *reader, const HttpResponse *response, ListedMessageFunction function,
		  void *arg)
{
	PageReading reading = {reader, function, arg};
	char	   *next_page = NULL;
	const char *problem = NULL;

	reader->under_way = false;
	account_finished(reader->account);
	reader->first_created = reader->last_created = 0;
	reader->is_old = true;
	if (response->server_time > 0)
		reader->offset = response->server_time - time(NULL);
	if (!reader->single)
		problem = read_listing(response, look_at_row, &reading, &next_page);
	else if (response->status != 404)
		problem = read_message(response, look_at_row, &reading);
	if (problem)
	{
		take_failure(reader, response, problem);
		return false;
	}
	reader->failures = 0;
	go_on(reader, next_page);
	return true;
}
