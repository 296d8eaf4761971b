/*-------------------------------------------------------------------------
 *
 * twin.c
 *	  Whose is what Twilio's list has?  Messages that it shows alike.
 *
 * A message that is found by its link, or by its text, may be another one's:
 * schemas number their campaigns and list users alike, and the same text may
 * go to a phone twice.  Such a twin is looked for among the messages in memory,
 * among those that others have claimed, and among those left in doubt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "own.h"
#include "render.h"
#include "twin.h"
#include "utils/builtins.h"

static Twin
twin_by_state(const Message *other)
{
	switch (other->state)
	{
		case MESSAGE_SENDING:
			return TWIN_UNDER_WAY;
		case MESSAGE_IN_DOUBT:
		case MESSAGE_LOOKUP_READY:
		case MESSAGE_LOOKING_UP:
			return TWIN_IN_DOUBT;
		case MESSAGE_DONE:
		case MESSAGE_LOCKED: /* its outcome waits for a lock */
			return other->outcome == OUTCOME_SENT ? TWIN_UNDER_WAY
				   : other->outcome == OUTCOME_FOUND || other->outcome == OUTCOME_IN_DOUBT
					   ? TWIN_IN_DOUBT
					   : TWIN_NONE;
		default:
			return TWIN_NONE;
	}
}

/*
 * Can what is found be either of the two?  Links may be the same where texts
 * are not: schemas number their campaigns and list users alike.
 */
static bool
are_twins(const Message *a, const Message *b)
{
	if (a == b || a->phone == NULL || b->phone == NULL || strcmp(a->phone, b->phone) != 0)
		return false;
	if (a->link && b->link && strcmp(a->link, b->link) == 0)
		return true;
	return a->text && b->text && strcmp(a->text, b->text) == 0;
}

static Twin
find_twin_in_claim(const Claim *claim, const Message *message)
{
	Twin twin = TWIN_NONE;

	for (int i = 0; i < claim->num_messages; i++)
	{
		const Message *other = &claim->messages[i];

		if (are_twins(other, message))
			twin = Max(twin, twin_by_state(other));
	}
	return twin;
}

Twin
find_twin(const Message *message)
{
	Twin	   twin = TWIN_NONE;
	dlist_iter run;
	dlist_iter claim;

	dlist_foreach (run, &worker.runs)
	{
		dlist_foreach (claim, &dlist_container(Run, node, run.cur)->claims)
			twin = Max(twin, find_twin_in_claim(dlist_container(Claim, node, claim.cur), message));
	}
	return twin;
}

/* Claims may have been loaded: no more of them are read, nor longer texts. */
#define MAX_CLAIMED "10000"
#define MAX_LENGTH	"16000"

/* In SQL_ASCII, the owner of the database may have loaded any bytes. */
static bool
is_text(const char *value)
{
	return value == NULL || GetDatabaseEncoding() != PG_SQL_ASCII || is_utf8(value);
}

/*
 * What a run of the tables sends: its message and base URL are columns from
 * this one on.  False where they are no text.
 */
static bool
read_campaign_of_run(Campaign *campaign, uint64 row, int column)
{
	char *message = spi_string(row, column + 1);
	char *base_url = spi_string(row, column + 2);

	memset(campaign, 0, sizeof(Campaign));
	if (!is_text(message) || !is_text(base_url))
		return false;
	campaign->id = spi_int64(row, column);
	campaign_set_message(campaign, message, base_url);
	return true;
}

/* The runs that this worker has in memory. */
static Datum
runs_in_memory(void)
{
	Datum	  *ids = palloc(Max(worker.num_runs, 1) * sizeof(Datum));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
	{
		if (count == worker.num_runs)
			elog(ERROR, "more than %d runs in memory", worker.num_runs);
		ids[count++] = Int64GetDatum(dlist_container(Run, node, iter.cur)->id);
	}
	return make_array(ids, NULL, count, INT8OID);
}

/* The phones of those that look-ups have found, as an array; 0 for none. */
static Datum
phones_found(Run *run)
{
	char	 **phones = palloc(Max(run->num_done, 1) * sizeof(char *));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &run->done)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (message->outcome == OUTCOME_FOUND && count < run->num_done)
			phones[count++] = message->phone;
	}
	return count > 0 ? make_text_array(phones, count) : (Datum) 0;
}

/* A row of read_claimed_elsewhere: what the message is, as its own worker would see it. */
static void
read_claimed_message(Message *message, uint64 row)
{
	Campaign campaign;
	char	*text = spi_string(row, 4);

	if (!is_text(text) || !read_campaign_of_run(&campaign, row, 5))
		return;
	message->list_user_id = spi_int64(row, 3);
	message->phone = spi_string(row, 2);
	message->link = campaign_link(&campaign, message->list_user_id);
	message->text = text ? to_utf8(text) : campaign_text(&campaign, message->list_user_id);
}

