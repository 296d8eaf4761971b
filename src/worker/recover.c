/*-------------------------------------------------------------------------
 *
 * recover.c
 *	  Takes over claims that an earlier worker has left, or that were loaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/campaign.h"
#include "campaign/link.h"
#include "campaign/render.h"
#include "catalog/pg_type.h"
#include "database/own_tables.h"
#include "settings.h"
#include "utils/memutils.h"
#include "worker/batch.h"
#include "worker/message.h"
#include "worker/recover.h"
#include "worker/sender.h"

/*
 * Limits on loaded claims: recipients whose messages may have been under way,
 * and bytes of phone numbers and texts in a claim.
 */
#define MAX_LOADED_CLAIMED 100000
#define MAX_CLAIM_BYTES	   (16 * 1024 * 1024)

/* Restores a message from what a recovered claim says about its recipient. */
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
	if (link && link_match(campaign->link_form, text, message->list_user_id) == LINK_MISSING)
		link = NULL;
	message_set_text(message, text, link);
	message->attempts = 1;
}

/* Restores a claim from a row of recover_claims(), with the messages in doubt. */
static void
recover_claim(Run *run, uint64 row, TimestampTz due, int64 gone_at)
{
	Datum *ids;
	char **phones;
	char **texts;
	char **senders;
	int	   num_senders;
	int	   count;
	Claim *claim;

	ids = ids_of_array(spi_array(row, 2), &count);
	phones = spi_nullable_strings(row, 3, &count);
	texts = spi_nullable_strings(row, 8, &count);
	senders = spi_strings(row, 5, &num_senders);
	claim = create_claim(run, count);
	claim->number = spi_int32(row, 1);
	run->last_claim = Max(run->last_claim, claim->number);
	claim->recovered = true;
	claim->stored = true;
	claim->account = MemoryContextStrdup(claim->context, spi_string(row, 4));
	claim->claimed_at = spi_timestamptz(row, 6);
	claim->twilio_time = spi_int64(row, 7);
	for (int i = 0; i < count; i++)
	{
		recover_message(&claim->messages[i], ids[i], phones[i], texts[i]);
		message_set_sender(&claim->messages[i], senders, num_senders);
		claim->messages[i].gone_at = gone_at;
		message_wait(&claim->messages[i], MESSAGE_IN_DOUBT, due);
	}
}

/*
 * SQL condition on a claim that was loaded, perhaps from a dump: the extension
 * can have made it.
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
 * A recipient has one claim: one that the extension wrote here takes
 * precedence over loaded ones, and lower numbers over higher ones.  Of the
 * loaded ones, no more are kept than a worker can have had under way, and none
 * with a recipient who is in a batch, and thus has not been claimed.
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
		ereport(LOG,
				(errmsg_plural("sendcampaign: job %lld: %llu loaded claim cannot be its own and is"
							   " not used",
							   "sendcampaign: job %lld: %llu loaded claims cannot be its own and"
							   " are not used",
							   count, (long long) job_id, (unsigned long long) count)));
}

/* Claims whose outcomes are all recorded were about to be deleted. */
static void
delete_finished_claims(const Run *run)
{
	(void) own_query_by_id("DELETE FROM sendcampaign.claim c WHERE c.run_id = $1 AND NOT EXISTS"
						   " (SELECT FROM unnest(c.list_user_ids) u(id) WHERE NOT EXISTS"
						   "  (SELECT FROM sendcampaign.message_data m"
						   "   WHERE m.run_id = c.run_id AND m.list_user_id = u.id))",
						   run->id);
}

void
recover_claims(Run *run)
{
	uint64		count;
	TimestampTz due;
	int64		gone_at;

	/*
	 * The worker that sent them is gone, so nothing more leaves.  What it had
	 * sent may be under way for as long as a request may take.
	 */
	gone_at = monotonic_time() + to_us(sendcampaign_request_timeout) +
			  to_us(sendcampaign_lookup_delay);
	due = TimestampTzPlusMilliseconds(
		GetCurrentTimestamp(), to_ms(sendcampaign_request_timeout + sendcampaign_lookup_delay));
	if (run->commits_lost)
	{
		expect_overlaps(run);
		drop_impossible_claims(run->id, run->job_id);
	}
	count = own_query_by_id(
		"SELECT c.number, array_agg(u.id ORDER BY u.id), array_agg(u.phone ORDER BY u.id),"
		" c.account, c.senders, c.claimed_at, c.twilio_time, array_agg(u.text ORDER BY u.id)"
		" FROM sendcampaign.claim c"
		" CROSS JOIN LATERAL unnest(c.list_user_ids, c.phones, c.texts) u(id, phone, text)"
		" WHERE c.run_id = $1 AND NOT EXISTS (SELECT FROM sendcampaign.message_data m"
		"  WHERE m.run_id = c.run_id AND m.list_user_id = u.id)"
		" GROUP BY c.run_id, c.number",
		run->id);
	for (uint64 i = 0; i < count; i++)
		recover_claim(run, i, due, gone_at);
	if (count > 0)
		ereport(LOG,
				(errmsg_plural("sendcampaign: job %lld: looking up %d message that an earlier"
							   " worker left in doubt",
							   "sendcampaign: job %lld: looking up %d messages that an earlier"
							   " worker left in doubt",
							   run->open, (long long) run->job_id, run->open)));
	delete_finished_claims(run);
}
