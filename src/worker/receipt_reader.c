/*-------------------------------------------------------------------------
 *
 * receipt_reader.c
 *	  Asks Twilio what became of messages: its list of messages, or single ones.
 *
 * Twilio limits how many requests of an account may be in flight, reads and
 * messages together.  Messages come first: reads take at most a quarter of the
 * account's window, and only what messages leave if that is less than one.
 * While the worker sends, reading takes no more than a twentieth of its time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "twilio/receipt.h"
#include "twilio/request.h"
#include "utils/memutils.h"
#include "worker/receipt_reader.h"

/* A page of 1,000 messages, each of them as long as possible, fits. */
#define MAX_PAGE_BYTES (16 * 1024 * 1024)

/* More than a page of Twilio's has. */
#define MAX_ROWS 5000

/* If Twilio's clock and ours differ by less, in seconds, Twilio's counts. */
#define SAME_TIME 60

/* The share of an account's window that reads may take. */
#define WINDOW_SHARE 4

/* While the worker sends, a chain rests so many times as long as it has worked. */
#define REST 19

/* Failures in a row, and the longest pause that Twilio may ask for, before a reader gives up. */
#define MAX_FAILURES 5
#define MAX_PAUSE_MS 120000

ReceiptReader *
receipt_reader_create(MemoryContext context, Account *account)
{
	ReceiptReader *reader = MemoryContextAllocZero(context, sizeof(ReceiptReader));

	reader->context = context;
	reader->account = account;
	for (int i = 0; i < MAX_CHAINS; i++)
	{
		reader->chains[i].kind = CALL_SWEEP;
		reader->chains[i].owner = reader;
		reader->chains[i].page_context = AllocSetContextCreate(context, "sendcampaign receipts",
															   ALLOCSET_DEFAULT_SIZES);
	}
	return reader;
}

static void
add_question(ReceiptReader *reader, Question question)
{
	if (reader->questions == NULL)
		reader->questions = MemoryContextAlloc(reader->context, sizeof(Question));
	else if ((reader->num_questions & (reader->num_questions - 1)) == 0)
		reader->questions = repalloc(reader->questions,
									 2 * reader->num_questions * sizeof(Question));
	reader->questions[reader->num_questions++] = question;
}

void
ask_for_message(ReceiptReader *reader, const char *sid)
{
	add_question(reader, (Question){.sid = MemoryContextStrdup(reader->context, sid)});
}

/* The clocks of Twilio may differ from ours, and the list may lag. */
static void
add_list(ReceiptReader *reader, const char *query, TimestampTz since)
{
	add_question(reader, (Question){.query = MemoryContextStrdup(reader->context, query),
									.since = timestamptz_to_time_t(since) - LIST_TIME_SLACK});
}

void
ask_for_list(ReceiptReader *reader, TimestampTz since)
{
	StringInfoData query;

	initStringInfo(&query);
	append_read_back_query(&query);
	add_list(reader, query.data, since);
}

void
ask_for_messages_from(ReceiptReader *reader, const char *sender, TimestampTz since)
{
	StringInfoData query;

	initStringInfo(&query);
	append_sender_query(&query, sender);
	add_list(reader, query.data, since);
}

void
ask_for_messages_to(ReceiptReader *reader, const char *number, TimestampTz since)
{
	StringInfoData query;

	initStringInfo(&query);
	append_list_query(&query, number, number_of_address(number));
	add_list(reader, query.data, since);
}

void
forget_questions(ReceiptReader *reader)
{
	if (reader->questions)
		pfree(reader->questions); /* their strings live as long as the reader */
	reader->questions = NULL;
	reader->num_questions = 0;
}

/* Makes an idle chain ask the next question. */
static void
begin_question(ReceiptReader *reader, Chain *chain)
{
	const Question *question = &reader->questions[reader->next_question++];
	StringInfoData	url;

	initStringInfo(&url);
	if (question->sid)
	{
		append_message_url(&url, reader->account->host, reader->account->sid, question->sid);
		list_begin_single(&chain->reader, reader->context, url.data);
		return;
	}
	append_messages_url(&url, reader->account->host, reader->account->sid);
	appendStringInfoString(&url, question->query);
	list_begin(&chain->reader, reader->context, url.data, question->since);
}

/* Tells whether another request may be started. */
static bool
has_room(const ReceiptReader *reader, TimestampTz now, bool spare)
{
	const Account *account = reader->account;
	int			   share = Min(MAX_CHAINS, account->window / WINDOW_SHARE);

	if (!account_has_room(account, now))
		return false;
	return reader->under_way < share || (spare && account->in_flight == 0);
}

void
receipt_reader_ask(ReceiptReader *reader, TimestampTz now, bool spare)
{
	if (account_is_diverted(reader->account))
		reader->problem = REGION_ELSEWHERE;
	for (int i = 0; i < MAX_CHAINS && reader->problem == NULL; i++)
	{
		Chain *chain = &reader->chains[i];

		if (chain->page_is_new || !has_room(reader, now, spare))
			continue;
		if (chain->reader.url == NULL && !chain->reader.under_way &&
			reader->next_question < reader->num_questions)
			begin_question(reader, chain);
		if (list_is_due(&chain->reader, now) &&
			list_ask(&chain->reader, reader->account, MAX_PAGE_BYTES, chain))
			reader->under_way++;
	}
}

