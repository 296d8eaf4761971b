/*-------------------------------------------------------------------------
 *
 * adopt.c
 *	  Takes runs from the queue into the worker.
 *
 * The text and the recipients of a run are fixed when it begins.  A run is
 * adopted only in its home: if a dump of it was restored in another cluster,
 * that must not send anything by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/national.h"
#include "catalog/pg_type.h"
#include "database/attempt.h"
#include "database/check.h"
#include "database/citus.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "debug_point.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/adopt.h"
#include "worker/batch.h"
#include "worker/begin.h"
#include "worker/claim.h"
#include "worker/failure_limit.h"
#include "worker/finish.h"
#include "worker/left_alone.h"
#include "worker/long_lists.h"
#include "worker/message.h"
#include "worker/read_back.h"
#include "worker/record.h"
#include "worker/recover.h"
#include "worker/run_attempt.h"
#include "worker/sent_elsewhere.h"
#include "worker/start_worker.h"
#include "worker/trouble.h"

/* The most runs in memory; others wait in the queue. */
#define MAX_RUNS 512

/* The most runs adopted at once, so that the first of many does not wait for the others. */
#define MAX_ADOPTED 128

/* Of those that are taken up one by one: as many, or as many as this takes. */
#define MAX_SINGLE	  8
#define MAX_SINGLE_MS 20

/* Runs that cannot be taken up may take so much of that time; others wait for the next time. */
#define MAX_STUCK_MS 150

/* What the queue says about a run. */
typedef struct QueuedRun
{
	bool  begun;	/* true if its recipients are fixed */
	bool  requeued; /* true if it was called again, so that its text is read again */
	bool  cancelled;
	bool  loaded;  /* true if its row was written neither by the extension nor by a superuser */
	int64 version; /* xmin of its row */
} QueuedRun;

/* How it begins. */
typedef struct HowToBegin
{
	int64 most;	   /* the most recipients that are stored, see store_recipients() */
	int64 version; /* xmin of its row, unless that is locked; or 0 */
	bool  is_long; /* set: true if there are more, so that it has not begun */
} HowToBegin;

/*
 * SQL condition on a run: no cancelled run of its campaign has claims.  A lookup
 * identifies a message by campaign and recipient, so while one of a cancelled
 * run is in doubt, no other run of the campaign begins.
 */
#define NOT_CONFUSED                                                                               \
	" AND (state = 'cancelled' OR NOT EXISTS (SELECT FROM sendcampaign.run_data o"                 \
	"  JOIN sendcampaign.claim c ON c.run_id = o.id WHERE o.finished_at IS NULL"                   \
	"  AND o.state <> 'paused' AND o.state = 'cancelled'"                                          \
	"  AND o.campaign_id = r.campaign_id AND o.schema = r.schema"                                  \
	"  AND o.system_identifier = $3 AND o.database = $4 AND o.written_in <> '0'::xid))"

/*
 * SQL for what create_run() reads; $1 is the cluster's timeline.  No values of
 * unlimited length are read from runs that were loaded.
 */
#define RUN_COLUMNS(message, base_url, media_urls, content_sid, error)                                 \
	"SELECT id, job_id, campaign_id, schema::text, list_id, " message ", " base_url ","                \
	" total IS NOT NULL, state = 'queued', timeline IS DISTINCT FROM $1 OR NOT " IS_CONTINUOUS         \
	"  OR EXISTS (SELECT FROM sendcampaign.batch b WHERE b.run_id = r.id AND b.xmin <> b.written_in)"  \
	"  OR EXISTS (SELECT FROM sendcampaign.claim c WHERE c.run_id = r.id AND c.xmin <> c.written_in)," \
	" read_back, started_at, left(test_phone, 100), state = 'cancelled', queued_at,"                   \
	" written_in = '0'::xid, may_overlap,"                                                             \
	" CASE WHEN state IN ('queued', 'running') THEN " error " END, list_users::int8, " media_urls      \
	", " content_sid                                                                                   \
	", xmin::text::int8, recipients IS NOT NULL, recipients_list, left(country_code, 10)"              \
	" FROM sendcampaign.run_data r"

