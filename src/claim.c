/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  The first stage: which recipients are next.
 *
 * When a run starts, the ids of its recipients are stored in batches, so
 * that the table is read once a run and the set of recipients is fixed.
 * Claiming takes a batch: in one transaction it is deleted there, and the
 * ids and phones of those to whom a message may now go are written to
 * sendcampaign.claim.  What a crash leaves there without an outcome is in
 * doubt, exactly.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "claim.h"
#include "group.h"
#include "history.h"
#include "miscadmin.h"
#include "orders.h"
#include "own.h"
#include "render.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define FETCH_SIZE (BATCH_SIZE * 16)

/* Where senders have a rate, a claim is what they send in so many seconds. */
#define CLAIM_SECONDS 2

static void
store_batch(Run *run, int number, Datum *ids, int count)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.batch (job_id, number, list_user_ids) VALUES ($1, $2, $3)",
		3,
		{INT8OID, INT4OID, INT8ARRAYOID}};
	Datum values[] = {Int64GetDatum(run->job_id), Int32GetDatum(number),
					  make_array(ids, NULL, count, INT8OID)};

	(void) own_execute(&statement, values, NULL);
}

int64
store_recipients(Run *run)
{
	Portal		  portal = tables_open_list(run->tables, run->list_id);
	Datum		 *ids = palloc(FETCH_SIZE * sizeof(Datum));
	int64		  total = 0;
	int			  number = 0;
	int			  fetched;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "sendcampaign recipients",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;

	do
	{
		SPI_cursor_fetch(portal, true, FETCH_SIZE);
		fetched = (int) SPI_processed;
		for (int i = 0; i < fetched; i++)
			ids[i] = Int64GetDatum(spi_int64(i, 1));
		SPI_freetuptable(SPI_tuptable);
		for (int i = 0; i < fetched; i += BATCH_SIZE)
		{
			/* SPI leaves us in its own context, where all would gather */
			MemoryContextSwitchTo(context);
			store_batch(run, ++number, ids + i, Min(BATCH_SIZE, fetched - i));
			MemoryContextReset(context);
		}
		total += fetched;
		CHECK_FOR_INTERRUPTS();
	} while (fetched == FETCH_SIZE);
	SPI_cursor_close(portal);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return total;
}

