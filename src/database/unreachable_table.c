/*-------------------------------------------------------------------------
 *
 * unreachable_table.c
 *	  Phone numbers that cannot be reached by SMS, and all SQL that writes them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/unreachable_table.h"
#include "miscadmin.h"

/* SQL: the messages of these list users, and what became of them. */
#define RECEIPTS                                                                                   \
	" FROM unnest($2) u(id) JOIN sendcampaign.run_data r ON r.id = $1"                             \
	" JOIN sendcampaign.message_data m ON m.run_id = $1 AND m.list_user_id = u.id"                 \
	"  AND m.phone IS NOT NULL"                                                                    \
	" JOIN sendcampaign.receipt_data d ON d.run_id = $1 AND d.list_user_id = u.id"                 \
	"  AND d.sid = m.sid"

/*
 * SQL: no message of the role to the phone number was delivered by SMS later.
 * When one was that has been read is not known, nor which of them went through
 * WhatsApp if the run has such senders, too.  OFFSET keeps the planner from
 * going through all messages for that.
 */
#define NONE_IS_LATER                                                                              \
	"NOT EXISTS (SELECT FROM sendcampaign.message_data later"                                      \
	"  CROSS JOIN LATERAL (SELECT FROM sendcampaign.run_data s WHERE s.id = later.run_id"          \
	"   AND s.role_oid = r.role_oid AND NOT EXISTS (SELECT FROM unnest(s.senders) sender"          \
	"    WHERE starts_with(sender, 'whatsapp:')) OFFSET 0) run"                                    \
	"  CROSS JOIN LATERAL (SELECT FROM sendcampaign.receipt_data c WHERE c.run_id = later.run_id"  \
	"   AND c.list_user_id = later.list_user_id AND c.sid = later.sid"                             \
	"   AND c.status = 'delivered' AND c.updated_at >= d.updated_at OFFSET 0) receipt"             \
	"  WHERE later.phone = m.phone OFFSET 0)"

/*
 * The lock is compatible with all that workers do.  It keeps forget_recipient()
 * from ending before the phone number is there to be deleted, and nobody is
 * waited for here: whoever has locked the message is about to erase or to
 * delete it, and may wait for what we have written.
 */
static void
mark(Datum *values)
{
	static OwnStatement statement = {
		"WITH found AS MATERIALIZED (SELECT m.phone, d.error_code, r.role, r.role_oid,"
		" d.updated_at" RECEIPTS
		" AND d.status IN ('undelivered', 'failed') AND d.error_code IN " UNREACHABLE_CODES
		" AND " NONE_IS_LATER " FOR KEY SHARE OF m SKIP LOCKED)"
		" INSERT INTO sendcampaign.unreachable_data AS o (phone, error_code, role, role_oid,"
		" updated_at)"
		" SELECT DISTINCT ON (phone) phone, error_code, role, role_oid, updated_at FROM found"
		" ORDER BY phone, updated_at DESC"
		" ON CONFLICT (phone, role_oid, system_identifier) DO UPDATE SET"
		" error_code = excluded.error_code, role = excluded.role,"
		" updated_at = excluded.updated_at WHERE o.updated_at < excluded.updated_at",
		2,
		{INT8OID, INT8ARRAYOID}};

	(void) own_execute(&statement, values, NULL);
}

/* Rows are locked in the order in which mark() writes them. */
static void
unmark(Datum *values)
{
	static OwnStatement statement = {
		"WITH found AS (SELECT x.phone, x.role_oid, x.system_identifier" RECEIPTS
		"  AND d.status IN ('delivered', 'read')"
		" JOIN sendcampaign.unreachable_data x ON x.phone = m.phone AND x.role_oid = r.role_oid"
		"  AND x.updated_at <= d.updated_at ORDER BY x.phone FOR UPDATE OF x)"
		" DELETE FROM sendcampaign.unreachable_data x USING found f WHERE x.phone = f.phone"
		" AND x.role_oid = f.role_oid AND x.system_identifier = f.system_identifier",
		2,
		{INT8OID, INT8ARRAYOID}};

	(void) own_execute(&statement, values, NULL);
}

void
unreachable_follow(int64 run_id, Datum list_users)
{
	Datum values[] = {Int64GetDatum(run_id), list_users};

	mark(values);
	unmark(values);
}

void
unreachable_forget(Datum phones)
{
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), phones,
					  system_identifier()};

	(void) own_query("DELETE FROM sendcampaign.unreachable_data WHERE phone = ANY ($3) AND ($2"
					 " OR pg_has_role($1, CASE WHEN system_identifier = $4 THEN role_oid ELSE"
					 "  (SELECT named.oid FROM pg_roles named WHERE named.rolname = role) END,"
					 "  'MEMBER'))",
					 4, types, values, NULL);
}
