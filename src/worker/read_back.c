/*-------------------------------------------------------------------------
 *
 * read_back.c
 *	  After lost commits, reads back from Twilio what a run has sent.
 *
 * A standby that lags when it is promoted, or yesterday's backup, knows less
 * than has happened: recipients that it takes for unclaimed have the message
 * already.  Twilio's list of messages knows.  So before a run continues in
 * such a cluster, the list of its account is read, back to the time before the
 * run began, and what belongs to the run is kept in
 * sendcampaign.read_back_message.  Batches that are claimed later are compared
 * with that.  Recipients that it does not name are looked up by phone number
 * before anything is sent (suspect() in lookup.c), as nobody promises in which
 * order a list is, and where it has messages that are still queued.
 *
 * The list may lag.  It is read once it has shown a message that left here
 * after the last request before the loss was over (freshness.c), or else when
 * sendcampaign.lookup_timeout has passed after that.  A list that shows
 * messages without text or number cannot be read back.
 *
 * If no commits were lost, this costs nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/smart_encoding.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "settings.h"
#include "storage/lmgr.h"
#include "twilio/request.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "worker/freshness.h"
#include "worker/list_reader.h"
#include "worker/lookup.h"
#include "worker/message.h"
#include "worker/read_back.h"
#include "worker/twin.h"

#define MAX_PAGE_BYTES (64 * 1024 * 1024)

typedef struct FoundMessage
{
	char *sid;
	char *phone;
	int64 list_user_id; /* 0 if the text has no link */
	int	  segments;
	int64 text_hash;
	bool  certain; /* true if the text has no other list user's link */
} FoundMessage;

typedef struct ReadBack
{
	CallKind	  kind; /* CALL_READ_BACK; first, as the tag of a request */
	Run			 *run;
	ListReader	  reader;
	MemoryContext page_context; /* for the contents of one page */
	bool		  page_is_new;	/* true if what was read is still to be stored */
	bool		  storing;		/* true if that happens in the open transaction */
	bool		  is_redacted;	/* true if the list has messages without text or number */
	LinkForm	 *link_form;	/* of the run's links, after smart_text(); or NULL */
	Template *template;			/* of its texts, after smart_text() */
	int64 gone_at;				/* when no earlier request is under way any longer, monotonic us */
	bool  may_read;				/* true if the list shows all of them */
	/* of the page being read */
	FoundMessage *messages; /* in page_context, as is everything in it */
	int			  num_messages;
} ReadBack;

void
begin_reading_back(Run *run)
{
	MemoryContext  old = MemoryContextSwitchTo(run->context);
	ReadBack	  *read_back = palloc0(sizeof(ReadBack));
	StringInfoData url;

	read_back->kind = CALL_READ_BACK;
	read_back->run = run;
	read_back->page_context = AllocSetContextCreate(run->context, "sendcampaign read back",
													ALLOCSET_DEFAULT_SIZES);
	read_back->link_form = campaign_has_links(&run->campaign) ? run->campaign.listed_form : NULL;
	read_back->template = template_parse(smart_text(template_text(run->campaign.template)));
	initStringInfo(&url);
	append_messages_url(&url, run->account->host, run->account->sid);
	append_read_back_query(&url);
	list_begin(&read_back->reader, run->context, url.data, run_start(run) - LIST_TIME_SLACK);
	read_back->gone_at = monotonic_time() + to_us(sendcampaign_request_timeout) +
						 to_us(sendcampaign_lookup_delay);
	read_back->reader.due = TimestampTzPlusMilliseconds(
		GetCurrentTimestamp(), to_ms(sendcampaign_request_timeout + lookup_timeout()));
	run->read_back = read_back;
	run_count_doubt(run, 1);
	MemoryContextSwitchTo(old);
	ereport(LOG,
			(errmsg("sendcampaign: job %lld: commits may have been lost; reading back from Twilio"
					" what was sent",
					(long long) run->job_id)));
}

