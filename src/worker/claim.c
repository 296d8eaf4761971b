/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  The first stage: which recipients are next.
 *
 * Claiming takes a batch: one transaction deletes it, and writes the ids and
 * phone numbers of those to whom a message may now be sent to
 * sendcampaign.claim.  What has no outcome there after a crash is exactly what
 * is in doubt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/group.h"
#include "campaign/message_limit.h"
#include "campaign/recipients.h"
#include "catalog/pg_type.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "database/text_ranges.h"
#include "mb/pg_wchar.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/batch.h"
#include "worker/claim.h"
#include "worker/message.h"
#include "worker/next.h"
#include "worker/read_back.h"
#include "worker/record.h"

/* How long to wait, in ms, for another worker that is claiming for a group with a limit. */
#define LIMIT_WAIT_MS 20

static void
skip(Message *message, const char *reason)
{
	message->error_message = message_strdup(message, reason);
	message_done(message, OUTCOME_SKIPPED);
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
	message_set_text(message, recipient->text, recipient->link);
	message->until = recipient->until;
	message_set_sender(message, group->senders, group->num_senders);
	message_ready(message);
}

/* The columns of a claim's row; texts only if they cannot be made again. */
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

		/* what was recognized as sent is not recorded yet, and must not be lost */
		if (message->state != MESSAGE_READY && message->outcome == OUTCOME_SKIPPED)
			continue;
		arrays->ids[arrays->count] = Int64GetDatum(message->list_user_id);
		arrays->phones[arrays->count] = CStringGetTextDatum(message->phone);
		arrays->texts[arrays->count++] = CStringGetTextDatum(
			pg_any_to_server(message->text, strlen(message->text), PG_UTF8));
	}
}

/* Writes down to whom a message may now be sent. */
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
	values[4] = CStringGetTextDatum(claim->account);
	values[5] = make_text_array(group->senders, group->num_senders);
	values[6] = TimestampTzGetDatum(claim->claimed_at);
	values[7] = Int64GetDatum(claim->twilio_time);
	values[8] = personal ? make_array(arrays.texts, NULL, arrays.count, TEXTOID) : (Datum) 0;
	(void) own_execute(&statement, values, personal ? NULL : "        n");
}

/*
 * Reports of the run's messages are believed if they come with this group's
 * credentials, and what comes to its senders answers them.  That is recorded
 * before the first message leaves.
 */
static void
store_group(Run *run, const GroupConfig *group)
{
	const GroupConfig *before = run->campaign.group;

	if (run->group_stored && before && before->id == group->id &&
		before->sign_links == group->sign_links &&
		strcmp(before->account_sid, group->account_sid) == 0 &&
		texts_are_same(before->senders, before->num_senders, group->senders, group->num_senders))
		return;
	runs_set_group(run->id, group->account_sid, group->id, group->senders, group->num_senders,
				   group->sign_links);
	run->group_stored = true;
}

void
refresh_group(Run *run)
{
	MemoryContext context = AllocSetContextCreate(run->context, "sendcampaign group",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	GroupConfig	 *group = read_group(run->campaign.tables, run->campaign.id, run->campaign.list_id);

	MemoryContextSwitchTo(old);
	store_group(run, group);
	run_use_group(run, group, context);
	run->group_is_new = true;
}

/*
 * Puts off recipients who have quiet hours, and leaves the others; returns the
 * number of these.  Quiet hours in one time zone end at the same time.
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
			recipients[j].list_user_id = 0; /* done */
		}
		if (num_ids > 0)
			put_off(run, ids, num_ids, due);
	}
	return awake;
}

/* Skips recipients to whom nothing has been sent. */
static void
skip_ready(Claim *claim)
{
	for (int i = 0; i < claim->num_messages; i++)
	{
		if (claim->messages[i].state == MESSAGE_READY)
			skip(&claim->messages[i], "cancelled");
	}
}

Claim *
prepare_claim(Run *run, int batch, const Recipient *recipients, int count)
{
	Claim *claim = create_claim(run, count);

	claim->batch = batch;
	claim->account = MemoryContextStrdup(claim->context, run->account->name);
	if (worker.twilio_offset_known)
		claim->twilio_time = timestamptz_to_time_t(claim->claimed_at) + worker.twilio_offset;
	for (int i = 0; i < count; i++)
		fill_message(&claim->messages[i], &recipients[i]);
	return claim;
}

/* Makes a claim of the recipients who are to get a message, or be skipped, now. */
static void
make_claim(Run *run, int batch, const Recipient *recipients, int count)
{
	Claim *claim = prepare_claim(run, batch, recipients, count);

	recognize_sent(claim);
	if (run_is_cancelled(run))
		skip_ready(claim);
	store_claim(claim);
	record_skipped(claim);
	claim->stored = true;
}

/* The columns of the rows of several claims, and their arrays, one after the other. */
typedef struct ClaimColumns
{
	int		   count;
	int		   num_messages;
	Datum	  *columns[7]; /* run_id, number, first, last, account, twilio_time, personal */
	Datum	  *ids;
	Datum	  *phones;
	Datum	  *texts;
	TextRanges senders;
} ClaimColumns;