/* SQL for those that are waiting; $2 is the role, $3 and $4 the cluster and the database. */
#define WAITING_RUNS                                                                               \
	RUN_COLUMNS("message", "base_url", "media_urls", "content_sid", "error")                       \
	" WHERE role_oid = $2 AND " IS_AT_HOME("$3", "$4") IS_WAITING NOT_CONFUSED

/* SQL condition on these: not those that the worker has, or a list worker ($5, $7). */
#define NOT_HELD " AND id NOT IN (SELECT held.id FROM unnest($5 || $7) held(id))"

/* Nor these, or those of these schemas ($8, $9). */
#define NOT_LEFT_ALONE " AND NOT id = ANY ($8) AND NOT schema::text = ANY ($9)"

#define OLDEST_FIRST " ORDER BY queued_at, id LIMIT $6 FOR NO KEY UPDATE SKIP LOCKED"

/*
 * Fills SPI_tuptable with runs that are waiting, and returns their number.  A
 * run that somebody has locked may be about to be paused: it is left for the
 * next time.
 */
static uint64
read_queue(int limit)
{
	static OwnStatement statement = {
		WAITING_RUNS NOT_HELD OLDEST_FIRST,
		7,
		{TEXTOID, OIDOID, NUMERICOID, OIDOID, INT8ARRAYOID, INT8OID, INT8ARRAYOID}};
	static OwnStatement without = {WAITING_RUNS NOT_HELD NOT_LEFT_ALONE OLDEST_FIRST,
								   9,
								   {TEXTOID, OIDOID, NUMERICOID, OIDOID, INT8ARRAYOID, INT8OID,
									INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID}};
	Datum				values[9] = {CStringGetTextDatum(cluster_timeline()),
									 ObjectIdGetDatum(worker.role),
									 home_identifier(),
									 ObjectIdGetDatum(MyDatabaseId),
									 ids_of_runs(),
									 Int64GetDatum(limit),
									 ids_with_long_lists()};

	if (!some_are_left_alone())
		return own_execute(&statement, values, NULL);
	values[7] = ids_left_alone();
	values[8] = schemas_left_alone();
	return own_execute(&without, values, NULL);
}

/*
 * Does the same for one of them, but does not lock it: people may want to pause
 * it while its list is stored.
 */
static uint64
read_queued(int64 id)
{
	static OwnStatement statement = {
		WAITING_RUNS " AND id = $5", 5, {TEXTOID, OIDOID, NUMERICOID, OIDOID, INT8OID}};
	Datum values[] = {CStringGetTextDatum(cluster_timeline()), ObjectIdGetDatum(worker.role),
					  home_identifier(), ObjectIdGetDatum(MyDatabaseId), Int64GetDatum(id)};

	return own_execute(&statement, values, NULL);
}

