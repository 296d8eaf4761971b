/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  The first stage: which recipients are next.
 *
 * Claiming takes a batch: in one transaction it is deleted there, and the
 * ids and phones of those to whom a message may now go are written to
 * sendcampaign.claim.  What a crash leaves there without an outcome is in
 * doubt, exactly.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "batch.h"
#include "catalog/pg_type.h"
#include "claim.h"
#include "group.h"
#include "history.h"
#include "mb/pg_wchar.h"
#include "orders.h"
#include "own.h"
#include "record.h"
#include "render.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Where senders have a rate, a claim is what they send in so many seconds. */
#define CLAIM_SECONDS 2

/*
 * Of claims that were loaded, no more recipients are believed to have been
 * under way, and no more bytes of phones and texts to be in one.
 */
#define MAX_LOADED_CLAIMED 100000
#define MAX_CLAIM_BYTES	   (16 * 1024 * 1024)

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
set_sender(Message *message, char *const *names, int count)
{
	const char *name = names[choose_sender(names, count, message->phone)];

	message->queue = run_queue(message->claim->run, message->claim->account_sid, name);
}

static void
fill_message(Message *message, const Recipient *recipient)
{
	const GroupConfig *group = message->claim->run->campaign.group;

	message->list_user_id = recipient->list_user_id;
	message->phone = message_strdup(message, recipient->phone);
	if (recipient->skip)
	{
		skip(message, recipient->reason);
		return;
	}
	message->text = message_strdup(message, recipient->text);
	message->link = message_strdup(message, recipient->link);
	message->until = recipient->until;
	set_sender(message, group->senders, group->num_senders);
	message_ready(message);
}

/* How many messages are to be claimed at once: few for a slow sender. */
static int
run_appetite(const Run *run)
{
	const GroupConfig *group = run->campaign.group;
	double			   appetite = group->rate * group->num_senders * CLAIM_SECONDS;

	return group->rate > 0 ? (int) Max(1, Min(BATCH_SIZE, appetite)) : BATCH_SIZE;
}

/* The columns of a claim's row; texts only where they cannot be made again. */
typedef struct ClaimArrays
{
	int	   count;
	Datum *ids;
	Datum *phones;
	Datum *texts;
} ClaimArrays;

static void
collect_ready(const Claim *claim, ClaimArrays *arrays)
{
	arrays->count = 0;
	arrays->ids = palloc(claim->num_messages * sizeof(Datum));
	arrays->phones = palloc(claim->num_messages * sizeof(Datum));
	arrays->texts = palloc(claim->num_messages * sizeof(Datum));
	for (int i = 0; i < claim->num_messages; i++)
	{
		const Message *message = &claim->messages[i];

		/* what was recognized as sent is not recorded yet, and must not get lost */
		if (message->state != MESSAGE_READY && message->outcome == OUTCOME_SKIPPED)
			continue;
		arrays->ids[arrays->count] = Int64GetDatum(message->list_user_id);
		arrays->phones[arrays->count] = CStringGetTextDatum(message->phone);
		arrays->texts[arrays->count++] = CStringGetTextDatum(
			pg_any_to_server(message->text, strlen(message->text), PG_UTF8));
	}
}

/* Writes down whom a message may now go to. */
static void
store_claim(Claim *claim)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.claim (run_id, number, list_user_ids, phones, account, senders,"
		" claimed_at, twilio_time, texts) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		9,
		{INT8OID, INT4OID, INT8ARRAYOID, TEXTARRAYOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID,
		 INT8OID, TEXTARRAYOID}};
	Run			*run = claim->run;
	GroupConfig *group = run->campaign.group;
	bool		 personal = template_is_personal(run->campaign.template);
	ClaimArrays	 arrays;
	Datum		 values[9];

	collect_ready(claim, &arrays);
	if (arrays.count == 0)
		return;
	values[0] = Int64GetDatum(run->id);
	values[1] = Int32GetDatum(claim->number);
	values[2] = make_array(arrays.ids, NULL, arrays.count, INT8OID);
	values[3] = make_array(arrays.phones, NULL, arrays.count, TEXTOID);
	values[4] = CStringGetTextDatum(claim->account_sid);
	values[5] = make_text_array(group->senders, group->num_senders);
	values[6] = TimestampTzGetDatum(claim->claimed_at);
	values[7] = Int64GetDatum(claim->twilio_time);
	values[8] = personal ? make_array(arrays.texts, NULL, arrays.count, TEXTOID) : (Datum) 0;
	(void) own_execute(&statement, values, personal ? NULL : "        n");
}

