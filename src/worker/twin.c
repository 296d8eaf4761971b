/*-------------------------------------------------------------------------
 *
 * twin.c
 *	  Whose message it is that Twilio's list has: other messages that look the
 *	  same there.
 *
 * A message that is found by its link or its text may be another one: schemas
 * number their campaigns and list users alike, and the same text may be sent
 * to a phone number twice.  Such a twin is searched for among the messages in
 * memory, those that others have claimed, and those left in doubt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/link.h"
#include "campaign/render.h"
#include "campaign/smart_encoding.h"
#include "catalog/pg_type.h"
#include "database/own_tables.h"
#include "utils/builtins.h"
#include "worker/message.h"
#include "worker/twin.h"
#include "worker/witness.h"

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
 * Tells whether what is found for a message can be the other one.  Links may
 * be the same, or one may contain the other, even if texts are not: schemas
 * number their campaigns and list users alike.
 */
static bool
can_be(const Message *other, const Message *message)
{
	if (other == message || other->phone == NULL || message->phone == NULL ||
		strcmp(other->phone, message->phone) != 0)
		return false;
	/* the text of one of them is not known: what the list has may be either */
	if (listed_by(message) == LISTED_BY_NUMBER || (message->link == NULL && other->content))
		return true;
	if (message->link && ((other->link && has_link(other->link, message->link)) ||
						  (other->text && has_link(other->text, message->link))))
		return true;
	return other->text && message->text &&
		   strcmp(smart_text(other->text), smart_text(message->text)) == 0;
}

static Twin
find_twin_in_claim(const Claim *claim, const Message *message)
{
	Twin twin = TWIN_NONE;

	for (int i = 0; i < claim->num_messages; i++)
	{
		const Message *other = &claim->messages[i];

		if (can_be(other, message))
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

/*
 * Limits on what is read, since the tables may have been loaded, and other
 * roles send to whom they like: rows, lengths of texts, and claims larger than
 * any of ours.
 */
#define MAX_ROWS		10000
#define MAX_BYTES		"64000"
#define MAX_ARRAY_BYTES "1000000"
#define MAX_TEXTS_BYTES "100000000"

/* The owner of the database may have loaded bytes that cannot be converted. */
static bool
is_text(const char *value)
{
	return value == NULL || is_convertible(value);
}

/*
 * Reads what a run in the tables sends: its campaign, message, base URL and
 * content template are columns from this one on.  Returns false if they are not valid texts.
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
	campaign_set_text(campaign, &(CampaignText){.message = message,
												.base_url = base_url,
												.content_sid = spi_string(row, column + 3)});
	return true;
}

/*
 * Returns the phone numbers of those that lookups have found, with or without
 * links, and the accounts that they used, as arrays of the same length; false
 * if there are none.
 */
static bool
found_by_run(Run *run, bool without_link, Datum *phones, Datum *accounts)
{
	char	 **strings = palloc(Max(run->num_done, 1) * sizeof(char *));
	char	 **sids = palloc(Max(run->num_done, 1) * sizeof(char *));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &run->done)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (message->outcome != OUTCOME_FOUND || (without_link && message->link) ||
			count == run->num_done)
			continue;
		strings[count] = message->phone;
		sids[count++] = message->claim->account;
	}
	*phones = make_text_array(strings, count);
	*accounts = make_text_array(sids, count);
	return count > 0;
}

/* Reads the message in a row of read_claimed() as its own worker would see it. */
static void
read_claimed_message(ClaimedElsewhere *claimed, uint64 row)
{
	Campaign campaign;
	Message *message = &claimed->message;
	char	*text = spi_string(row, 4);

	claimed->account = spi_string(row, 1);
	claimed->run_id = spi_int64(row, 9);
	if (!is_text(text) || !read_campaign_of_run(&campaign, row, 5))
		return;
	message->list_user_id = spi_int64(row, 3);
	message->phone = spi_string(row, 2);
	message->content = campaign.text.content_sid != NULL;
	message->link = campaign_link(&campaign, message->list_user_id);
	message->text = text ? to_utf8(text) : campaign_text(&campaign, message->list_user_id);
}