/* Does the same for foreign runs.  In another cluster, a role is known only by its name. */
static uint64
read_foreign_runs(void)
{
	Oid	  types[] = {TEXTOID, TEXTOID, NUMERICOID, OIDOID};
	Datum values[] = {CStringGetTextDatum(cluster_timeline()),
					  CStringGetTextDatum(worker.role_name), home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	return own_query(
		RUN_COLUMNS("NULL::text", "NULL::text", "NULL::text[]", "NULL::text",
					"NULL::text") " WHERE role = $2::name AND finished_at IS NULL"
								  " AND state IN ('queued', 'running')"
								  " AND NOT " IS_AT_HOME("$3", "$4") " LIMIT " CppAsString2(
									  MAX_RUNS) " FOR NO KEY UPDATE SKIP LOCKED",
		4, types, values, NULL);
}

bool
runs_are_waiting(void)
{
	static OwnStatement statement = {"SELECT FROM sendcampaign.run_data"
									 " WHERE role_oid = $1 AND " IS_AT_HOME("$2", "$3") IS_WAITING
									 " AND id NOT IN (SELECT held.id FROM unnest($4) held(id))"
									 " LIMIT 1",
									 4,
									 {OIDOID, NUMERICOID, OIDOID, INT8ARRAYOID}};
	Datum				values[] = {ObjectIdGetDatum(worker.role), home_identifier(),
									ObjectIdGetDatum(MyDatabaseId), ids_of_runs()};

	return own_execute(&statement, values, NULL) > 0;
}

/* A loaded row may have nulls among the URLs, which are left out. */
static void
read_text(CampaignText *text, uint64 row)
{
	text->message = spi_string(row, 6);
	text->base_url = spi_string(row, 7);
	text->media_urls = spi_strings(row, 20, &text->num_media);
	text->content_sid = spi_string(row, 21);
}

/* A loaded row may have anything. */
static const char *
country_of_row(uint64 row)
{
	char *code = spi_string(row, 25);

	return code ? find_country(code) : NULL;
}

/* Creates a run from a row of SPI_tuptable, in a memory context of its own. */
static Run *
create_run(uint64 row, QueuedRun *queued)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sendcampaign run",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Run			 *run = palloc0(sizeof(Run));

	run->context = context;
	run->tentative = true;
	run->id = spi_int64(row, 1);
	run->job_id = spi_int64(row, 2);
	run->campaign.id = spi_int64(row, 3);
	run->schema = pstrdup(spi_string(row, 4));
	run->campaign.list_id = spi_int64(row, 5);
	read_text(&run->campaign.text, row);
	queued->begun = spi_bool(row, 8);
	queued->requeued = spi_bool(row, 9);
	run->commits_lost = spi_bool(row, 10);
	run->was_read_back = spi_bool(row, 11);
	run->started_at = spi_timestamptz(row, 12);
	run->campaign.test_phone = spi_string(row, 13);
	queued->cancelled = spi_bool(row, 14);
	run_begin(run, queued->cancelled);
	run->queued_at = spi_timestamptz(row, 15);
	queued->loaded = spi_bool(row, 16);
	queued->version = spi_int64(row, 22);
	run->has_query = spi_bool(row, 23);
	run->campaign.query_list = run->has_query ? spi_int64(row, 24) : 0;
	run->may_overlap = spi_bool(row, 17);
	recall_notice(run, spi_string(row, 18));
	run->list_users = (Oid) spi_int64(row, 19);
	/* if it cannot be taken up, it has been waiting since then */
	run->claiming.since = run->queued_at;
	run->campaign.country = country_of_row(row);
	reset_verdicts(run);
	dlist_init(&run->claims);
	dlist_init(&run->queues);
	dlist_init(&run->lookups);
	dlist_init(&run->done);
	dlist_init(&run->recorded);
	dlist_init(&run->recorded_skips);
	MemoryContextSwitchTo(old);
	return run;
}

void
free_run(Run *run)
{
	while (!dlist_is_empty(&run->claims))
		drop_claim(dlist_head_element(Claim, node, &run->claims));
	run_count_doubt(run, -run->num_doubtful);
	dlist_delete(&run->node);
	worker.num_runs--;
	if (run->campaign.tables)
		tables_close(run->campaign.tables);
	give_up_run(run->id);
	MemoryContextDelete(run->context);
}

/*
 * If somebody else has taken the schema's name, the job there is not told, either:
 * the run has no tables then.
 */
static void
open_tables(Run *run, void *arg)
{
	AppTables *tables = tables_open(run->schema);

	if (OidIsValid(run->list_users))
		tables_check_chosen(tables, run->list_users);
	run->campaign.tables = tables_share(tables);
	tables_check_rights(run->campaign.tables, worker.role, false);
}

/* Reads what the run sends; from now on, its text is the same for all recipients. */
static void
read_campaign(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	campaign_read(&run->campaign);
	MemoryContextSwitchTo(old);
}

static void
store_beginning(Run *run, int64 total, int64 version)
{
	const CampaignText *text = &run->campaign.text;
	RunBeginning		beginning = {run->campaign.list_id,
									 text->message,
									 text->base_url,
									 text->media_urls,
									 text->num_media,
									 text->content_sid,
									 run->campaign.country,
									 total,
									 run->campaign.tables->list_users,
									 version};

	if (!runs_begin(run->id, &beginning))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("job %lld was paused, cancelled or called again before it could begin",
						(long long) run->job_id),
				 errhint("To continue a paused run, call sendcampaign.resume().")));
}

/*
 * Sorting a million ids must not take more memory than sorting a thousand.
 * Returns false, having stored nothing, if the list is long (see
 * store_recipients()).
 */
