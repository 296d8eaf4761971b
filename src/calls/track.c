/*-------------------------------------------------------------------------
 *
 * track.c
 *	  track(): a recipient has opened a link, or done something behind it.
 *
 * A web page calls it with what anybody may have put into the link.  So a link
 * that cannot be right is no error: it counts nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "campaign/link_signature.h"
#include "catalog/pg_type.h"
#include "database/event_table.h"
#include "fmgr.h"
#include "settings.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_track);

#define MAX_EVENT_LENGTH 32

/* Events that the application counts, in the order in which a recipient comes to them. */
typedef struct CountedEvent
{
	const char *event;
	const char *count;
} CountedEvent;

static const CountedEvent counted_events[] = {{"open", "openCount"}, {"complete", "completeCount"}};

static const char *
count_of_event(const char *event)
{
	for (int i = 0; i < lengthof(counted_events); i++)
	{
		if (strcmp(counted_events[i].event, event) == 0)
			return counted_events[i].count;
	}
	return NULL;
}

static void
check_event(const char *event)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
	static const char others[] = "abcdefghijklmnopqrstuvwxyz0123456789_";

	if (event && strspn(event, letters) > 0 && event[strspn(event, others)] == '\0' &&
		strlen(event) <= MAX_EVENT_LENGTH)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 event
				? errmsg("invalid name of an event: \"%s\"", event)
				: errmsg("the name of an event must not be null"),
			 errhint("Use \"open\", \"complete\", or a name of your own, of at most %d small"
					 " letters, digits and underscores that begins with a letter.",
					 MAX_EVENT_LENGTH)));
}

/* Nobody completes what they have not opened. */
static Datum
with_those_before(char *event)
{
	char *events[] = {unconstify(char *, counted_events[0].event), event};
	bool  is_complete = strcmp(event, counted_events[1].event) == 0;

	return is_complete ? make_text_array(events, 2) : make_text_array(&event, 1);
}

/* Counts the events for the list user; returns false if that is not possible. */
static bool
count_events(const AppTables *tables, const TrackedRun *run, int64 list_user_id, char **events,
			 int count)
{
	for (int i = 0; i < count; i++)
	{
		const char *counted = count_of_event(events[i]);

		if (!tables_count_once(tables, counted, list_user_id, run->list_id))
			return false;
	}
	return true;
}

/* Records the event, and counts it; both or neither. */
static bool
record_event(const AppTables *tables, const TrackedRun *run, int64 list_user_id, char *event)
{
	Datum  events = with_those_before(event);
	int	   count;
	char **added = events_add(run->id, list_user_id, events, &count);
	bool   is_new = false;

	for (int i = 0; i < count; i++)
		is_new |= strcmp(added[i], event) == 0;
	if (count_events(tables, run, list_user_id, added, count))
		return is_new;
	events_remove(run->id, list_user_id, make_text_array(added, count));
	return false;
}

/* Another table may have other people under the same ids. */
static bool
has_its_list_users(const AppTables *tables, const TrackedRun *run)
{
	return !OidIsValid(run->list_users) || run->list_users == tables->list_users;
}

static bool
track(TrackedLink *link, char *event, const char *signature)
{
	TrackedRun	run;
	AppTables  *tables;
	Oid			role;
	ActingScope scope;
	bool		is_new;

	if (signature)
		link->is_signed = link_signature_fits(link_signer(link->schema), link->campaign_id,
											  link->list_user_id, signature);
	if (!events_find_run(link, &run))
		return false;
	tables = open_tables_anywhere(&role); /* the run is here */
	act_as(role, &scope);
	is_new = has_its_list_users(tables, &run) &&
			 record_event(tables, &run, link->list_user_id, event);
	act_as_caller(role, &scope);
	tables_close(tables);
	return is_new;
}

/* sendcampaign.track(yu bigint, yc bigint, event text, signature text) returns boolean */
Datum
sendcampaign_track(PG_FUNCTION_ARGS)
{
	char	   *event = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *signature = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	TrackedLink link = {sendcampaign_schema};
	bool		is_new;

	check_writable("sendcampaign.track()");
	check_event(event);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	link.list_user_id = PG_GETARG_INT64(0);
	link.campaign_id = PG_GETARG_INT64(1);
	spi_connect();
	is_new = track(&link, event, signature);
	spi_finish();
	PG_RETURN_BOOL(is_new);
}