static void
read_claimed(Run *run, Elsewhere *elsewhere)
{
	/*
	 * No plan is kept: claims are few, and read completely.  The OFFSET makes
	 * each of the few be looked up by index, where a join would read all
	 * messages.
	 */
	static const char *const sql =
		"SELECT c.account, u.phone, u.id, u.text, r.campaign_id, r.message, r.base_url, left(r.content_sid, 100), r.id"
		" FROM sendcampaign.claim c JOIN sendcampaign.run_data r ON r.id = c.run_id"
		" CROSS JOIN LATERAL unnest(c.list_user_ids, c.phones, c.texts) u(id, phone, text)"
		" WHERE c.run_id <> $1 AND u.phone = ANY ($2) AND c.account = ANY ($3)"
		" AND u.id IS NOT NULL AND pg_column_size(c.list_user_ids) <= " MAX_ARRAY_BYTES
		" AND pg_column_size(c.phones) <= " MAX_ARRAY_BYTES
		" AND coalesce(pg_column_size(c.texts), 0) <= " MAX_TEXTS_BYTES
		" AND octet_length(r.message) <= " MAX_BYTES
		" AND coalesce(octet_length(r.base_url), 0) <= " MAX_BYTES
		" AND coalesce(octet_length(u.text), 0) <= " MAX_BYTES
		" AND NOT EXISTS (SELECT FROM sendcampaign.message_data m"
		"  WHERE m.run_id = c.run_id AND m.list_user_id = u.id OFFSET 0) LIMIT $4";
	Oid	  types[] = {INT8OID, TEXTARRAYOID, TEXTARRAYOID, INT8OID};
	Datum values[] = {Int64GetDatum(run->id), 0, 0, Int64GetDatum(MAX_ROWS)};

	if (!found_by_run(run, false, &values[1], &values[2]))
		return;
	elsewhere->num_claimed = (int) own_query(sql, 4, types, values, NULL);
	elsewhere->claimed = palloc0(Max(elsewhere->num_claimed, 1) * sizeof(ClaimedElsewhere));
	for (int i = 0; i < elsewhere->num_claimed; i++)
		read_claimed_message(&elsewhere->claimed[i], i);
}

/*
 * SQL condition: its message may be in Twilio's list, under a SID that nobody
 * knows.  What a person has settled stays so; last week's is not what is found
 * now.
 */
#define HAS_UNKNOWN_SID                                                                            \
	" AND (m.status = 'in_doubt' OR (m.status = 'sent' AND m.sid IS NULL"                          \
	"  AND m.created_at > $3 - interval '1 day'))"

/* Returns when the oldest message that a lookup can find was sent, by our clock. */
static Datum
found_since(const Message *message)
{
	const Claim *claim = message->claim;

	return TimestampTzGetDatum(may_be_of_lost_past(message) ? run_began_at(claim->run)
															: claim->claimed_at);
}

/* Phone numbers have no index: one pass over the messages serves all lookups. */
static void
read_unknown(Run *run, Elsewhere *elsewhere)
{
	static const char *const sql =
		"SELECT m.run_id, m.list_user_id, m.phone, left(m.account, 100) FROM sendcampaign.message_data m"
		" WHERE m.phone = ANY ($1) AND coalesce(m.account = ANY ($4), true)" HAS_UNKNOWN_SID
		" LIMIT $2";
	Oid	  types[] = {TEXTARRAYOID, INT8OID, TIMESTAMPTZOID, TEXTARRAYOID};
	Datum values[] = {0, Int64GetDatum(MAX_ROWS), TimestampTzGetDatum(run_began_at(run)), 0};

	if (!found_by_run(run, true, &values[0], &values[3]))
		return;
	elsewhere->num_unknown = (int) own_query(sql, 4, types, values, NULL);
	elsewhere->unknown = palloc(Max(elsewhere->num_unknown, 1) * sizeof(UnknownSid));
	for (int i = 0; i < elsewhere->num_unknown; i++)
	{
		elsewhere->unknown[i].run_id = spi_int64(i, 1);
		elsewhere->unknown[i].list_user_id = spi_int64(i, 2);
		elsewhere->unknown[i].phone = spi_string(i, 3);
		elsewhere->unknown[i].account = spi_string(i, 4);
	}
}

Elsewhere
read_elsewhere(Run *run)
{
	Elsewhere elsewhere = {0};

	read_claimed(run, &elsewhere);
	read_unknown(run, &elsewhere);
	return elsewhere;
}

/* A run in memory has its claims there, unless it could not be taken up. */
static bool
is_in_memory(const ClaimedElsewhere *claimed)
{
	dlist_iter node;
	dlist_iter iter;

	dlist_foreach (node, &worker.runs)
	{
		Run *run = dlist_container(Run, node, node.cur);

		if (run->id != claimed->run_id)
			continue;
		dlist_foreach (iter, &run->claims)
		{
			Claim *claim = dlist_container(Claim, node, iter.cur);

			for (int i = 0; i < claim->num_messages; i++)
			{
				if (claim->messages[i].list_user_id == claimed->message.list_user_id)
					return true;
			}
		}
	}
	return false;
}

bool
has_twin_elsewhere(const Message *message, const Elsewhere *elsewhere)
{
	for (int i = 0; i < elsewhere->num_claimed; i++)
	{
		const ClaimedElsewhere *claimed = &elsewhere->claimed[i];

		if (strcmp(claimed->account, message->claim->account) == 0 &&
			can_be(&claimed->message, message) && !is_in_memory(claimed))
			return true;
	}
	return elsewhere->num_claimed == MAX_ROWS; /* there may be more */
}

/* Returns the link of the run in this row for the same list user; NULL: none. */
static char *
link_of_run(uint64 row, int64 list_user_id)
{
	Campaign campaign;

	return read_campaign_of_run(&campaign, row, 1) ? campaign_link(&campaign, list_user_id) : NULL;
}