static const char *
copy_string(const char *value)
{
	return value ? pstrdup(value) : NULL;
}

/*
 * Returns 0, if it is not known: clocks differ by seconds, not by days, and a
 * STOP of next year would outlast each START before.
 */
static TimestampTz
timestamp_of(pg_time_t time)
{
	TimestampTz at = time > 0 ? time_t_to_timestamptz(time) : 0;

	return at <= GetCurrentTimestamp() + USECS_PER_DAY ? at : 0;
}

/* Returns when it was created, by our clock if that differs from Twilio's; or 0. */
static pg_time_t
time_of_creation(const Chain *chain, const ListedMessage *listed)
{
	pg_time_t offset = chain->reader.offset;
	bool	  is_same = offset > -SAME_TIME && offset < SAME_TIME;

	return listed->created == 0 || is_same ? listed->created : listed->created - offset;
}

static void
note_inbound(Chain *chain, const ListedMessage *listed)
{
	TimestampTz at = timestamp_of(time_of_creation(chain, listed));

	if (listed->from == NULL || listed->to == NULL || chain->num_inbound >= MAX_ROWS ||
		(at > 0 && at < chain->owner->inbound_since))
		return;
	if (chain->inbound == NULL)
		chain->inbound = palloc(MAX_ROWS * sizeof(Inbound));
	chain->inbound[chain->num_inbound++] = (Inbound){
		.sid = pstrdup(listed->sid),
		.from = pstrdup(listed->from),
		.to = pstrdup(listed->to),
		.service = copy_string(listed->messaging_service_sid),
		.body = copy_string(listed->body),
		.at = at ? at : GetCurrentTimestamp()};
}

/* What Twilio says of messages that were not sent from here is skipped where it is stored. */
static void
note_receipt(Chain *chain, const ListedMessage *listed)
{
	const char *status = receipt_status(listed->status);

	if (status == NULL || chain->num_receipts >= MAX_ROWS)
		return;
	if (chain->receipts == NULL)
		chain->receipts = palloc(MAX_ROWS * sizeof(Receipt));
	chain->receipts[chain->num_receipts++] = (Receipt){
		.sid = pstrdup(listed->sid),
		.status = status,
		.error_code = listed->error_code,
		.segments = listed->segments,
		.price = receipt_price(listed->price),
		.price_unit = receipt_price_unit(listed->price_unit),
		.at = timestamp_of(listed->updated),
		.whatsapp = is_through_whatsapp(listed->from, listed->to)};
}

static void
note_row(void *arg, const ListedMessage *listed)
{
	Chain				*chain = arg;
	const ReceiptReader *reader = chain->owner;
	MemoryContext		 old;

	if (listed->sid == NULL)
		return;
	if (reader->function)
	{
		ListedMessage copy = *listed;

		copy.created = time_of_creation(chain, listed);
		reader->function(reader->arg, &copy);
		return;
	}
	old = MemoryContextSwitchTo(chain->page_context);
	if (listed->inbound)
		note_inbound(chain, listed);
	else
		note_receipt(chain, listed);
	MemoryContextSwitchTo(old);
}

void
forget_page(Chain *chain)
{
	MemoryContextReset(chain->page_context);
	chain->page_is_new = false;
	chain->receipts = NULL;
	chain->inbound = NULL;
	chain->num_receipts = chain->num_inbound = chain->num_stored = 0;
}

/* Gives up if that is hopeless for now: no process waits for long. */
static void
follow_failure(Chain *chain, const HttpResponse *response)
{
	ReceiptReader *reader = chain->owner;
	ListReader	  *list = &chain->reader;

	if (response->result == HTTP_NOT_SENT)
		account_unreachable(reader->account, response->error);
	else if (response->status == 429)
		account_overloaded(reader->account);
	if (list->refusal || list->failures >= MAX_FAILURES ||
		TimestampDifferenceExceeds(GetCurrentTimestamp(), list->due, MAX_PAUSE_MS))
		reader->problem = MemoryContextStrdup(reader->context, list->problem);
}

void
take_receipt_answer(Chain *chain, const HttpResponse *response)
{
	ReceiptReader *reader = chain->owner;
	int64		   began = monotonic_time();

	reader->under_way--;
	forget_page(chain);
	if (list_take(&chain->reader, response, note_row, chain))
	{
		account_answered(reader->account);
		chain->page_is_new = chain->num_receipts > 0 || chain->num_inbound > 0;
		if (chain->reader.refusal)
			reader->problem = chain->reader.refusal;
	}
	else
		follow_failure(chain, response);
	if (worker.num_runs > 0)
		chain->reader.due = Max(chain->reader.due,
								GetCurrentTimestamp() + REST * (monotonic_time() - began));
}

Chain *
chain_with_page(ReceiptReader *reader)
{
	for (int i = 0; i < MAX_CHAINS; i++)
	{
		if (reader->chains[i].page_is_new)
			return &reader->chains[i];
	}
	return NULL;
}

bool
receipt_reader_is_through(const ReceiptReader *reader)
{
	for (int i = 0; i < MAX_CHAINS; i++)
	{
		if (reader->chains[i].reader.url || reader->chains[i].page_is_new)
			return false;
	}
	return reader->next_question == reader->num_questions;
}
