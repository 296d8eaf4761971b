/*-------------------------------------------------------------------------
 *
 * opted_out.c
 *	  Skips recipients who have opted out.
 *
 * This is checked when a message is claimed, so that a STOP that was committed
 * a moment ago applies to all that are not claimed yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/opted_out.h"
#include "catalog/pg_type.h"
#include "database/attempt.h"
#include "database/own_tables.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Returns the phone numbers (text[]) of those who would get a message. */
static Datum
phones_of(const RecipientList *lists, int count)
{
	int	   most = 0;
	int	   num_phones = 0;
	char **phones;

	for (int i = 0; i < count; i++)
		most += lists[i].count;
	phones = palloc(Max(most, 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < lists[i].count; j++)
		{
			if (lists[i].recipients[j].skip == NOT_SKIPPED)
				phones[num_phones++] = lists[i].recipients[j].phone;
		}
	}
	return make_text_array(phones, num_phones);
}

static Datum
groups_of(const RecipientList *lists, int count)
{
	int64 *groups = palloc(Max(count, 1) * sizeof(int64));
	int	   num_groups = 0;

	for (int i = 0; i < count; i++)
	{
		if (i == 0 || lists[i].campaign->group->id != groups[num_groups - 1])
			groups[num_groups++] = lists[i].campaign->group->id;
	}
	return array_of_ids(groups, num_groups);
}

/* An opt-out of the messages of one group, or of all. */
typedef struct OptOut
{
	char *phone;
	bool  from_all;
	int64 group_id;
} OptOut;

static int
compare_opt_outs(const void *a, const void *b)
{
	return strcmp(((const OptOut *) a)->phone, ((const OptOut *) b)->phone);
}

/* Returns the opt-outs of the lists' phone numbers, sorted by these; palloc'd. */
static OptOut *
find_opt_outs(const RecipientList *lists, int count, int *found)
{
	static OwnStatement statement = {
		"SELECT phone, group_id FROM sendcampaign.opt_out_data WHERE phone = ANY ($1)"
		" AND (group_id IS NULL OR (group_id = ANY ($2) AND schema = $3::name))",
		3,
		{TEXTARRAYOID, INT8ARRAYOID, TEXTOID}};
	Datum	values[] = {phones_of(lists, count), groups_of(lists, count),
						CStringGetTextDatum(lists[0].campaign->tables->schema)};
	OptOut *opt_outs;

	*found = (int) own_execute(&statement, values, NULL);
	opt_outs = palloc(Max(*found, 1) * sizeof(OptOut));
	for (int i = 0; i < *found; i++)
		opt_outs[i] = (OptOut){spi_string(i, 1), spi_isnull(i, 2), spi_int64(i, 2)};
	SPI_freetuptable(SPI_tuptable);
	qsort(opt_outs, *found, sizeof(OptOut), compare_opt_outs);
	return opt_outs;
}

static bool
has_opted_out(const Recipient *recipient, int64 group_id, const OptOut *opt_outs, int count)
{
	OptOut		  key = {recipient->phone};
	const OptOut *end = opt_outs + count;
	const OptOut *at;

	if (recipient->phone == NULL || count == 0)
		return false;
	at = bsearch(&key, opt_outs, count, sizeof(OptOut), compare_opt_outs);
	while (at && at > opt_outs && compare_opt_outs(at - 1, &key) == 0)
		at--;
	for (; at && at < end && compare_opt_outs(at, &key) == 0; at++)
	{
		if (at->from_all || at->group_id == group_id)
			return true;
	}
	return false;
}

void
skip_opted_out(const RecipientList *lists, int count)
{
	int		found;
	OptOut *opt_outs = find_opt_outs(lists, count, &found);

	for (int i = 0; found > 0 && i < count; i++)
	{
		for (int j = 0; j < lists[i].count; j++)
		{
			if (has_opted_out(&lists[i].recipients[j], lists[i].campaign->group->id, opt_outs,
							  found))
				recipient_skip(&lists[i].recipients[j], SKIP_OPTED_OUT, "opted out");
		}
	}
}

