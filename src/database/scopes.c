/*-------------------------------------------------------------------------
 *
 * scopes.c
 *	  Whose messages a request of Twilio's may be about.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/scopes.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/*
 * How many groups are tried: of one message, of one role with a phone number,
 * of one role, and of how many roles.  How many of a role's latest runs are
 * looked at for that.
 */
#define MAX_SCOPES		 "16"
#define MAX_OF_PHONE	 "16"
#define MAX_OF_ROLE		 "8"
#define MAX_ROLES		 "64"
#define MAX_RUNS_OF_ROLE "100"

/* How many groups that may share a sender are looked at. */
#define MAX_SHARING "100"

/* SQL condition on a run: it is here, and its group is known. */
#define IS_HERE " group_id IS NOT NULL AND " IS_AT_HOME("$3", "$4")

/* SQL: the runs of the account; and of some of them, the table of the latest. */
#define RUNS_OF_ACCOUNT                                                                            \
	"(SELECT id, role_oid, schema, group_id, list_users FROM sendcampaign.run_data"                \
	" WHERE account = $1 AND" IS_HERE ") r"

/*
 * SQL: messages (m) and their runs (r).  A message is looked for first, whatever
 * the planner believes of the tables: OFFSET keeps it from going through all
 * runs of the account.
 */
#define RUN_OF_MESSAGE                                                                             \
	" CROSS JOIN LATERAL (SELECT * FROM " RUNS_OF_ACCOUNT " WHERE r.id = m.run_id OFFSET 0) r "
#define MESSAGES_WITH_SID                                                                          \
	" FROM (SELECT a.run_id, a.list_user_id FROM sendcampaign.message_data a"                      \
	"  WHERE a.sid = $2 AND a.status = 'sent' OFFSET 0) m" RUN_OF_MESSAGE
#define MESSAGES_WITH_PHONE                                                                        \
	" FROM (SELECT a.run_id FROM sendcampaign.message_data a"                                      \
	"  WHERE a.phone = $2 AND a.status IN ('sent', 'in_doubt') OFFSET 0) m" RUN_OF_MESSAGE

#define LATEST_LIST_USERS(r)                                                                       \
	"coalesce((array_agg(" r ".list_users ORDER BY " r ".id DESC))[1], 0)::int8"

#define SCOPE_TYPES TEXTOID, TEXTOID, NUMERICOID, OIDOID

/* Runs the statement, whose parameters are the account, another text, and home. */
static uint64
execute(OwnStatement *statement, const char *account, const char *what)
{
	Datum values[] = {CStringGetTextDatum(account), CStringGetTextDatum(what), home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	return own_execute(statement, values, NULL);
}

static ReceiptScope
scope_of_row(uint64 row, const char *account)
{
	return (ReceiptScope){.role = (Oid) spi_int64(row, 1),
						  .account = account,
						  .schema = spi_string(row, 2),
						  .group_id = spi_int64(row, 3),
						  .list_users = (Oid) spi_int64(row, 4)};
}

static List *
scopes_of(OwnStatement *statement, const char *account, const char *what)
{
	uint64 count = execute(statement, account, what);
	List  *scopes = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		ReceiptScope *scope = palloc(sizeof(ReceiptScope));

		*scope = scope_of_row(i, account);
		scopes = lappend(scopes, scope);
	}
	return scopes;
}

List *
messages_with_sid(const char *account, const char *sid)
{
	static OwnStatement statement = {
		"SELECT r.role_oid::int8, r.schema, r.group_id, coalesce(r.list_users, 0)::int8, m.run_id,"
		" m.list_user_id" MESSAGES_WITH_SID "LIMIT " MAX_SCOPES,
		4,
		{SCOPE_TYPES}};
	uint64 count = execute(&statement, account, sid);
	List  *messages = NIL;

	for (uint64 i = 0; i < count; i++)
	{
		KnownMessage *message = palloc(sizeof(KnownMessage));

		*message = (KnownMessage){.scope = scope_of_row(i, account),
								  .run_id = spi_int64(i, 5),
								  .list_user_id = spi_int64(i, 6),
								  .sid = sid};
		messages = lappend(messages, message);
	}
	return messages;
}

List *
scopes_of_phone(const char *account, const char *phone)
{
	static OwnStatement statement = {
		"SELECT g.role_oid::int8, g.schema, g.group_id, g.list_users"
		" FROM (SELECT r.role_oid, r.schema, r.group_id, max(r.id) AS id,"
		"   " LATEST_LIST_USERS(
			"r") " AS list_users,"
				 "   row_number() OVER (PARTITION BY r.role_oid ORDER BY max(r.id) DESC) AS n" MESSAGES_WITH_PHONE
				 "  GROUP BY r.role_oid, r.schema, r.group_id) g"
				 " WHERE g.n <= " MAX_OF_PHONE " ORDER BY g.id DESC",
		4,
		{SCOPE_TYPES}};

	return scopes_of(&statement, account, phone);
}

List *
scopes_of_account(const char *account)
{
	static OwnStatement statement = {
		"WITH RECURSIVE roles(role_oid) AS ((SELECT role_oid FROM sendcampaign.run_data"
		"   WHERE account = $1 ORDER BY role_oid LIMIT 1)"
		"  UNION ALL SELECT (SELECT n.role_oid FROM sendcampaign.run_data n"
		"   WHERE n.account = $1 AND n.role_oid > roles.role_oid ORDER BY n.role_oid LIMIT 1)"
		"  FROM roles WHERE roles.role_oid IS NOT NULL)"
		" SELECT o.role_oid::int8, g.schema, g.group_id, g.list_users"
		" FROM (SELECT role_oid FROM roles WHERE role_oid IS NOT NULL LIMIT " MAX_ROLES ") o,"
		" LATERAL (SELECT l.schema, l.group_id, max(l.id) AS id, " LATEST_LIST_USERS(
			"l") "   AS list_users FROM"
				 "  (SELECT id, schema, group_id, list_users FROM sendcampaign.run_data"
				 "   WHERE account = $1 AND role_oid = o.role_oid AND" IS_HERE
				 "   ORDER BY id DESC LIMIT " MAX_RUNS_OF_ROLE ") l"
				 "  GROUP BY l.schema, l.group_id ORDER BY id DESC LIMIT " MAX_OF_ROLE ") g"
				 " WHERE $2 IS NOT NULL ORDER BY g.id DESC",
		4,
		{SCOPE_TYPES}};

	return scopes_of(&statement, account, "");
}

List *
scopes_of_role(Oid role, const char *account)
{
	static OwnStatement statement = {
		/* of all runs of the role, which may be many: nothing is sorted */
		"SELECT r.role_oid::int8, r.schema, r.group_id,"
		" coalesce((max(ARRAY[r.id, r.list_users::int8]))[2], 0)"
		" FROM " RUNS_OF_ACCOUNT
		" WHERE r.role_oid = $2::oid GROUP BY r.role_oid, r.schema, r.group_id"
		" ORDER BY max(r.id) DESC LIMIT " MAX_SHARING,
		4,
		{SCOPE_TYPES}};

	return scopes_of(&statement, account, psprintf("%u", role));
}