static bool
store_recipients_in_little_memory(Run *run, int64 most, int64 *total)
{
	int	 level = NewGUCNestLevel();
	bool stored = true;

	(void) set_config_option("work_mem", "1MB", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
							 0, false);
	if (run->campaign.test_phone)
		*total = store_first_recipient(run);
	else
		stored = store_recipients(run, most, total);
	AtEOXact_GUC(true, level);
	return stored;
}

/*
 * A query that selects recipients may take long, so a list worker runs it; if
 * it fails there, that is recorded with the run.  In rows that were loaded, the
 * query may be anybody's.
 */
static void
check_query(Run *run, const RunQuery *query)
{
	runs_check_query(run->id);
	if (query->error)
	{
		/* it has its detail and its hint in it */
		ErrorData error = {.elevel = ERROR,
						   .sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   .message = query->error,
						   .assoc_context = CurrentMemoryContext};

		ThrowErrorData(&error);
	}
}

static void
use_query(Run *run, HowToBegin *how)
{
	RunQuery query = runs_read_query(run->id);

	check_query(run, &query);
	if (how->version != 0)
		run->campaign.recipients = list_query_prepare(query.sql);
	else if (how->most > 0)
		how->is_long = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background process can select the recipients of job %lld now",
						(long long) run->job_id),
				 errhint("If this lasts, raise \"max_worker_processes\", and see the server's log for"
						 " the reason why a list worker has ended.")));
}

/*
 * Reads and stores what is sent, and to whom.  Returns false if the list is long.
 *
 * A command that rewrites the table of list users, or replaces it with another,
 * can leave it empty for older snapshots.  So it is read with a snapshot that
 * is newer than our locks; and so is the text, since both may change together.
 */
static bool
store_what_is_sent(Run *run, int64 most, int64 *total)
{
	const AppTables *tables = run->campaign.tables;
	bool			 stored;

	tables_plan(run->campaign.tables, NIL);
	tables_check_not_replaced(tables);
	PushActiveSnapshot(GetTransactionSnapshot());
	read_campaign(run);
	run->campaign.country = read_country_of_list(tables, run->campaign.list_id);
	tables_plan(run->campaign.tables, run->campaign.keys);
	stored = store_recipients_in_little_memory(run, most, total);
	PopActiveSnapshot();
	return stored;
}

/*
 * If commits were lost, the run may have begun before, and have sent messages.
 * They are read back, as for a run that continues; after a list worker, by the
 * worker, who finds a run that has begun.
 */
static void
begin_run(Run *run, void *arg)
{
	HowToBegin *how = arg;
	int64		total;

	open_tables(run, NULL);
	if (run->has_query)
		use_query(run, how);
	if (how->is_long)
		return;
	how->is_long = !store_what_is_sent(run, how->most, &total);
	if (how->is_long)
		return;
	if (how->version != 0)
		debug_point(DEBUG_STORED);
	store_beginning(run, total, how->version);
	if (!run->commits_lost)
		return;
	expect_overlaps(run);
	if (how->version != 0)
		return;
	refresh_group(run);
	begin_reading_back(run);
}

/* Restores the text that the run had at its start, with links as they were sent. */
static void
recall_text(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	campaign_set_text(&run->campaign, &run->campaign.text);
	campaign_sign_links(&run->campaign, run->schema, runs_links_are_signed(run->id));
	MemoryContextSwitchTo(old);
}

/*
 * Checks that the table of list users is the one that the run has used so far.
 * After a restore from a dump, its OID is a different one, and is recorded.
 */
static void
use_list_users(Run *run)
{
	const AppTables *tables = run->campaign.tables;

	if (OidIsValid(run->list_users) && !run->commits_lost)
		tables_check_list_users(tables, run->list_users);
	else
		runs_set_list_users(run->id, tables->list_users);
}

static void
resume_run(Run *run, void *arg)
{
	open_tables(run, NULL);
	use_list_users(run);
	recall_text(run);
	tables_plan(run->campaign.tables, run->campaign.keys);
	runs_wake(run->id); /* otherwise its remaining recipients would wait even if they are due */
	recover_claims(run);
	count_uncounted(run);
	if (run->open > 0 || run->commits_lost)
		refresh_group(run);
	if (run->commits_lost)
		begin_reading_back(run);
}