/* The first page waits until the list shows everything that it is read for. */
static bool
may_read(ReadBack *read_back, TimestampTz now)
{
	Account *account = read_back->run->account;
	ListedBy by = read_back->link_form						  ? LISTED_BY_LINK
				  : read_back->run->campaign.text.content_sid ? LISTED_BY_NUMBER
															  : LISTED_BY_TEXT;

	if (read_back->may_read)
		return true;
	if (read_back->reader.due > now && !list_is_fresh(account, by, read_back->gone_at))
	{
		want_freshness(account, by, read_back->gone_at);
		return false;
	}
	read_back->reader.due = now;
	read_back->may_read = true;
	return true;
}

void
read_back_more(Run *run, TimestampTz now)
{
	ReadBack *read_back = run->read_back;

	if (read_back == NULL || run->tentative || why_not_read_back(run) ||
		read_back->reader.under_way || read_back->page_is_new || run->stop_reason ||
		!run_rules(run)->looks_up || !may_read(read_back, now) ||
		!list_is_due(&read_back->reader, now) || !account_has_room(run->account, now))
		return;
	(void) list_ask(&read_back->reader, run->account, MAX_PAGE_BYTES, read_back);
}

/*
 * Smart Encoding may have changed the text that the list shows, or not; and whether
 * links are signed, or how, may have changed since.
 */
static int64
hash_of_text(const char *text)
{
	text = without_signatures(smart_text(text));
	return (int64) hash_bytes_extended((const unsigned char *) text, strlen(text), 0);
}

static void
add_message(ReadBack *read_back, const ListedMessage *listed, int64 list_user_id)
{
	FoundMessage *message;
	MemoryContext old = MemoryContextSwitchTo(read_back->page_context);

	if (read_back->num_messages % 1024 == 0)
	{
		Size size = (read_back->num_messages + 1024) * sizeof(FoundMessage);

		read_back->messages = read_back->messages ? repalloc(read_back->messages, size)
												  : palloc(size);
	}
	message = &read_back->messages[read_back->num_messages++];
	message->sid = pstrdup(listed->sid);
	message->phone = pstrdup(number_of_address(listed->to));
	message->list_user_id = list_user_id;
	message->segments = listed->segments;
	message->text_hash = hash_of_text(listed->body);
	message->certain = true;
	MemoryContextSwitchTo(old);
}

static bool
has_message_of(const ReadBack *read_back, int first, int64 list_user_id)
{
	for (int i = first; i < read_back->num_messages; i++)
	{
		if (read_back->messages[i].list_user_id == list_user_id)
			return true;
	}
	return false;
}

/* Adds one for each list user whose link is in the text. */
static void
add_messages_by_link(ReadBack *read_back, const ListedMessage *listed)
{
	const char *text = smart_text(listed->body);
	int			first = read_back->num_messages;
	int64		id;

	while (link_next(read_back->link_form, &text, &id))
	{
		if (!has_message_of(read_back, first, id))
			add_message(read_back, listed, id);
	}
	for (int i = first; read_back->num_messages - first > 1 && i < read_back->num_messages; i++)
		read_back->messages[i].certain = false;
}

static void
look_at_past(void *arg, const ListedMessage *listed)
{
	ReadBack *read_back = arg;

	if (listed->sid == NULL || listed->inbound ||
		list_date_is_older(listed->created, list_since(&read_back->reader)))
		return;
	read_back->is_redacted |= is_redacted(listed);
	if (listed->to == NULL || listed->body == NULL)
		return;
	if (read_back->link_form)
		add_messages_by_link(read_back, listed);
	else if (read_back->run->campaign.text.content_sid == NULL &&
			 template_matches(read_back->template, smart_text(listed->body)))
		add_message(read_back, listed, 0);
}

void
take_read_back_answer(ReadBack *read_back, const HttpResponse *response)
{
	MemoryContextReset(read_back->page_context);
	read_back->messages = NULL;
	read_back->num_messages = 0;
	read_back->page_is_new = list_take(&read_back->reader, response, look_at_past, read_back) &&
							 !read_back->is_redacted;
}

