/*-------------------------------------------------------------------------
 *
 * reply_table.c
 *	  What recipients have answered, and all SQL that writes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/reply_table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/*
 * How long what is left of an erased reply is kept.  Twilio keeps messages for
 * up to 400 days, and can report them for as long.
 */
#define KEEP_ERASED "400 days"

/* Twilio's clock and ours may differ by this much. */
#define CLOCK_SKEW "1 minute"

/* SQL expression: what identifies u.sid, which is ASCII, without telling it. */
#define HASH_OF_SID "substr(sha256(u.sid::bytea), 1, 16)"

/*
 * SQL condition on a reply: it is the role's ($1, $2).  One that was renamed, or
 * restored in another cluster ($3), is the same by its OID or by its name.
 */
#define IS_OF_ROLE(reply)                                                                          \
	" (" reply ".role = $2::name OR (" reply ".role_oid = $1 AND " reply ".system_identifier = $3))"
#define ROLE_TYPES	OIDOID, TEXTOID, NUMERICOID
#define NUM_OF_ROLE 3

static void
set_role(Oid role, Datum *values)
{
	values[0] = ObjectIdGetDatum(role);
	values[1] = CStringGetTextDatum(GetUserNameFromId(role, false));
	values[2] = system_identifier();
}

/* A column of what is given to unnest(). */
typedef struct Column
{
	Datum *values;
	bool  *nulls;
	int	   count;
	Oid	   type;
} Column;

static Column
column(Oid type, int size)
{
	return (Column){.values = palloc(Max(size, 1) * sizeof(Datum)),
					.nulls = palloc0(Max(size, 1) * sizeof(bool)),
					.type = type};
}

static void
add_value(Column *column, Datum value)
{
	column->values[column->count++] = value;
}

static void
add_text(Column *column, const char *value)
{
	column->nulls[column->count] = value == NULL;
	add_value(column, optional_text(value));
}

/* 0 is null. */
static void
add_id(Column *column, int64 id)
{
	column->nulls[column->count] = id == 0;
	add_value(column, Int64GetDatum(id));
}

static Datum
array_of_column(const Column *column)
{
	return make_array(column->values, column->nulls, column->count, column->type);
}

static Datum
sids_of_replies(const Reply *replies, int count)
{
	Column sids = column(TEXTOID, count);

	for (int i = 0; i < count; i++)
		add_text(&sids, replies[i].sid);
	return array_of_column(&sids);
}

void
replies_find_known(Oid role, Reply *replies, int count)
{
	static OwnStatement statement = {"SELECT u.n::int4, bool_or(o.sid IS NOT NULL), max(o.word)"
									 " FROM unnest($4) WITH ORDINALITY u(sid, n)"
									 " JOIN sendcampaign.reply_data o ON o.sid_hash = " HASH_OF_SID
									 " AND" IS_OF_ROLE("o") " GROUP BY u.n",
									 NUM_OF_ROLE + 1,
									 {ROLE_TYPES, TEXTARRAYOID}};
	Datum				values[NUM_OF_ROLE + 1];
	uint64				found;

	set_role(role, values);
	values[NUM_OF_ROLE] = sids_of_replies(replies, count);
	found = own_execute(&statement, values, NULL);
	for (uint64 i = 0; i < found; i++)
	{
		Reply *reply = &replies[spi_int32(i, 1) - 1];

		reply->is_known = true;
		reply->is_erased = !spi_bool(i, 2);
		reply->word = spi_string(i, 3);
	}
}

/* SQL: u.at, as far as clocks can tell. */
#define TIME_OF_REPLY "u.at + interval '" CLOCK_SKEW "'"