/* Continues a run that was called again after it had failed: its text may have been the cause. */
static void
reread_run(Run *run, void *arg)
{
	resume_run(run, NULL);
	/* messages in doubt, or sent before commits were lost, are identified by the old text */
	if (run->open == 0 && !run->commits_lost)
	{
		PushActiveSnapshot(GetTransactionSnapshot()); /* newer than our locks, as above */
		read_campaign(run);
		PopActiveSnapshot();
	}
	store_beginning(run, 0, 0);
}

/*
 * Prepares what is needed to look up a cancelled run's messages in doubt.  As
 * nobody has decided to use another table of list users, what is found to be
 * sent is recorded, but not counted in such a table.
 */
static void
open_cancelled(Run *run, void *arg)
{
	open_tables(run, NULL);
	if (run->open > 0 || run->commits_lost)
		refresh_group(run);
	if (run->commits_lost)
		begin_reading_back(run);
	else
		run->counted_in = run->list_users;
	count_uncounted(run);
}

static void
recover_cancelled(Run *run, void *arg)
{
	recover_claims(run);
}

/* A run that could not be taken up is still in the queue, where it waits. */
static void
return_to_queue(Run *run)
{
	worker.num_stuck += leave_alone(run);
	free_run(run);
}

/* Adopts a cancelled run, which must end whatever has become of the application's tables. */
static void
adopt_cancelled(Run *run)
{
	run->taken_up = true;
	if (run->campaign.text.message)
		recall_text(run);
	if (attempt_for_run(recover_cancelled, run, NULL, &run->claiming))
		(void) attempt_for_run(open_cancelled, run, NULL, &run->claiming);
	if (run->claiming.failures > 0 && run->stop_reason == NULL)
		return_to_queue(run);
	else
		stop_leaving_alone(run);
}

static void
add_to_worker(Run *run)
{
	dlist_push_tail(&worker.runs, &run->node);
	worker.num_runs++;
}

/* Tells whether nothing is unusual about the run so far: it may begin with others, or elsewhere. */
static bool
is_usual(const Run *run, const QueuedRun *queued)
{
	return !queued->begun && !queued->cancelled && !queued->loaded && !run->commits_lost &&
		   !run->was_read_back && !run->may_overlap && run->campaign.test_phone == NULL &&
		   !run->has_query;
}

/* Tells whether a list worker is to run the query that selects its recipients. */
static bool
needs_query(const Run *run, const QueuedRun *queued)
{
	return run->has_query && !queued->begun && !queued->cancelled;
}

/* The same unless it has failed by that. */
static void
wait_for_later(Run *run)
{
	if (run->stop_reason != NULL)
		return;
	tell_trouble(run);
	return_to_queue(run);
}

/* Tells whether the run can be taken up here; otherwise it has been paused, or waits. */
static bool
is_sent_by_this_node(Run *run, const QueuedRun *queued)
{
	char *node = NULL;

	if (!citus_is_here())
		return true;
	if (!find_sender(run, !queued->cancelled, &node))
	{
		wait_for_later(run);
		return false;
	}
	if (node == NULL)
		return true;
	pause_run(run,
			  reason_text(psprintf("the background job has been sent by another node, %s", node),
						  "Its tables have moved to another node since.",
						  "See sendcampaign.run on that node."),
			  true);
	return false;
}

/*
 * Takes up a run by itself.  It leaves the worker if that fails, but may be tried
 * again.  Returns false if it leaves because its list is long.
 */
static bool
adopt(Run *run, const QueuedRun *queued)
{
	RunFunction function = !queued->begun ? begin_run : queued->requeued ? reread_run : resume_run;
	QueuedVersion version = {run->id, queued->version, needs_query(run, queued)};
	HowToBegin	  how = {.most = PG_INT64_MAX};

	if (!is_sent_by_this_node(run, queued))
		return true;
	if (version.has_query)
		how.most = list_worker_is_free(version);
	else if (is_usual(run, queued))
		how.most = most_recipients_here(version);
	if (queued->cancelled)
		adopt_cancelled(run);
	else if (!attempt_for_run(function, run, &how, &run->claiming))
		wait_for_later(run);
	else if (how.is_long)
	{
		leave_to_list_worker(version);
		free_run(run);
		return false;
	}
	else
	{
		run->taken_up = true;
		end_back_off(&run->claiming);
		stop_leaving_alone(run);
	}
	return true;
}