/* Makes arrays of the page's messages: sids, phones, list user ids, segments, hashes, certain. */
static void
message_arrays(const ReadBack *read_back, Datum *arrays)
{
	static const Oid types[] = {TEXTOID, TEXTOID, INT8OID, INT4OID, INT8OID, BOOLOID};
	Datum			*columns[lengthof(types)];

	for (int c = 0; c < lengthof(types); c++)
		columns[c] = palloc(Max(read_back->num_messages, 1) * sizeof(Datum));
	for (int i = 0; i < read_back->num_messages; i++)
	{
		const FoundMessage *message = &read_back->messages[i];

		columns[0][i] = CStringGetTextDatum(message->sid);
		columns[1][i] = CStringGetTextDatum(message->phone);
		columns[2][i] = Int64GetDatum(message->list_user_id);
		columns[3][i] = Int32GetDatum(message->segments);
		columns[4][i] = Int64GetDatum(message->text_hash);
		columns[5][i] = BoolGetDatum(message->certain);
	}
	for (int c = 0; c < lengthof(types); c++)
		arrays[c] = make_array(columns[c], NULL, read_back->num_messages, types[c]);
}

/*
 * A message that the tables know already was not lost, even if another has been
 * sent in its place.  One to a phone number
 * that another run has claimed is withheld, as it may be that run's: the
 * recipient is looked up instead.
 */
static void
insert_messages(const Run *run)
{
#define INSERT_MESSAGES                                                                            \
	"INSERT INTO sendcampaign.read_back_message"                                                   \
	" (run_id, sid, phone, list_user_id, segments, text_hash, certain, withheld)"                  \
	" SELECT $1, u.*, u.phone IN (SELECT o.phone FROM sendcampaign.claim c,"                       \
	"  unnest(c.phones) o(phone) WHERE c.run_id <> $1 AND o.phone IS NOT NULL)"                    \
	" FROM unnest($2, $3, $4, $5, $6, $7) u(sid, phone, id, segments, text_hash, certain)"
	static OwnStatement with_link = {
		INSERT_MESSAGES
		" WHERE NOT EXISTS (SELECT FROM sendcampaign.message_data m JOIN sendcampaign.run_data r"
		"  ON r.id = m.run_id WHERE r.campaign_id = $8 AND m.list_user_id = u.id"
		"  AND m.sid = u.sid AND m.status <> 'skipped')"
		" AND NOT EXISTS (SELECT FROM sendcampaign.receipt_data d JOIN sendcampaign.run_data r"
		"  ON r.id = d.run_id WHERE r.campaign_id = $8 AND d.list_user_id = u.id"
		"  AND d.first_sid = u.sid AND d.xmin = d.written_in)"
		" ON CONFLICT DO NOTHING",
		8,
		{INT8OID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID,
		 BOOLARRAYOID, INT8OID}};
	/* no plan is kept: it has to hash the messages, rather than search for each SID */
	static const char *const without_link = INSERT_MESSAGES
		" WHERE NOT EXISTS (SELECT FROM sendcampaign.message_data m WHERE m.sid = u.sid"
		"  AND m.status <> 'skipped')"
		" AND NOT EXISTS (SELECT FROM sendcampaign.receipt_data d WHERE d.first_sid = u.sid"
		"  AND d.xmin = d.written_in)"
		" ON CONFLICT DO NOTHING";
	Datum values[8];

	values[0] = Int64GetDatum(run->id);
	message_arrays(run->read_back, &values[1]);
	values[7] = Int64GetDatum(run->campaign.id);
	if (run->read_back->link_form)
		(void) own_execute(&with_link, values, NULL);
	else
		(void) own_query(without_link, 7, with_link.types, values, NULL);
}

/* Everything is read: the run may continue in this cluster. */
static void
end_read_back(Run *run)
{
	runs_set_read_back(run->id);
}