/* Tells whether one of these runs has made this link, or one that contains it. */
static bool
has_link_of_runs(const Message *message, uint64 count)
{
	for (uint64 i = 0; i < count; i++)
	{
		char *link = link_of_run(i, message->list_user_id);

		if (link && has_link(link, message->link))
			return true;
	}
	return false;
}

/*
 * Tells whether there is one with the same link, or with a link that contains
 * it, whatever its text; a test may, too.  Both name the same campaign and
 * list user.
 */
static bool
has_link_in_doubt(const Message *message)
{
	Oid	   types[] = {INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, INT8OID, TEXTOID};
	Datum  values[] = {Int64GetDatum(message->claim->run->id),
					   Int64GetDatum(message->list_user_id),
					   found_since(message),
					   CStringGetTextDatum(message->phone),
					   Int64GetDatum(message->claim->run->campaign.id),
					   CStringGetTextDatum(message->claim->account)};
	uint64 count = own_query("SELECT r.campaign_id, r.message, r.base_url, left(r.content_sid, 100)"
							 " FROM sendcampaign.run_data r JOIN sendcampaign.message_data m"
							 " ON m.run_id = r.id AND m.list_user_id = $2 AND m.phone = $4"
							 " WHERE r.campaign_id = $5 AND r.id <> $1"
							 " AND coalesce(m.account, $6) = $6"
							 " AND octet_length(r.message) <= " MAX_BYTES
							 " AND octet_length(r.base_url) <= " MAX_BYTES HAS_UNKNOWN_SID,
							 6, types, values, NULL);

	return has_link_of_runs(message, count);
}

/*
 * Tells whether the run in this row can have sent the text, or what Smart
 * Encoding makes of it.  Texts are not kept, but what they are made from is.
 */
static bool
can_have_sent(uint64 row, const char *text)
{
	Campaign campaign;
	int64	 list_user_id;

	if (!read_campaign_of_run(&campaign, row, 1))
		return false;
	if (campaign.text.content_sid)
		return true; /* nobody knows what Twilio has made of it */
	text = smart_text(text);
	if (campaign.link_form)
		return link_next(campaign.listed_form, &text, &list_user_id);
	return template_matches(template_parse(smart_text(template_text(campaign.template))), text);
}

/* Other accounts' messages are not in its account's list. */
static bool
is_of_account(const UnknownSid *unknown, const Message *message)
{
	return unknown->account == NULL || strcmp(unknown->account, message->claim->account) == 0;
}

/* Returns the runs of other messages to its phone number whose SIDs nobody knows. */
static Datum
unknown_runs(const Message *message, const Elsewhere *elsewhere)
{
	Datum *ids = palloc(Max(elsewhere->num_unknown, 1) * sizeof(Datum));
	int	   count = 0;

	for (int i = 0; i < elsewhere->num_unknown; i++)
	{
		const UnknownSid *unknown = &elsewhere->unknown[i];

		if (strcmp(unknown->phone, message->phone) == 0 && is_of_account(unknown, message) &&
			(unknown->run_id != message->claim->run->id ||
			 unknown->list_user_id != message->list_user_id))
			ids[count++] = Int64GetDatum(unknown->run_id);
	}
	return count > 0 ? make_array(ids, NULL, count, INT8OID) : (Datum) 0;
}

static bool
has_text_in_doubt(const Message *message, const Elsewhere *elsewhere)
{
	Oid	   type = INT8ARRAYOID;
	Datum  ids = unknown_runs(message, elsewhere);
	uint64 count;

	if (elsewhere->num_unknown == MAX_ROWS)
		return true; /* there may be more */
	if (ids == (Datum) 0)
		return false;
	count = own_query("SELECT campaign_id, message, base_url, left(content_sid, 100)"
					  " FROM sendcampaign.run_data"
					  " WHERE id = ANY ($1) AND octet_length(message) <= " MAX_BYTES
					  " AND coalesce(octet_length(base_url), 0) <= " MAX_BYTES,
					  1, &type, &ids, NULL);
	for (uint64 i = 0; i < count; i++)
	{
		if (can_have_sent(i, message->text))
			return true;
	}
	return false;
}

bool
has_twin_in_tables(const Message *message, const Elsewhere *elsewhere)
{
	return message->link ? has_link_in_doubt(message) : has_text_in_doubt(message, elsewhere);
}

bool
has_twin_since(const Message *message, pg_time_t since)
{
	Oid	   types[] = {INT8OID, INT8OID, TIMESTAMPTZOID};
	Datum  values[] = {Int64GetDatum(message->claim->run->id),
					   Int64GetDatum(message->claim->run->campaign.id),
					   TimestampTzGetDatum(time_t_to_timestamptz(since))};
	uint64 count = own_query("SELECT campaign_id, message, base_url, left(content_sid, 100)"
							 " FROM sendcampaign.run_data"
							 " WHERE campaign_id = $2 AND id <> $1"
							 " AND (finished_at IS NULL OR finished_at > $3)"
							 " AND octet_length(message) <= " MAX_BYTES
							 " AND octet_length(base_url) <= " MAX_BYTES,
							 3, types, values, NULL);

	return has_link_of_runs(message, count);
}