/*
 * The run's lock comes first: whoever has begun it meanwhile has committed that.
 * Whatever else happens to the run, from the moment in which it is read, makes its
 * row another version: the text may have changed, or the run's role; and code of the
 * application's tables can release our lock.
 */
bool
begin_queued_run(int64 id)
{
	QueuedRun  queued;
	Run		  *run;
	HowToBegin how = {.most = PG_INT64_MAX};

	if (!take_run(id) || read_queued(id) == 0)
		return false;
	run = create_run(0, &queued);
	if (!is_usual(run, &queued) && !needs_query(run, &queued))
		return false;
	how.version = queued.version;
	if (citus_is_here() && find_other_sender(run)) /* the worker finds it, too */
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	begin_run(run, &how);
	PopActiveSnapshot();
	return true;
}

/* A run that was in the queue, and now is in the worker. */
typedef struct Adopted
{
	Run		 *run; /* NULL once it has been taken up by itself, or is in the queue again */
	QueuedRun queued;
} Adopted;

/* The runs of one transaction. */
typedef struct Adoption
{
	Adopted	   *adopted;
	int			count;
	TimestampTz began;
} Adoption;

/* By schema, and then as in the queue. */
static int
compare_schemas(const void *a, const void *b)
{
	const Run *x = *(Run *const *) a;
	const Run *y = *(Run *const *) b;
	int		   order = strcmp(x->schema, y->schema);

	if (order != 0)
		return order;
	return x->id < y->id ? -1 : x->id > y->id;
}

static bool
has_lasted(const Adoption *adoption, int msec)
{
	return TimestampDifferenceExceeds(adoption->began, GetCurrentTimestamp(), msec);
}

/* Takes up one by itself.  Returns false if its list is long. */
static bool
adopt_one(Adopted *one)
{
	Run *run = one->run;

	one->run = NULL;
	return adopt(run, &one->queued);
}

/*
 * If these could not begin together, and that took long, their tables are locked:
 * one of them finds out, so that the others do not have to.
 */
static void
find_out(Adoption *adoption, const Run *run, TimestampTz began)
{
	if (run->waits_for_room ||
		!TimestampDifferenceExceeds(began, GetCurrentTimestamp(), MAX_SINGLE_MS))
		return;
	for (int i = 0; i < adoption->count; i++)
	{
		if (adoption->adopted[i].run == run)
		{
			(void) adopt_one(&adoption->adopted[i]);
			return;
		}
	}
}

/* Returns how many of those are usual, and these, schema by schema. */
static int
choose_usual(const Adoption *adoption, Run **runs)
{
	int count = 0;

	for (int i = 0; i < adoption->count; i++)
	{
		if (is_usual(adoption->adopted[i].run, &adoption->adopted[i].queued))
			runs[count++] = adoption->adopted[i].run;
	}
	qsort(runs, count, sizeof(Run *), compare_schemas);
	return count;
}

/* Begins what can begin together, schema by schema. */
static void
begin_together(Adoption *adoption)
{
	Run **runs = palloc(Max(adoption->count, 1) * sizeof(Run *));
	int	  num_runs;
	int	  end;

	if (citus_is_here()) /* each has its job looked at */
		return;
	num_runs = choose_usual(adoption, runs);
	for (int begin = 0; begin < num_runs; begin = end)
	{
		TimestampTz began = GetCurrentTimestamp();
		int			begun;

		for (end = begin + 1; end < num_runs; end++)
		{
			if (strcmp(runs[begin]->schema, runs[end]->schema) != 0)
				break;
		}
		begun = begin_small_runs(runs + begin, end - begin);
		for (int i = 0; i < begun; i++)
			runs[begin + i]->taken_up = true;
		if (begun > 0)
			stop_leaving_alone(runs[begin]);
		else
			find_out(adoption, runs[begin], began);
		if (worker.num_stuck > 0 && has_lasted(adoption, MAX_STUCK_MS))
			break;
	}
}

