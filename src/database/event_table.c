/*-------------------------------------------------------------------------
 *
 * event_table.c
 *	  What recipients have done with their links, and all SQL that writes it.
 *
 * The key of a row is run, recipient and event, so whoever inserts it first has
 * counted the event, and others wait for that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/event_table.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

/*
 * SQL on a run: the link may be one of its links.  Tests count nothing.  Those
 * whose links are all signed accept no others.
 */
#define HAS_LINK                                                                                   \
	" WHERE r.campaign_id = $3 AND r.schema = $6::name AND r.test_phone IS NULL"                   \
	" AND ($8 OR r.links_signed IS NOT TRUE)"

/* The caller's runs, as in RUNS_OF_CALLER. */
#define TRACKED_RUN                                                                                \
	"SELECT r.id, coalesce(r.list_id, 0), CASE WHEN r.at_home THEN r.list_users::int8 ELSE 0 END"  \
	" FROM (SELECT *, " IS_AT_HOME("$4", "$5") " AS at_home FROM sendcampaign.run_data"            \
											   "  WHERE" IS_FOR_CALLER ") r"

/*
 * Recipients who have been erased have no phone number.  The lock keeps
 * forget() and forget_recipient() from deleting events before this one is there;
 * it is compatible with all that workers do.
 */
#define OF_MESSAGES                                                                                \
	TRACKED_RUN " JOIN sendcampaign.message_data m ON m.run_id = r.id"                             \
				" AND m.list_user_id = $7" HAS_LINK                                                \
				" AND m.status IN ('sent', 'in_doubt') AND m.phone IS NOT NULL"                    \
				" ORDER BY r.id DESC LIMIT 1 FOR KEY SHARE OF m"

/*
 * Somebody may be faster than the record of what was sent; and that may come just
 * after we have looked for it.
 */
#define OF_CLAIMS                                                                                  \
	TRACKED_RUN HAS_LINK " AND EXISTS (SELECT FROM sendcampaign.claim c WHERE c.run_id = r.id"     \
						 "  AND c.list_user_ids @> ARRAY[$7]) ORDER BY r.id DESC LIMIT 1"

#define TRACKED_TYPES                                                                              \
	8,                                                                                             \
	{                                                                                              \
		OIDOID, BOOLOID, INT8OID, NUMERICOID, OIDOID, TEXTOID, INT8OID, BOOLOID                    \
	}

bool
events_find_run(const TrackedLink *link, TrackedRun *run)
{
	static OwnStatement of_messages = {OF_MESSAGES, TRACKED_TYPES};
	static OwnStatement of_claims = {OF_CLAIMS, TRACKED_TYPES};
	/* as in the view sendcampaign.run */
	bool  sees_all = superuser() || has_bypassrls_privilege(GetUserId());
	Datum values[] = {ObjectIdGetDatum(GetUserId()),	 BoolGetDatum(sees_all),
					  Int64GetDatum(link->campaign_id),	 home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId),	 CStringGetTextDatum(link->schema),
					  Int64GetDatum(link->list_user_id), BoolGetDatum(link->is_signed)};

	if (own_execute(&of_messages, values, NULL) == 0 &&
		own_execute(&of_claims, values, NULL) == 0 && own_execute(&of_messages, values, NULL) == 0)
		return false;
	*run = (TrackedRun){spi_int64(0, 1), spi_int64(0, 2), (Oid) spi_int64(0, 3)};
	return true;
}

char **
events_add(int64 run_id, int64 list_user_id, Datum events, int *count)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.event_data (run_id, list_user_id, event)"
		" SELECT $1, $2, e.event FROM unnest($3) WITH ORDINALITY e(event, n) ORDER BY e.n"
		" ON CONFLICT DO NOTHING RETURNING event",
		3,
		{INT8OID, INT8OID, TEXTARRAYOID}};
	Datum  values[] = {Int64GetDatum(run_id), Int64GetDatum(list_user_id), events};
	char **added;

	*count = (int) own_execute(&statement, values, NULL);
	added = palloc(Max(*count, 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
		added[i] = spi_string(i, 1);
	return added;
}

void
events_remove(int64 run_id, int64 list_user_id, Datum events)
{
	Oid	  types[] = {INT8OID, INT8OID, TEXTARRAYOID};
	Datum values[] = {Int64GetDatum(run_id), Int64GetDatum(list_user_id), events};

	(void) own_query("DELETE FROM sendcampaign.event_data"
					 " WHERE run_id = $1 AND list_user_id = $2 AND event = ANY ($3)",
					 3, types, values, NULL);
}

/*
 * The messages are locked first: an event that somebody is recording for one of
 * them is there by then, and there is none afterwards.
 */
void
events_forget_phones(Datum phones)
{
	Oid	  types[] = {OIDOID, BOOLOID, TEXTARRAYOID, NUMERICOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(GetUserId()), BoolGetDatum(superuser()), phones,
					  home_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	(void) own_query("SELECT FROM " RUNS_OF_CALLER
					 " JOIN sendcampaign.message_data m ON m.run_id = r.id"
					 " WHERE m.phone = ANY ($3) ORDER BY m.run_id, m.list_user_id FOR UPDATE OF m",
					 5, types, values, NULL);
	(void) own_query("DELETE FROM sendcampaign.event_data e USING " RUNS_OF_CALLER
					 " JOIN sendcampaign.message_data m ON m.run_id = r.id"
					 " WHERE m.phone = ANY ($3) AND e.run_id = m.run_id"
					 " AND e.list_user_id = m.list_user_id",
					 5, types, values, NULL);
}