AnsweredMessage *
replies_find_answered(Oid role, const char *account, const Reply *replies, int count,
					  int *num_messages)
{
	static OwnStatement statement = {
		"SELECT DISTINCT ON (u.n, m.schema, m.group_id) u.n::int4, m.schema::text, m.group_id,"
		"  m.run_id, m.list_user_id, m.created_at <= " TIME_OF_REPLY ", m.created_at"
		" FROM unnest($1, $2) WITH ORDINALITY u(phone, at, n)"
		" CROSS JOIN LATERAL (SELECT r.schema, r.group_id, a.run_id, a.list_user_id, a.created_at"
		"  FROM sendcampaign.message_data a CROSS JOIN LATERAL (SELECT schema, group_id"
		"   FROM sendcampaign.run_data WHERE id = a.run_id AND account = $4 AND role_oid = $3"
		"    AND group_id IS NOT NULL AND " IS_AT_HOME(
			"$5", "$6") "    AND queued_at <= " TIME_OF_REPLY " OFFSET 0) r"
						"  WHERE a.phone = u.phone AND a.status IN ('sent', 'in_doubt') OFFSET 0) m"
						" ORDER BY u.n, m.schema, m.group_id, m.created_at <= " TIME_OF_REPLY
						" DESC,"
						"  m.created_at DESC, m.run_id DESC",
		6,
		{TEXTARRAYOID, TIMESTAMPTZARRAYOID, OIDOID, TEXTOID, NUMERICOID, OIDOID}};
	Column			 phones = column(TEXTOID, count);
	Column			 times = column(TIMESTAMPTZOID, count);
	Datum			 values[6];
	AnsweredMessage *messages;

	for (int i = 0; i < count; i++)
	{
		add_text(&phones, replies[i].is_known ? NULL : replies[i].phone);
		add_value(&times, TimestampTzGetDatum(replies[i].at));
	}
	values[0] = array_of_column(&phones);
	values[1] = array_of_column(&times);
	values[2] = ObjectIdGetDatum(role);
	values[3] = CStringGetTextDatum(account);
	values[4] = home_identifier();
	values[5] = ObjectIdGetDatum(MyDatabaseId);
	*num_messages = (int) own_execute(&statement, values, NULL);
	messages = palloc(Max(*num_messages, 1) * sizeof(AnsweredMessage));
	for (int i = 0; i < *num_messages; i++)
		messages[i] = (AnsweredMessage){spi_int32(i, 1) - 1,  spi_string(i, 2), spi_int64(i, 3),
										spi_int64(i, 4),	  spi_int64(i, 5),	spi_bool(i, 6),
										spi_timestamptz(i, 7)};
	return messages;
}

List *
replies_find_groups(Oid role, const char *account)
{
	static OwnStatement statement = {
		"SELECT schema::text, group_id, min(queued_at) - interval '" CLOCK_SKEW "'"
		" FROM sendcampaign.run_data WHERE account = $2 AND role_oid = $1"
		"  AND " IS_AT_HOME("$3", "$4") " AND group_id IS NOT NULL"
										" GROUP BY schema, group_id ORDER BY max(id) DESC",
		4,
		{OIDOID, TEXTOID, NUMERICOID, OIDOID}};
	Datum  values[] = {ObjectIdGetDatum(role), CStringGetTextDatum(account), home_identifier(),
					   ObjectIdGetDatum(MyDatabaseId)};
	uint64 count = own_execute(&statement, values, NULL);
	List  *groups = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		SendingGroup *group = palloc(sizeof(SendingGroup));

		*group = (SendingGroup){spi_string(i, 1), spi_int64(i, 2), spi_timestamptz(i, 3)};
		groups = lappend(groups, group);
	}
	return groups;
}

enum
{
	SIDS,
	PHONES,
	SENDERS,
	BODIES,
	WORDS,
	TIMES,
	SCHEMAS,
	GROUPS,
	RUNS,
	LIST_USERS,
	NUM_COLUMNS
};

#define COLUMN_TYPES                                                                               \
	TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,     \
		TEXTARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID

/* Makes the arrays of those that are to be stored, palloc'd. */
static void
arrays_of_replies(const Reply *replies, int count, Datum *arrays)
{
	static const Oid types[NUM_COLUMNS] = {TEXTOID,		   TEXTOID, TEXTOID, TEXTOID, TEXTOID,
										   TIMESTAMPTZOID, TEXTOID, INT8OID, INT8OID, INT8OID};
	Column			 columns[NUM_COLUMNS];

	for (int c = 0; c < NUM_COLUMNS; c++)
		columns[c] = column(types[c], count);
	for (int i = 0; i < count; i++)
	{
		const Reply *reply = &replies[i];

		if (reply->is_known || reply->schema == NULL)
			continue;
		add_text(&columns[SIDS], reply->sid);
		add_text(&columns[PHONES], reply->phone);
		add_text(&columns[SENDERS], reply->sender);
		add_text(&columns[BODIES], reply->body);
		add_text(&columns[WORDS], reply->word);
		add_value(&columns[TIMES], TimestampTzGetDatum(reply->at));
		add_text(&columns[SCHEMAS], reply->schema);
		add_value(&columns[GROUPS], Int64GetDatum(reply->group_id));
		add_id(&columns[RUNS], reply->run_id);
		add_id(&columns[LIST_USERS], reply->list_user_id);
	}
	for (int c = 0; c < NUM_COLUMNS; c++)
		arrays[c] = array_of_column(&columns[c]);
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Marks the replies with these SIDs as new. */
static void
mark_new(Reply *replies, int count, char **sids, int num_sids)
{
	qsort(sids, num_sids, sizeof(char *), compare_strings);
	for (int i = 0; i < count; i++)
	{
		replies[i].is_new = bsearch(&replies[i].sid, sids, num_sids, sizeof(char *),
									compare_strings) != NULL;
	}
}

List *
replies_store(Oid role, Reply *replies, int count)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.reply_data (sid_hash, role_oid, schema, group_id, role, sid,"
		"  phone, sender, body, word, received_at, run_id, list_user_id)"
		" SELECT DISTINCT ON (u.sid) " HASH_OF_SID ", $1, u.schema::name, u.group_id, $2::name,"
		"  u.sid, u.phone, u.sender, u.body, u.word, u.at, u.run_id, u.list_user_id"
		" FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13) WITH ORDINALITY"
		"  u(sid, phone, sender, body, word, at, schema, group_id, run_id, list_user_id, n)"
		" WHERE NOT EXISTS (SELECT FROM sendcampaign.reply_data o WHERE o.sid_hash = " HASH_OF_SID
		"  AND" IS_OF_ROLE(
			"o") ")"
				 " ORDER BY u.sid, u.n ON CONFLICT DO NOTHING"
				 " RETURNING sid, json_build_object('schema', schema, 'group_id', group_id,"
				 "  'reply', coalesce(word, 'message'))::text",
		NUM_OF_ROLE + NUM_COLUMNS,
		{ROLE_TYPES, COLUMN_TYPES}};
	Datum  values[NUM_OF_ROLE + NUM_COLUMNS];
	int	   num_new;
	char **sids;
	List  *lines = NIL;

	set_role(role, values);
	arrays_of_replies(replies, count, values + NUM_OF_ROLE);
	num_new = (int) own_execute(&statement, values, NULL);
	sids = palloc(Max(num_new, 1) * sizeof(char *));
	for (int i = 0; i < num_new; i++)
	{
		sids[i] = spi_string(i, 1);
		lines = lappend(lines, spi_string(i, 2));
	}
	mark_new(replies, count, sids, num_new);
	return lines;
}

void
replies_store_words(Oid role, List *words)
{
	static OwnStatement statement = {
		"WITH due AS (SELECT DISTINCT ON (sid_hash, schema, group_id) u.n, " HASH_OF_SID
		"   AS sid_hash, u.schema::name AS schema, u.group_id, u.at"
		"  FROM unnest($4, $5, $6, $7) WITH ORDINALITY u(sid, at, schema, group_id, n)"
		"  WHERE NOT EXISTS (SELECT FROM sendcampaign.reply_data o"
		"   WHERE o.sid_hash = " HASH_OF_SID " AND o.schema = u.schema::name"
		"    AND o.group_id = u.group_id AND" IS_OF_ROLE(
			"o") ")"
				 "  ORDER BY sid_hash, schema, group_id, u.n),"
				 " stored AS (INSERT INTO sendcampaign.reply_data (sid_hash, role_oid, schema, group_id,"
				 "   role, received_at)"
				 "  SELECT sid_hash, $1, schema, group_id, $2::name, at FROM due"
				 "  ON CONFLICT DO NOTHING RETURNING sid_hash, schema, group_id)"
				 " SELECT n::int4 FROM due JOIN stored USING (sid_hash, schema, group_id)",
		NUM_OF_ROLE + 4,
		{ROLE_TYPES, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID}};
	int		  count = list_length(words);
	Column	  columns[4] = {column(TEXTOID, count), column(TIMESTAMPTZOID, count),
							column(TEXTOID, count), column(INT8OID, count)};
	Datum	  values[NUM_OF_ROLE + 4];
	uint64	  num_new;
	ListCell *cell;

	foreach (cell, words)
	{
		GroupWord *word = lfirst(cell);

		word->is_new = false;
		add_text(&columns[0], word->reply->sid);
		add_value(&columns[1], TimestampTzGetDatum(word->reply->at));
		add_text(&columns[2], word->scope.schema);
		add_value(&columns[3], Int64GetDatum(word->scope.group_id));
	}
	set_role(role, values);
	for (int c = 0; c < lengthof(columns); c++)
		values[NUM_OF_ROLE + c] = array_of_column(&columns[c]);
	num_new = own_execute(&statement, values, NULL);
	for (uint64 i = 0; i < num_new; i++)
		((GroupWord *) list_nth(words, spi_int32(i, 1) - 1))->is_new = true;
}