void
store_read_back(Run *run)
{
	static OwnStatement lock = {
		"SELECT FROM sendcampaign.run_data WHERE id = $1 FOR KEY SHARE", 1, {INT8OID}};
	ReadBack *read_back = run->read_back;
	Datum	  id = Int64GetDatum(run->id);

	if (read_back == NULL || !read_back->page_is_new)
		return;
	if (own_execute(&lock, &id, NULL) == 0)
		return; /* a run that has failed may be forgotten at any time, with what was read back */
	insert_messages(run);
	if (read_back->reader.url == NULL)
		end_read_back(run);
	read_back->storing = true;
}

void
keep_read_back(Run *run)
{
	ReadBack *read_back = run->read_back;

	if (read_back == NULL || !read_back->storing)
		return;
	read_back->storing = read_back->page_is_new = false;
	if (read_back->reader.url)
		return;
	run->read_back = NULL;
	run_count_doubt(run, -1);
	run->was_read_back = true;
	ereport(LOG,
			(errmsg("sendcampaign: job %lld: what was sent has been read back from Twilio;"
					" the run continues",
					(long long) run->job_id)));
}

void
unstore_read_back(Run *run)
{
	if (run->read_back)
		run->read_back->storing = false;
}

bool
read_back_is_under_way(const Run *run)
{
	return run->read_back && run->read_back->reader.under_way;
}

const char *
why_not_read_back(const Run *run)
{
	if (run->read_back == NULL)
		return NULL;
	return run->read_back->is_redacted ? REDACTED : run->read_back->reader.refusal;
}

void
give_up_read_back(Run *run)
{
	ReadBack   *read_back = run->read_back;
	const char *refusal = why_not_read_back(run);

	if (read_back == NULL || read_back->reader.under_way || read_back->page_is_new ||
		(refusal == NULL && run->stop_reason == NULL))
		return;
	run_stop(run, psprintf("what was sent before commits were lost cannot be read back: %s",
						   refusal ? refusal : "the run has stopped"));
	run->read_back = NULL;
	run_count_doubt(run, -1);
}

/* What was read back for a message. */
typedef struct ReadBackFound
{
	char *sid;
	int	  segments;
	int64 count;	  /* of messages that it may be */
	bool  same_phone; /* it went to this phone number */
	bool  certain;	  /* it has no other recipient's link */
	bool  same_text;
} ReadBackFound;

/* False if nothing was read back that may be this message. */
static bool
find_read_back(const Message *message, bool has_link, ReadBackFound *found)
{
	static OwnStatement by_link = {
		"SELECT sid, segments, 1::int8, phone = $3, certain, text_hash = $4"
		" FROM sendcampaign.read_back_message WHERE run_id = $1 AND list_user_id = $2"
		" AND NOT withheld ORDER BY phone = $3 AND certain DESC, phone = $3 DESC,"
		" text_hash = $4 DESC, sid LIMIT 1",
		4,
		{INT8OID, INT8OID, TEXTOID, INT8OID}};
	static OwnStatement by_phone = {
		"SELECT min(sid), min(segments), count(*), true, true, bool_and(text_hash = $3)"
		" FROM sendcampaign.read_back_message WHERE run_id = $1 AND phone = $2 AND NOT withheld",
		3,
		{INT8OID, TEXTOID, INT8OID}};
	Datum id = Int64GetDatum(message->claim->run->id);
	Datum list_user_id = Int64GetDatum(message->list_user_id);
	Datum phone = CStringGetTextDatum(message->phone);
	Datum hash = Int64GetDatum(hash_of_text(message->text));

	if (has_link)
		(void) own_execute(&by_link, (Datum[]){id, list_user_id, phone, hash}, NULL);
	else
		(void) own_execute(&by_phone, (Datum[]){id, phone, hash}, NULL);
	if (SPI_processed == 0 || spi_int64(0, 3) == 0)
		return false;
	*found = (ReadBackFound){.sid = spi_string(0, 1),
							 .segments = spi_int32(0, 2),
							 .count = spi_int64(0, 3),
							 .same_phone = spi_bool(0, 4),
							 .certain = spi_bool(0, 5),
							 .same_text = spi_bool(0, 6)};
	return true;
}