/* Takes up those that have not begun; leaves some to a later transaction. */
static void
adopt_one_by_one(Adoption *adoption)
{
	TimestampTz began = GetCurrentTimestamp();
	int			tried = 0;
	bool		long_list = false;

	for (int i = 0; i < adoption->count; i++)
	{
		Adopted *one = &adoption->adopted[i];

		if (one->run == NULL || one->run->taken_up)
			continue;
		if (!one->run->waits_for_room && !long_list && !is_left_alone(one->run) &&
			(worker.num_stuck == 0 || !has_lasted(adoption, MAX_STUCK_MS)) &&
			(tried++ < MAX_SINGLE ||
			 !TimestampDifferenceExceeds(began, GetCurrentTimestamp(), MAX_SINGLE_MS)))
			long_list = !adopt_one(one);
		else
			free_run(one->run);
	}
}

/* Takes runs from SPI_tuptable into the worker; returns their number. */
static int
take_from_queue(Adopted *adopted, int count)
{
	int taken = 0;

	for (int i = 0; i < count; i++)
		adopted[i].run = create_run(i, &adopted[i].queued);
	for (int i = 0; i < count; i++)
	{
		/* another role's worker may still have it, and wait for an answer */
		if (!take_run(adopted[i].run->id))
		{
			MemoryContextDelete(adopted[i].run->context);
			continue;
		}
		add_to_worker(adopted[i].run);
		adopted[taken++] = adopted[i];
	}
	return taken;
}

int
adopt_runs(void)
{
	int before = worker.num_runs + num_long_lists();
	int room = MAX_RUNS - worker.num_runs;
	/* a few even if there is no room for small runs: there are others, and other accounts */
	int		 most = Min(Min(MAX_ADOPTED, room), Max(MAX_SINGLE, room_for_small_runs()));
	Adoption adoption = {.began = GetCurrentTimestamp()};

	worker.num_stuck = 0;
	end_changed_query();
	adoption.count = most > 0 ? (int) read_queue(most) : 0;
	adoption.adopted = palloc(Max(adoption.count, 1) * sizeof(Adopted));
	adoption.count = take_from_queue(adoption.adopted, adoption.count);

	/* one that sees everything that the transactions which queued the runs have done */
	PushActiveSnapshot(GetTransactionSnapshot());
	begin_together(&adoption);
	adopt_one_by_one(&adoption);
	PopActiveSnapshot();
	return worker.num_runs + num_long_lists() - before + worker.num_stuck;
}

/*
 * The tables are needed to tell the job; if they cannot be opened, only the run
 * says it.  Rows that the owner of the database has loaded may name any role
 * and schema: that role has not chosen to use these tables.  If another node of
 * Citus has the run, it tells the job.
 */
static void
pause_foreign_run(Run *run, bool loaded)
{
	if (is_of_other_node(run->id))
	{
		pause_run(run,
				  reason_text("the run was queued on another node of the Citus cluster",
							  "That node goes on with it.",
							  "If that node is gone for good, remove it from the cluster and"
							  " call sendcampaign.resume() to continue it here."),
				  true);
		return;
	}
	if (!loaded)
		(void) attempt_for_run(open_tables, run, NULL, &run->reporting);
	pause_run(run,
			  reason_text("the run was queued in another cluster or database",
						  "Messages may have been sent from there.",
						  "To continue it here, and nowhere else, call sendcampaign.resume()."),
			  true);
}

bool
pause_foreign_runs(void)
{
	uint64	   count = read_foreign_runs();
	Run		 **runs = palloc(Max(count, 1) * sizeof(Run *));
	QueuedRun *queued = palloc(Max(count, 1) * sizeof(QueuedRun));

	for (uint64 i = 0; i < count; i++)
		runs[i] = create_run(i, &queued[i]);
	for (uint64 i = 0; i < count; i++)
	{
		if (!take_run(runs[i]->id))
		{
			MemoryContextDelete(runs[i]->context);
			continue;
		}
		add_to_worker(runs[i]);
		pause_foreign_run(runs[i], queued[i].loaded);
	}
	return count == MAX_RUNS;
}