void
refresh_group(Run *run)
{
	MemoryContext context = AllocSetContextCreate(run->context, "sendcampaign group",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	GroupConfig	 *group = read_group(run->campaign.tables, run->campaign.id, run->campaign.list_id);

	MemoryContextSwitchTo(old);
	run_use_group(run, group, context);
	run->group_is_new = true;
}

/*
 * Puts those off for whom it is night, and leaves the others; returns how
 * many.  Recipients in one zone have the same morning.
 */
static int
put_off_sleepers(Run *run, Recipient *recipients, int count)
{
	Datum *ids = palloc(Max(count, 1) * sizeof(Datum));
	int	   awake = 0;

	for (int i = 0; i < count; i++)
	{
		TimestampTz due = recipients[i].skip ? 0 : recipients[i].due;
		int			num_ids = 0;

		if (due == 0 && recipients[i].list_user_id != 0)
			recipients[awake++] = recipients[i];
		for (int j = i; due != 0 && j < count; j++)
		{
			if (recipients[j].skip || recipients[j].due != due)
				continue;
			ids[num_ids++] = Int64GetDatum(recipients[j].list_user_id);
			recipients[j].due = 0;
			recipients[j].list_user_id = 0; /* taken care of */
		}
		if (num_ids > 0)
			put_off(run, ids, num_ids, due);
	}
	return awake;
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

/* Makes a claim of those who are to get a message, or to be skipped, now. */
static void
make_claim(Run *run, int batch, const Recipient *recipients, int count)
{
	Claim *claim = create_claim(run, count);

	claim->batch = batch;
	claim->account_sid = MemoryContextStrdup(claim->context, run->account->sid);
	if (worker.twilio_offset_known)
		claim->twilio_time = timestamptz_to_time_t(claim->claimed_at) + worker.twilio_offset;
	for (int i = 0; i < count; i++)
		fill_message(&claim->messages[i], &recipients[i]);
	recognize_sent(claim);
	if (run->cancelled)
		skip_ready(claim);
	store_claim(claim);
	record_skipped(claim);
	claim->stored = true;
}

/*
 * Puts those back into the batch that the senders are too slow for now; who
 * is skipped need not wait for them.  Returns how many are left.
 */
static int
put_back_surplus(Run *run, const Batch *batch, Recipient *recipients, int count)
{
	Datum *ids = palloc(Max(count, 1) * sizeof(Datum));
	int	   limit = run_appetite(run);
	int	   num_ids = 0;
	int	   kept = 0;

	for (int i = 0; i < count; i++)
	{
		if (recipients[i].skip != NOT_SKIPPED || limit-- > 0)
			recipients[kept++] = recipients[i];
		else
			ids[num_ids++] = Int64GetDatum(recipients[i].list_user_id);
	}
	if (num_ids > 0)
		put_back(run, batch, ids, num_ids);
	return kept;
}

void
claim_batch(Run *run)
{
	Batch	   batch;
	Recipient *recipients;
	int		   count;

	if (!take_batch(run, &batch))
		return;
	if (!run->group_is_new)
		refresh_group(run);
	if (run->may_overlap)
		batch.ids = leave_out_known(run, batch.ids);
	recipients = read_recipients(&run->campaign, batch.ids, GetCurrentTimestamp(), &count);
	if (run->campaign.test_phone == NULL)
		skip_twins_of_run(run->id, recipients, count, batch.twins);
	if (!run->cancelled)
	{
		count = put_off_sleepers(run, recipients, count);
		count = put_back_surplus(run, &batch, recipients, count);
	}
	if (count > 0)
		make_claim(run, batch.number, recipients, count);
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

		if (!claim->tentative || claim->stored)
			continue;
		unrecord_skipped(claim);
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
		run->next_at = 0;
		drop_claim(claim);
	}
}

void
free_claim(Claim *claim)
{
	dlist_delete(&claim->node);
	MemoryContextDelete(claim->context);
}

/* What a recovered claim says of one recipient. */
static void
recover_message(Message *message, Datum id, char *phone, char *text)
{
	Campaign *campaign = &message->claim->run->campaign;
	char	 *link = campaign_link(campaign, DatumGetInt64(id));

	message->list_user_id = DatumGetInt64(id);
	message->phone = message_strdup(message, phone);
	if (text)
		text = to_utf8(text);
	else
		text = campaign_text(campaign, DatumGetInt64(id));
	message->text = message_strdup(message, text);
	if (link && link_match(campaign->link_form, text, message->list_user_id) != LINK_MISSING)
		message->link = message_strdup(message, link);
	message->attempts = 1;
}

/* One row of recover_claims: a claim with the messages that are in doubt. */
static void
recover_claim(Run *run, uint64 row, TimestampTz due, int64 gone_at)
{
	bool   isnull;
	Datum *ids;
	char **phones;
	char **texts;
	char **senders;
	int	   num_senders;
	int	   count;
	Claim *claim;

	deconstruct_array(DatumGetArrayTypeP(SPI_getbinval(SPI_tuptable->vals[row],
													   SPI_tuptable->tupdesc, 2, &isnull)),
					  INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, NULL, &count);
	phones = spi_nullable_strings(row, 3, &count);
	texts = spi_nullable_strings(row, 8, &count);
	senders = spi_strings(row, 5, &num_senders);
	claim = create_claim(run, count);
	claim->number = spi_int32(row, 1);
	run->last_claim = Max(run->last_claim, claim->number);
	claim->recovered = true;
	claim->stored = true;
	claim->account_sid = MemoryContextStrdup(claim->context, spi_string(row, 4));
	claim->claimed_at = spi_timestamptz(row, 6);
	claim->twilio_time = spi_int64(row, 7);
	for (int i = 0; i < count; i++)
	{
		recover_message(&claim->messages[i], ids[i], phones[i], texts[i]);
		set_sender(&claim->messages[i], senders, num_senders);
		claim->messages[i].gone_at = gone_at;
		message_wait(&claim->messages[i], MESSAGE_IN_DOUBT, due);
	}
}

/*
 * A claim that was loaded, from a dump perhaps, is taken for one only where
 * it is such as the extension makes them.
 */
#define IS_POSSIBLE_CLAIM                                                                               \
	"(CASE WHEN number > 0 AND number < 1000000000 AND array_ndims(list_user_ids) = 1"                  \
	" AND array_ndims(phones) = 1 AND array_ndims(senders) = 1"                                         \
	" AND cardinality(list_user_ids) <= $3 AND cardinality(phones) = cardinality(list_user_ids)"        \
	" AND cardinality(senders) <= $4"                                                                   \
	" AND (texts IS NULL OR cardinality(texts) = cardinality(list_user_ids))"                           \
	" AND pg_column_size(phones) + coalesce(pg_column_size(texts), 0) <= $5"                            \
	" THEN array_position(list_user_ids, NULL) IS NULL AND array_position(phones, NULL) IS NULL"        \
	"  AND array_position(senders, NULL) IS NULL"                                                       \
	"  AND cardinality(list_user_ids) = (SELECT count(DISTINCT u.id) FROM unnest(list_user_ids) u(id))" \
	" ELSE false END)"

/*
 * A recipient has one claim: one that the extension wrote here goes before
 * those that were loaded, and the lower number before the higher one.  Of the
 * loaded ones, no more are kept than a worker can have had under way, and none
 * with a recipient who is in a batch, and so has not been claimed.
 */
void
drop_impossible_claims(int64 run_id, int64 job_id)
{
	static const char *const sql =
		"WITH c AS MATERIALIZED (SELECT number, list_user_ids AS ids, xmin = written_in AS ours,"
		"   sum(cardinality(list_user_ids)) OVER (ORDER BY xmin = written_in DESC, number) AS total"
		"  FROM sendcampaign.claim WHERE run_id = $1 AND (xmin = written_in OR " IS_POSSIBLE_CLAIM
		")),"
		" owner AS (SELECT DISTINCT ON (u.id) u.id, c.number FROM c, unnest(c.ids) u(id)"
		"  WHERE c.ours OR c.total <= $2 ORDER BY u.id, c.ours DESC, c.number),"
		" unclaimed AS (SELECT c.number FROM c CROSS JOIN unnest(c.ids) u(id)"
		"  JOIN (SELECT i.id FROM sendcampaign.batch b, unnest(b.list_user_ids) i(id)"
		"   WHERE b.run_id = $1) i ON i.id = u.id WHERE NOT c.ours AND c.total <= $2),"
		" good AS (SELECT c.number FROM c WHERE c.ours OR (c.total <= $2"
		"  AND c.number NOT IN (TABLE unclaimed) AND NOT EXISTS"
		"  (SELECT FROM unnest(c.ids) u(id) JOIN owner o ON o.id = u.id WHERE o.number <> c.number)))"
		" DELETE FROM sendcampaign.claim WHERE run_id = $1 AND number NOT IN (TABLE good)";
	Oid	   types[] = {INT8OID, INT8OID, INT4OID, INT4OID, INT4OID};
	Datum  values[] = {Int64GetDatum(run_id), Int64GetDatum(MAX_LOADED_CLAIMED),
					   Int32GetDatum(BATCH_SIZE), Int32GetDatum(MAX_SENDERS),
					   Int32GetDatum(MAX_CLAIM_BYTES)};
	uint64 count = own_query(sql, 5, types, values, NULL);

	if (count > 0)
		ereport(LOG, (errmsg("sendcampaign: job %lld: " UINT64_FORMAT
							 " claims that were loaded cannot be its own and are not used",
							 (long long) job_id, count)));
}

/* Claims all of whose outcomes are there were about to be deleted. */
static void
delete_finished_claims(const Run *run)
{
	Oid	  type = INT8OID;
	Datum value = Int64GetDatum(run->id);

	(void) own_query("DELETE FROM sendcampaign.claim c WHERE c.run_id = $1 AND NOT EXISTS"
					 " (SELECT FROM unnest(c.list_user_ids) u(id) WHERE NOT EXISTS"
					 "  (SELECT FROM sendcampaign.message_data m"
					 "   WHERE m.run_id = c.run_id AND m.list_user_id = u.id))",
					 1, &type, &value, NULL);
}

void
recover_claims(Run *run)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(run->id);
	uint64		count;
	TimestampTz due;
	int64		gone_at;

	/*
	 * The worker that sent them is gone, so nothing leaves any more; what it
	 * had sent may be under way for as long as a request may take.
	 */
	gone_at = monotonic_time() + to_us(sendcampaign_request_timeout) +
			  to_us(sendcampaign_lookup_delay);
	due = TimestampTzPlusMilliseconds(
		GetCurrentTimestamp(), to_ms(sendcampaign_request_timeout + sendcampaign_lookup_delay));
	if (run->lost_history)
	{
		expect_overlaps(run);
		drop_impossible_claims(run->id, run->job_id);
	}
	count = own_query(
		"SELECT c.number, array_agg(u.id ORDER BY u.id), array_agg(u.phone ORDER BY u.id),"
		" c.account, c.senders, c.claimed_at, c.twilio_time, array_agg(u.text ORDER BY u.id)"
		" FROM sendcampaign.claim c"
		" CROSS JOIN LATERAL unnest(c.list_user_ids, c.phones, c.texts) u(id, phone, text)"
		" WHERE c.run_id = $1 AND NOT EXISTS (SELECT FROM sendcampaign.message_data m"
		"  WHERE m.run_id = c.run_id AND m.list_user_id = u.id)"
		" GROUP BY c.run_id, c.number",
		1, &type, &value, NULL);
	for (uint64 i = 0; i < count; i++)
		recover_claim(run, i, due, gone_at);
	if (count > 0)
		ereport(
			LOG,
			(errmsg(
				"sendcampaign: job %lld: looking up %d messages that an earlier worker left in doubt",
				(long long) run->job_id, run->open)));
	delete_finished_claims(run);
}