/* Tells whether the list has a message that may be its, or another run's. */
static bool
has_withheld(const Message *message)
{
	static OwnStatement statement = {
		"SELECT FROM sendcampaign.read_back_message WHERE run_id = $1 AND withheld"
		" AND (list_user_id = $2 OR (list_user_id = 0 AND phone = $3)) LIMIT 1",
		3,
		{INT8OID, INT8OID, TEXTOID}};
	Datum values[] = {Int64GetDatum(message->claim->run->id), Int64GetDatum(message->list_user_id),
					  CStringGetTextDatum(message->phone)};

	return own_execute(&statement, values, NULL) > 0;
}

/*
 * Workers of several roles may have read back the same message, so they take
 * turns, to the end of their transactions.  No SQL command takes such a lock.
 */
static void
lock_read_back_messages(void)
{
	Oid table = get_relname_relid("read_back_message", get_namespace_oid("sendcampaign", false));

	LockDatabaseObject(RelationRelationId, table, 1, ExclusiveLock);
}

/*
 * A message counts for only one recipient of one run, though several runs may
 * have read it back; returns false if it has been taken already.
 */
static bool
take_read_back(const Message *message)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.read_back_message SET list_user_id = $3, taken = true"
		" WHERE run_id = $1 AND sid = $2 AND list_user_id IN (0, $3)"
		" AND NOT EXISTS (SELECT FROM sendcampaign.read_back_message o"
		"  WHERE o.sid = $2 AND o.run_id <> $1 AND o.taken)",
		3,
		{INT8OID, TEXTOID, INT8OID}};
	Datum values[] = {Int64GetDatum(message->claim->run->id), CStringGetTextDatum(message->sid),
					  Int64GetDatum(message->list_user_id)};

	lock_read_back_messages();
	return own_execute(&statement, values, NULL) == 1;
}

static void
leave_in_doubt(Message *message, const char *why)
{
	message->sid = NULL;
	message->error_message = message_strdup(message, why);
	message_done(message, OUTCOME_IN_DOUBT);
}

/* Why the message that was found cannot be recorded as this one, or NULL. */
static const char *
why_not_recognized(const Message *message, bool has_link, const ReadBackFound *found)
{
	if (!found->same_phone)
		return "Twilio's list has this recipient's message, to another number";
	if (!found->certain)
		return "Twilio's list has a message with both its link and another recipient's link";
	if (has_link && !found->same_text &&
		has_twin_since(message, run_start(message->claim->run) - LIST_TIME_SLACK))
		return "Twilio's list has a message with its link and another text,"
			   " which may be another run's";
	if (!has_link && !found->same_text)
		return "Twilio's list has a text to this number that may be this message";
	if (message->sid == NULL || !take_read_back(message))
		return "Twilio's list has a message with this text to this number,"
			   " but not certainly this recipient's";
	return NULL;
}

/*
 * Decides whether it was sent.  A text without a link only shows that the
 * number has received it; if several recipients have the number, nobody can
 * tell which of them it was for.  A link identifies the recipient; but the
 * number may have changed, or it was a test of the author's.
 */
static void
recognize(Message *message, bool has_link)
{
	ReadBackFound found;
	const char	 *why;

	if (!find_read_back(message, has_link, &found))
	{
		if (!run_is_cancelled(message->claim->run) || has_withheld(message))
			suspect(message);
		return;
	}
	message->attempts = 1;
	if (has_link || found.count == 1)
	{
		message->sid = message_strdup(message, found.sid);
		message->segments = found.segments;
	}
	why = why_not_recognized(message, has_link, &found);
	if (why)
		leave_in_doubt(message, why);
	else
		message_done(message, OUTCOME_SENT);
}

void
recognize_sent(Claim *claim)
{
	Run *run = claim->run;
	bool has_link = campaign_has_links(&run->campaign);

	if (!run->was_read_back)
		return;
	for (int i = 0; i < claim->num_messages; i++)
	{
		if (claim->messages[i].state == MESSAGE_READY)
			recognize(&claim->messages[i], has_link);
	}
}