ClaimedElsewhere
read_claimed_elsewhere(Run *run)
{
	/* no plan is kept: claims are few, and read whole */
	static const char *const sql =
		"SELECT c.account, u.phone, u.id, u.text, r.campaign_id, r.message, r.base_url"
		" FROM sendcampaign.claim c JOIN sendcampaign.run_data r ON r.id = c.run_id"
		" CROSS JOIN LATERAL unnest(c.list_user_ids, c.phones, c.texts) u(id, phone, text)"
		" WHERE c.run_id <> ALL ($1) AND u.phone = ANY ($2) AND u.id IS NOT NULL"
		" AND length(r.message) <= " MAX_LENGTH
		" AND length(coalesce(r.base_url, '')) <= " MAX_LENGTH
		" AND length(coalesce(u.text, '')) <= " MAX_LENGTH
		" AND NOT EXISTS (SELECT FROM sendcampaign.message_data m"
		"  WHERE m.run_id = c.run_id AND m.list_user_id = u.id) LIMIT " MAX_CLAIMED;
	ClaimedElsewhere elsewhere = {0};
	Datum			 phones = phones_found(run);
	Oid				 types[] = {INT8ARRAYOID, TEXTARRAYOID};
	Datum			 values[] = {(Datum) 0, phones};

	if (phones == (Datum) 0)
		return elsewhere;
	values[0] = runs_in_memory();
	elsewhere.count = (int) own_query(sql, 2, types, values, NULL);
	elsewhere.messages = palloc0(Max(elsewhere.count, 1) * sizeof(Message));
	elsewhere.accounts = palloc(Max(elsewhere.count, 1) * sizeof(char *));
	for (int i = 0; i < elsewhere.count; i++)
	{
		elsewhere.accounts[i] = spi_string(i, 1);
		read_claimed_message(&elsewhere.messages[i], i);
	}
	return elsewhere;
}

bool
has_twin_elsewhere(const Message *message, const ClaimedElsewhere *elsewhere)
{
	for (int i = 0; i < elsewhere->count; i++)
	{
		if (strcmp(elsewhere->accounts[i], message->claim->account_sid) == 0 &&
			are_twins(&elsewhere->messages[i], message))
			return true;
	}
	return false;
}

/* One to the same recipient with the same link, whatever its text; a test has that, too. */
static bool
has_link_in_doubt(const Message *message)
{
	const Campaign *campaign = &message->claim->run->campaign;
	Oid				types[] = {INT8OID, INT8OID, TEXTOID, INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(message->claim->run->id), Int64GetDatum(message->list_user_id),
					  CStringGetTextDatum(message->phone), Int64GetDatum(campaign->id),
					  CStringGetTextDatum(campaign->base_url)};

	return own_query(
			   "SELECT FROM sendcampaign.run_data r JOIN sendcampaign.message_data m"
			   " ON m.run_id = r.id AND m.list_user_id = $2 AND m.phone = $3"
			   " AND m.status = 'in_doubt'"
			   " WHERE r.in_doubt > 0 AND r.id <> $1 AND r.campaign_id = $4 AND r.base_url = $5",
			   5, types, values, NULL) > 0;
}

/* Can the run in this row have sent the text?  Texts are not kept, but what they are made of. */
static bool
can_have_sent(uint64 row, const char *text)
{
	Campaign campaign;
	int64	 list_user_id;

	if (!read_campaign_of_run(&campaign, row, 2))
		return false;
	return campaign.link_form ? link_next(campaign.link_form, &text, &list_user_id)
							  : template_matches(campaign.template, text);
}

/* The runs with something in doubt that can have sent the text, as an array. */
static Datum
runs_of_text(const char *text, int *count)
{
	uint64 num_runs = own_query(
		"SELECT id, campaign_id, message, base_url FROM sendcampaign.run_data"
		" WHERE in_doubt > 0 AND length(message) <= " MAX_LENGTH
		" AND length(coalesce(base_url, '')) <= " MAX_LENGTH,
		0, NULL, NULL, NULL);
	Datum *ids = palloc(Max(num_runs, 1) * sizeof(Datum));

	*count = 0;
	for (uint64 i = 0; i < num_runs; i++)
	{
		if (can_have_sent(i, text))
			ids[(*count)++] = Int64GetDatum(spi_int64(i, 1));
	}
	return make_array(ids, NULL, *count, INT8OID);
}

static bool
has_text_in_doubt(const Message *message)
{
	int	  count;
	Oid	  types[] = {INT8ARRAYOID, TEXTOID, INT8OID, INT8OID};
	Datum values[] = {runs_of_text(message->text, &count), CStringGetTextDatum(message->phone),
					  Int64GetDatum(message->claim->run->id), Int64GetDatum(message->list_user_id)};

	return count > 0 &&
		   own_query("SELECT FROM sendcampaign.message_data m"
					 " WHERE m.run_id = ANY ($1) AND m.phone = $2"
					 " AND m.status = 'in_doubt' AND (m.run_id, m.list_user_id) <> ($3, $4)",
					 4, types, values, NULL) > 0;
}

bool
has_twin_in_tables(const Message *message)
{
	return message->link ? has_link_in_doubt(message) : has_text_in_doubt(message);
}