/* With so many messages ready, none need be claimed. */
static int
enough_ready(const Run *run)
{
	if (run->account == NULL)
		return 1;
	if (run->campaign.group->rate > 0)
		return (run_appetite(run) + 1) / 2;
	return Max(run->account->window, BATCH_SIZE / 2);
}

/*
 * What waits for a sender who pauses is not ready; but so much of it is not
 * to keep others claiming for ever.
 */
static bool
has_room_for_claim(Run *run, TimestampTz now)
{
	int enough = enough_ready(run);
	int blocked = run->num_ready > 0 ? run_num_blocked(run, now) : 0;

	return run->num_ready - blocked < enough &&
		   run->open - run->num_done - run->num_agenda - blocked < 4 * enough + 2 * BATCH_SIZE &&
		   run->open < 4 * sendcampaign_max_concurrency + 16 * BATCH_SIZE;
}

bool
wants_claim(Run *run, TimestampTz now)
{
	if (run->cancelled)
		return wants_wind_up(run, now);
	return !worker.leaving && sendcampaign_enabled && !run->exhausted && !run->finished &&
		   run_may_send(run) && run->history == NULL && run->claiming.until <= now &&
		   run->next_at <= now &&
		   (run->account == NULL || run->account->paused_until <= now || run->num_ready == 0) &&
		   has_room_for_claim(run, now);
}