typedef struct OwnCall
{
	OwnStatement *statement;
	Datum		 *values;
} OwnCall;

static void
execute_call(void *arg)
{
	OwnCall *call = arg;

	(void) own_execute(call->statement, call->values, NULL);
}

/*
 * Uses a subtransaction: a session that records the same opt-out and has not
 * committed yet must not keep us from recording outcomes.  An opt-out that is
 * left out for that reason is recorded by that session, or Twilio reports it
 * again.
 */
static void
insert_if_not_locked(OwnStatement *statement, Datum *values)
{
	OwnCall	   call = {statement, values};
	ErrorData *error = attempt(execute_call, &call);

	if (error == NULL)
		return;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	ereport(LOG,
			(errmsg("sendcampaign: could not record opt-outs because other sessions have"
					" locked them")));
}

void
store_opt_outs(const Campaign *campaign, Datum phones, const char *reason, Oid role)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.opt_out_data"
		" (phone, schema, group_id, reason, role, role_oid, source)"
		" SELECT DISTINCT u.phone, $2::name, $3, $4, $5::name, $6, 'twilio' FROM unnest($1) u(phone)"
		" ORDER BY 1 ON CONFLICT DO NOTHING",
		6,
		{TEXTARRAYOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, OIDOID}};
	Datum values[] = {phones,
					  CStringGetTextDatum(campaign->tables->schema),
					  Int64GetDatum(campaign->group->id),
					  CStringGetTextDatum(reason),
					  CStringGetTextDatum(GetUserNameFromId(role, false)),
					  ObjectIdGetDatum(role)};

	insert_if_not_locked(&statement, values);
}

/* The parameters of both statements below. */
#define REPLY_TYPES                                                                                \
	{                                                                                              \
		TEXTOID, TEXTOID, INT8OID, TEXTOID, OIDOID, TIMESTAMPTZOID, TEXTOID                        \
	}

/*
 * An opt-out that is there already is of this time from now on: a start word
 * from before, which is read later, does not end it.
 */
static void
opt_out_by_reply(Datum *values)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.opt_out_data AS o"
		" (phone, schema, group_id, role, role_oid, created_at, reason, source)"
		" VALUES ($1, $2::name, $3, $4::name, $5, $6, $7, 'reply')"
		" ON CONFLICT (phone, schema, group_id, role_oid) DO UPDATE"
		" SET created_at = excluded.created_at"
		" WHERE o.source <> 'person' AND o.created_at < excluded.created_at",
		7, REPLY_TYPES};

	(void) own_execute(&statement, values, NULL);
}

/* Twilio's list has seconds: if both words are of the same one, the STOP counts. */
static void
opt_in_by_reply(Datum *values)
{
	static OwnStatement statement = {
		"DELETE FROM sendcampaign.opt_out_data WHERE phone = $1 AND schema = $2::name"
		" AND group_id = $3 AND source <> 'person' AND created_at < $6"
		" AND CASE WHEN system_identifier = $7::numeric THEN role_oid = $5"
		"  ELSE role = $4::name END",
		7, REPLY_TYPES};

	(void) own_execute(&statement, values, NULL);
}

void
opt_out_or_in_by_reply(const ReceiptScope *scope, const Reply *reply, const char *word)
{
	Datum values[] = {CStringGetTextDatum(reply->phone),
					  CStringGetTextDatum(scope->schema),
					  Int64GetDatum(scope->group_id),
					  CStringGetTextDatum(GetUserNameFromId(scope->role, false)),
					  ObjectIdGetDatum(scope->role),
					  TimestampTzGetDatum(reply->at),
					  CStringGetTextDatum(psprintf("replied \"%s\"", reply->body))};

	replies_lock_words(scope, reply->phone);
	if (strcmp(word, WORD_START) == 0)
	{
		values[6] = CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier()));
		opt_in_by_reply(values);
	}
	else if (!replies_start_after(scope, reply))
		opt_out_by_reply(values);
}