/* Takes the next batch out of the table; NULL where there is none. */
static ArrayType *
take_batch(Run *run, int *number)
{
	static OwnStatement statement = {
		"DELETE FROM sendcampaign.batch WHERE job_id = $1 AND number ="
		" (SELECT b.number FROM sendcampaign.batch b WHERE b.job_id = $1 AND b.number > $2"
		"  ORDER BY b.number LIMIT 1)"
		" RETURNING number, list_user_ids",
		2,
		{INT8OID, INT4OID}};
	Datum values[] = {Int64GetDatum(run->job_id), Int32GetDatum(run->last_batch)};
	bool  isnull;

	if (own_execute(&statement, values, NULL) == 0)
		return NULL;
	*number = spi_int32(0, 1);
	return DatumGetArrayTypePCopy(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
}

static Claim *
create_claim(Run *run, int count)
{
	MemoryContext context = AllocSetContextCreate(run->context, "sendcampaign claim",
												  ALLOCSET_DEFAULT_SIZES);
	Claim		 *claim = MemoryContextAllocZero(context, sizeof(Claim));

	claim->context = context;
	claim->run = run;
	claim->number = ++run->last_claim;
	claim->tentative = true;
	claim->claimed_at = GetCurrentTimestamp();
	claim->open = count;
	claim->num_messages = count;
	claim->messages = MemoryContextAllocZero(context, Max(count, 1) * sizeof(Message));
	for (int i = 0; i < count; i++)
	{
		claim->messages[i].claim = claim;
		claim->messages[i].state = MESSAGE_RECORDED; /* in no list yet */
	}
	dlist_push_tail(&run->claims, &claim->node);
	run->open += count;
	return claim;
}

static void
skip(Message *message, const char *reason)
{
	message->error_message = message_strdup(message, reason);
	message_done(message, OUTCOME_SKIPPED);
}

static void
set_text(Message *message)
{
	Run	 *run = message->claim->run;
	char *link = render_link(run->base_url, message->list_user_id, run->campaign_id);
	char *text = render_text(run->message, link);

	message->text = message_strdup(message, text);
	message->link = link ? message->text + strlen(text) - strlen(link) : NULL;
}

static void
set_sender(Message *message, char *const *names, int count)
{
	const char *name = names[choose_sender(names, count, message->phone)];

	message->queue = run_queue(message->claim->run, message->claim->account_sid, name);
}

/* One row of tables_read_recipients: to be sent, or skipped for a reason. */
static void
fill_message(Message *message, uint64 row)
{
	Run	 *run = message->claim->run;
	char *phone = spi_string(row, 4);
	char *e164;

	message->list_user_id = spi_int64(row, 1);
	message->phone = message_strdup(message, phone);
	if (!spi_bool(row, 2))
		skip(message, "list user no longer exists");
	else if (!spi_bool(row, 3))
		skip(message, "list user is no longer in the list");
	else if (phone == NULL || phone[strspn(phone, " \t\r\n")] == '\0')
		skip(message, "no phone number");
	else if ((e164 = normalize_phone(phone)) == NULL)
		skip(message, "phone number is not in E.164 form");
	else
	{
		message->phone = message_strdup(message, e164);
		set_text(message);
		set_sender(message, run->senders, run->num_senders);
		message_ready(message);
	}
}

/* How many messages are to be claimed at once. */
static int
run_appetite(const Run *run)
{
	double appetite = run->rate * run->num_senders * CLAIM_SECONDS;

	return run->rate > 0 ? (int) Max(1, Min(BATCH_SIZE, appetite)) : BATCH_SIZE;
}

/*
 * Where the senders are slow, a claim is small: what is claimed is no longer
 * open to whatever may be changed meanwhile.  Puts what is too much back into
 * the batch; returns the ids that are left.
 */
static ArrayType *
put_back_surplus(Run *run, int number, ArrayType *ids, bool *whole)
{
	int	   limit = run_appetite(run);
	Datum *values;
	int	   count;

	deconstruct_array(ids, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, NULL,
					  &count);
	*whole = count <= limit;
	if (*whole)
		return ids;
	store_batch(run, number, values + limit, count - limit);
	return DatumGetArrayTypeP(make_array(values, NULL, limit, INT8OID));
}

/* Writes down whom a message may now go to. */
static void
store_claim(Claim *claim)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.claim"
		" (job_id, number, list_user_ids, phones, account, senders, claimed_at, twilio_time)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		8,
		{INT8OID, INT4OID, INT8ARRAYOID, TEXTARRAYOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID,
		 INT8OID}};
	Run	  *run = claim->run;
	Datum *ids = palloc(claim->num_messages * sizeof(Datum));
	Datum *phones = palloc(claim->num_messages * sizeof(Datum));
	int	   count = 0;

	for (int i = 0; i < claim->num_messages; i++)
	{
		Message *message = &claim->messages[i];

		if (message->state != MESSAGE_READY)
			continue;
		ids[count] = Int64GetDatum(message->list_user_id);
		phones[count++] = CStringGetTextDatum(message->phone);
	}
	if (count > 0)
	{
		Datum values[] = {Int64GetDatum(run->job_id),
						  Int32GetDatum(claim->number),
						  make_array(ids, NULL, count, INT8OID),
						  make_array(phones, NULL, count, TEXTOID),
						  CStringGetTextDatum(claim->account_sid),
						  make_text_array(run->senders, run->num_senders),
						  TimestampTzGetDatum(claim->claimed_at),
						  Int64GetDatum(claim->twilio_time)};

		(void) own_execute(&statement, values, NULL);
	}
}

/* Those that nothing has been sent to. */
static void
skip_ready(Claim *claim)
{
	for (int i = 0; i < claim->num_messages; i++)
	{
		if (claim->messages[i].state == MESSAGE_READY)
			skip(&claim->messages[i], "cancelled");
	}
}

void
claim_batch(Run *run)
{
	int		   number;
	ArrayType *ids = take_batch(run, &number);
	Claim	  *claim;
	uint64	   count;
	bool	   whole;

	if (ids == NULL)
	{
		run->exhausted = true;
		return;
	}
	read_group(run);
	ids = put_back_surplus(run, number, ids, &whole);
	count = tables_read_recipients(run->tables, PointerGetDatum(ids), run->list_id);
	claim = create_claim(run, (int) count);
	claim->batch = number;
	claim->account_sid = MemoryContextStrdup(claim->context, run->account->sid);
	if (worker.twilio_offset_known)
		claim->twilio_time = timestamptz_to_time_t(claim->claimed_at) + worker.twilio_offset;
	for (uint64 i = 0; i < count; i++)
		fill_message(&claim->messages[i], i);
	SPI_freetuptable(SPI_tuptable);
	recognize_sent(claim);
	if (run->cancelled)
		skip_ready(claim);
	store_claim(claim);
	run->last_batch = whole ? number : number - 1;
	claim->stored = true;
}

void
keep_claims(Run *run)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->claims)
		dlist_container(Claim, node, iter.cur)->tentative = false;
}

void
drop_claim(Claim *claim)
{
	Run *run = claim->run;

	for (int i = 0; i < claim->num_messages; i++)
	{
		Message *message = &claim->messages[i];

		Assert(message->state != MESSAGE_SENDING && message->state != MESSAGE_LOOKING_UP);
		if (message->state != MESSAGE_RECORDED)
		{
			message_done(message, OUTCOME_NONE);
			dlist_delete(&message->node);
			run->num_done--;
		}
		run->open--;
	}
	free_claim(claim);
}