/*
 * The lock is one on the role, as an object in our table, which is no catalog,
 * so that nobody else takes it.  It must not be another role's: whoever calls
 * receive() may keep it for as long as the transaction is open.
 */
void
replies_lock_words(const ReceiptScope *scope, const char *phone)
{
	Oid	   table = get_relname_relid("reply_data", get_namespace_oid("sendcampaign", false));
	uint32 hash = hash_bytes((const unsigned char *) phone, strlen(phone));

	LockDatabaseObject(table, scope->role, (uint16) hash, ExclusiveLock);
}

bool
replies_start_after(const ReceiptScope *scope, const Reply *reply)
{
	static OwnStatement statement = {
		"SELECT FROM sendcampaign.reply_data WHERE phone = $1 AND received_at > $2"
		" AND word = '" WORD_START "' AND role_oid = $3"
		" AND (sender = $6 OR (schema = $4::name AND group_id = $5))"
		" AND written_in = xmin LIMIT 1",
		6,
		{TEXTOID, TIMESTAMPTZOID, OIDOID, TEXTOID, INT8OID, TEXTOID}};
	Datum values[] = {CStringGetTextDatum(reply->phone), TimestampTzGetDatum(reply->at),
					  ObjectIdGetDatum(scope->role),	 CStringGetTextDatum(scope->schema),
					  Int64GetDatum(scope->group_id),	 CStringGetTextDatum(reply->sender)};

	return own_execute(&statement, values, NULL) > 0;
}

/*
 * SQL condition: the caller ($1) is a superuser ($2), or a member of the role
 * in this cluster ($4).
 */
#define IS_OF_CALLER                                                                               \
	" ($2 OR pg_has_role($1, CASE WHEN system_identifier = $4 THEN role_oid"                       \
	"  ELSE (SELECT named.oid FROM pg_roles named WHERE named.rolname = role) END, 'MEMBER')) "

/* SQL: nothing is left of a reply but what tells that it is known. */
#define ERASE                                                                                      \
	"UPDATE sendcampaign.reply_data SET sid = NULL, phone = NULL, sender = NULL, body = NULL,"     \
	" word = NULL, run_id = NULL, list_user_id = NULL WHERE sid IS NOT NULL AND" IS_OF_CALLER

static void
forget(const char *sql, Datum what, Oid type)
{
	Oid	  types[] = {OIDOID, BOOLOID, type, NUMERICOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), what,
					  system_identifier()};

	(void) own_query(sql, 4, types, values, NULL);
}

void
replies_forget_phones(Datum phones)
{
	forget(ERASE "AND phone = ANY ($3)", phones, TEXTARRAYOID);
}

void
replies_forget(TimestampTz before)
{
	forget("DELETE FROM sendcampaign.reply_data WHERE received_at < least($3, now() - interval"
		   " '" KEEP_ERASED "') AND" IS_OF_CALLER,
		   TimestampTzGetDatum(before), TIMESTAMPTZOID);
	forget(ERASE "AND received_at < $3", TimestampTzGetDatum(before), TIMESTAMPTZOID);
}
