/*-------------------------------------------------------------------------
 *
 * message_limit.c
 *	  Skips recipients who have had as many messages as their group allows.
 *
 * Messages count over all campaigns of the group and all roles, from the moment
 * they are claimed.  Those that Twilio has refused, or could not deliver, do not
 * count.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/group.h"
#include "campaign/message_limit.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "database/own_tables.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"

/* The kind of lock; 1 to 7 are those of start_worker.c. */
#define LIMIT_LOCK 8

/* A claim with larger arrays is not ours. */
#define MAX_ARRAY_BYTES "1000000"

static bool
has_limit(const Campaign *campaign)
{
	return campaign->group->limit.messages > 0 && campaign->test_phone == NULL;
}

bool
lock_message_limit(const Campaign *campaign)
{
	const char *schema = campaign->tables->schema;
	uint64		id = (uint64) campaign->group->id;
	uint64		hash;
	LOCKTAG		tag;

	if (!has_limit(campaign))
		return true;
	hash = hash_bytes_extended((const unsigned char *) schema, strlen(schema), id);
	tag = (LOCKTAG){.locktag_field1 = MyDatabaseId,
					.locktag_field2 = (uint32) (hash >> 32),
					.locktag_field3 = (uint32) hash,
					.locktag_field4 = LIMIT_LOCK,
					.locktag_type = LOCKTAG_OBJECT,
					.locktag_lockmethodid = USER_LOCKMETHOD};
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* SQL condition: the run r is of the group. */
#define IS_OF_GROUP " r.group_id = $4 AND r.schema = $5::name AND r.test_phone IS NULL"

/* SQL: the group's messages to a phone number; the LIMIT is all that is of interest. */
#define RECORDED                                                                                   \
	"SELECT FROM sendcampaign.message_data m JOIN sendcampaign.run_data r ON " IS_ROW_OF(          \
		"r.id", "m.run_id") " AND" IS_OF_GROUP                                                     \
							" LEFT JOIN sendcampaign.receipt_data d ON d.run_id = m.run_id"        \
							"  AND d.list_user_id = m.list_user_id AND d.sid = m.sid"              \
							" WHERE m.phone = u.phone AND m.status IN ('sent', 'in_doubt')"        \
							" AND m.updated_at > now() - make_interval(days => $6)"                \
							" AND coalesce(d.status NOT IN ('undelivered', 'failed', 'canceled')," \
							"  true) AND (m.run_id, m.list_user_id) <> ($3, u.list_user_id)"       \
							" LIMIT $7"

/*
 * SQL: the same for those that are claimed and have no outcome yet.  Claims are
 * few, and are read once.
 */
#define CLAIMED                                                                                    \
	"SELECT x.phone, count(*) AS messages FROM sendcampaign.claim c"                               \
	" JOIN sendcampaign.run_data r ON " IS_ROW_OF(                                                 \
		"r.id", "c.run_id") " AND" IS_OF_GROUP                                                     \
							" CROSS JOIN LATERAL unnest(c.list_user_ids, c.phones) x(id, phone)"   \
							" WHERE pg_column_size(c.list_user_ids) <= " MAX_ARRAY_BYTES           \
							" AND pg_column_size(c.phones) <= " MAX_ARRAY_BYTES                    \
							" AND NOT EXISTS (SELECT FROM sendcampaign.message_data m"             \
							"  WHERE m.run_id = c.run_id AND m.list_user_id = x.id)"               \
							" GROUP BY x.phone"

/* Returns the places of those who are over the limit, in SPI_tuptable. */
static uint64
find_over_limit(const Campaign *campaign, int64 run_id, Datum phones, Datum list_users)
{
	static OwnStatement statement = {
		"WITH claimed AS MATERIALIZED (" CLAIMED ")"
		" SELECT u.n::int4 FROM unnest($1, $2) WITH ORDINALITY u(phone, list_user_id, n)"
		" WHERE u.phone IS NOT NULL AND NOT EXISTS (SELECT FROM sendcampaign.read_back_message w"
		/* this run's own message, of which Twilio's list has told, is not a further one */
		"  WHERE w.run_id = $3 AND (w.list_user_id = u.list_user_id"
		"   OR (w.list_user_id = 0 AND w.phone = u.phone)))"
		" AND (SELECT count(*) FROM (" RECORDED ") m)"
		"  + coalesce((SELECT c.messages FROM claimed c WHERE c.phone = u.phone), 0) >= $7",
		7,
		{TEXTARRAYOID, INT8ARRAYOID, INT8OID, INT8OID, TEXTOID, INT4OID, INT4OID}};
	const MessageLimit *limit = &campaign->group->limit;
	Datum				values[] = {phones,
									list_users,
									Int64GetDatum(run_id),
									Int64GetDatum(campaign->group->id),
									CStringGetTextDatum(campaign->tables->schema),
									Int32GetDatum(limit->days),
									Int32GetDatum(limit->messages)};

	return own_execute(&statement, values, NULL);
}

static void
skip_those_over_limit(const Campaign *campaign, int64 run_id, Recipient *recipients, int count)
{
	Datum *phones = palloc(count * sizeof(Datum));
	Datum *list_users = palloc(count * sizeof(Datum));
	bool  *nulls = palloc(count * sizeof(bool));
	uint64 found;

	for (int i = 0; i < count; i++)
	{
		nulls[i] = recipients[i].skip != NOT_SKIPPED;
		phones[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(recipients[i].phone);
		list_users[i] = Int64GetDatum(recipients[i].list_user_id);
	}
	found = find_over_limit(campaign, run_id, make_array(phones, nulls, count, TEXTOID),
							make_array(list_users, NULL, count, INT8OID));
	for (uint64 i = 0; i < found; i++)
		recipient_skip(&recipients[spi_int32(i, 1) - 1], SKIP_OVER_LIMIT,
					   "has had as many messages as \"maxMessages\" allows");
	SPI_freetuptable(SPI_tuptable);
}

/* Most groups have no limit, for which nothing is done. */
void
skip_over_limit(const Campaign *campaign, int64 run_id, Recipient *recipients, int count)
{
	if (has_limit(campaign) && count > 0)
		skip_those_over_limit(campaign, run_id, recipients, count);
}