static const Oid claim_types[] = {INT8OID, INT4OID, INT4OID, INT4OID, TEXTOID, INT8OID, BOOLOID};

static void
allocate_columns(ClaimColumns *c, Claim *const *claims, int count)
{
	int num_messages = 0;

	for (int i = 0; i < count; i++)
		num_messages += claims[i]->num_messages;
	for (int i = 0; i < lengthof(claim_types); i++)
		c->columns[i] = palloc(count * sizeof(Datum));
	c->ids = palloc(Max(num_messages, 1) * sizeof(Datum));
	c->phones = palloc(Max(num_messages, 1) * sizeof(Datum));
	c->texts = palloc(Max(num_messages, 1) * sizeof(Datum));
	c->senders = text_ranges(count);
}

/* Adds a claim, unless nobody in it gets a message. */
static void
add_claim(ClaimColumns *c, const Claim *claim)
{
	const GroupConfig *group = claim->run->campaign.group;
	ClaimArrays		   arrays;
	int				   n = c->count;

	collect_ready(claim, &arrays);
	if (arrays.count == 0)
		return;
	c->columns[0][n] = Int64GetDatum(claim->run->id);
	c->columns[1][n] = Int32GetDatum(claim->number);
	c->columns[2][n] = Int32GetDatum(c->num_messages + 1);
	c->columns[3][n] = Int32GetDatum(c->num_messages + arrays.count);
	c->columns[4][n] = CStringGetTextDatum(claim->account);
	c->columns[5][n] = Int64GetDatum(claim->twilio_time);
	c->columns[6][n] = BoolGetDatum(template_is_personal(claim->run->campaign.template));
	text_ranges_add(&c->senders, group->senders, group->num_senders, false);
	memcpy(c->ids + c->num_messages, arrays.ids, arrays.count * sizeof(Datum));
	memcpy(c->phones + c->num_messages, arrays.phones, arrays.count * sizeof(Datum));
	memcpy(c->texts + c->num_messages, arrays.texts, arrays.count * sizeof(Datum));
	c->num_messages += arrays.count;
	c->count++;
}

void
store_claims(Claim **claims, int count)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.claim (run_id, number, list_user_ids, phones, account, senders,"
		" claimed_at, twilio_time, texts) SELECT u.run_id, u.number, ($10)[u.first:u.last],"
		" ($11)[u.first:u.last], u.account, ($13)[u.first_sender:u.last_sender], $14,"
		" u.twilio_time, CASE WHEN u.personal THEN ($12)[u.first:u.last] END"
		" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) u(run_id, number, first, last,"
		"  account, twilio_time, personal, first_sender, last_sender)",
		14,
		{INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, INT8ARRAYOID,
		 BOOLARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		 TEXTARRAYOID, TIMESTAMPTZOID}};
	ClaimColumns columns = {0};
	Datum		 values[14];

	allocate_columns(&columns, claims, count);
	for (int i = 0; i < count; i++)
		add_claim(&columns, claims[i]);
	if (columns.count == 0)
		return;
	for (int i = 0; i < lengthof(claim_types); i++)
		values[i] = make_array(columns.columns[i], NULL, columns.count, claim_types[i]);
	values[7] = make_array(columns.senders.first, NULL, columns.count, INT4OID);
	values[8] = make_array(columns.senders.last, NULL, columns.count, INT4OID);
	values[9] = make_array(columns.ids, NULL, columns.num_messages, INT8OID);
	values[10] = make_array(columns.phones, NULL, columns.num_messages, TEXTOID);
	values[11] = make_array(columns.texts, NULL, columns.num_messages, TEXTOID);
	values[12] = text_ranges_array(&columns.senders);
	values[13] = TimestampTzGetDatum(claims[0]->claimed_at);
	(void) own_execute(&statement, values, NULL);
}

/*
 * Puts recipients back into the batch for whom the senders are too slow at
 * present; those who are skipped need not wait.  Returns the number of those
 * that are left.
 */
static int
put_back_surplus(Run *run, const Batch *batch, Recipient *recipients, int count)
{
	Datum *ids = palloc(Max(count, 1) * sizeof(Datum));
	int	   limit = run_claim_size(run);
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

/* Another worker is claiming messages of the same group, which takes a moment. */
static void
wait_for_limit(Run *run, const Batch *batch)
{
	int	   count;
	Datum *ids = ids_of_array(batch->ids, &count);

	put_back(run, batch, ids, count);
	run->claiming.until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LIMIT_WAIT_MS);
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
	if (!lock_message_limit(&run->campaign))
	{
		wait_for_limit(run, &batch);
		return;
	}
	if (run->may_overlap)
		batch.ids = leave_out_known(run, batch.ids);
	recipients = read_recipients(&run->campaign, batch.ids, GetCurrentTimestamp(), &count);
	if (run->campaign.test_phone == NULL)
		skip_duplicates_of_run(run->id, recipients, count, batch.duplicates);
	if (!run_is_cancelled(run))
	{
		count = put_off_sleepers(run, recipients, count);
		count = put_back_surplus(run, &batch, recipients, count);
		skip_over_limit(&run->campaign, run->id, recipients, count);
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