void
drop_unfinished_claim(Run *run)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		if (claim->tentative && !claim->stored)
			drop_claim(claim);
	}
}

void
drop_tentative_claims(Run *run)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		if (!claim->tentative)
			continue;
		run->last_batch = Min(run->last_batch, claim->batch - 1);
		run->exhausted = false;
		drop_claim(claim);
	}
}

void
free_claim(Claim *claim)
{
	dlist_delete(&claim->node);
	MemoryContextDelete(claim->context);
}

/* One row of recover_claims: a claim with the messages that are in doubt. */
static void
recover_claim(Run *run, uint64 row, TimestampTz due)
{
	bool   isnull;
	Datum *ids;
	Datum *phones;
	char **senders;
	int	   num_senders;
	int	   count;
	Claim *claim;

	deconstruct_array(DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[row],
													   SPI_tuptable->tupdesc, 2, &isnull)),
					  INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, NULL, &count);
	deconstruct_array(DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[row],
													   SPI_tuptable->tupdesc, 3, &isnull)),
					  TEXTOID, -1, false, TYPALIGN_INT, &phones, NULL, &count);
	claim = create_claim(run, count);
	claim->number = spi_int32(row, 1);
	run->last_claim = Max(run->last_claim, claim->number);
	claim->recovered = true;
	claim->stored = true;
	claim->account_sid = MemoryContextStrdup(claim->context, spi_string(row, 4));
	senders = spi_strings(row, 5, &num_senders);
	claim->claimed_at = spi_timestamptz(row, 6);
	claim->twilio_time = spi_int64(row, 7);
	for (int i = 0; i < count; i++)
	{
		Message *message = &claim->messages[i];

		message->list_user_id = DatumGetInt64(ids[i]);
		message->phone = message_strdup(message, TextDatumGetCString(phones[i]));
		set_text(message);
		set_sender(message, senders, num_senders);
		message->attempts = 1;
		message_wait(message, MESSAGE_IN_DOUBT, due);
	}
}

void
recover_claims(Run *run)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(run->job_id);
	uint64		count;
	TimestampTz due;

	/*
	 * The worker that sent them is gone, so nothing leaves any more; what it
	 * had sent may be under way for as long as a request may take.
	 */
	due = TimestampTzPlusMilliseconds(
		GetCurrentTimestamp(), to_ms(sendcampaign_request_timeout + sendcampaign_lookup_delay));
	count = own_query(
		"SELECT c.number, array_agg(u.id ORDER BY u.id), array_agg(u.phone ORDER BY u.id),"
		" c.account, c.senders, c.claimed_at, c.twilio_time"
		" FROM sendcampaign.claim c"
		" CROSS JOIN LATERAL unnest(c.list_user_ids, c.phones) u(id, phone)"
		" WHERE c.job_id = $1 AND NOT EXISTS (SELECT FROM sendcampaign.message m"
		"  WHERE m.job_id = c.job_id AND m.list_user_id = u.id)"
		" GROUP BY c.job_id, c.number",
		1, &type, &value, NULL);
	for (uint64 i = 0; i < count; i++)
		recover_claim(run, i, due);
	if (count > 0)
		ereport(
			LOG,
			(errmsg(
				"sendcampaign: job %lld: looking up %d messages that an earlier worker left in doubt",
				(long long) run->job_id, run->open)));

	/* a claim all of whose outcomes are there was about to be deleted */
	(void) own_query("DELETE FROM sendcampaign.claim c WHERE c.job_id = $1 AND NOT EXISTS"
					 " (SELECT FROM unnest(c.list_user_ids) u(id) WHERE NOT EXISTS"
					 "  (SELECT FROM sendcampaign.message m"
					 "   WHERE m.job_id = c.job_id AND m.list_user_id = u.id))",
					 1, &type, &value, NULL);
}

/* With so many messages ready, none need be claimed. */
static int
enough_ready(const Run *run)
{
	if (run->account == NULL)
		return 1;
	if (run->rate > 0)
		return (run_appetite(run) + 1) / 2;
	return Max(run->account->window, BATCH_SIZE / 2);
}

bool
wants_claim(const Run *run, TimestampTz now)
{
	int enough = enough_ready(run);

	if (run->cancelled)
		return wants_wind_up(run, now);
	return !worker.leaving && sendcampaign_enabled && !run->exhausted && !run->finished &&
		   run_may_send(run) && run->history == NULL && run->num_ready < enough &&
		   run->claiming.until <= now &&
		   (run->account == NULL || run->account->paused_until <= now || run->num_ready == 0) &&
		   run->open - run->num_done - run->num_agenda < 4 * enough + 2 * BATCH_SIZE &&
		   run->open < 4 * sendcampaign_max_concurrency + 16 * BATCH_SIZE;
}
