/*-------------------------------------------------------------------------
 *
 * record.c
 *	  Writes outcomes to the tables, many at once.
 *
 * A message's row, its sentCount, the run's counts and the job's progress
 * commit together.  If an outcome cannot be recorded now, since somebody has
 * locked its list user, the message remains claimed, and that is tried again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/opted_out.h"
#include "catalog/pg_type.h"
#include "database/attempt.h"
#include "database/own_tables.h"
#include "database/receipt_table.h"
#include "debug_point.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "worker/batch.h"
#include "worker/finish.h"
#include "worker/run_attempt.h"
#include "worker/job.h"
#include "worker/locked_work.h"
#include "worker/message.h"
#include "worker/next.h"
#include "worker/record.h"
#include "worker/transaction.h"

/* The most outcomes that are recorded at once, to keep transactions short. */
#define RECORD_SIZE 2048

/* Twilio's error code for a recipient who has opted out. */
#define OPTED_OUT 21610

/* How long an outcome whose list user is locked waits until the next attempt. */
#define LOCKED_DELAY_MS 500

/* How long early receipts wait if somebody has locked one of their messages' rows. */
#define EARLY_DELAY_MS 5000

/*
 * Messages of a run.  The outcomes of several recordings are written in one
 * statement of each kind.
 */
typedef struct Recording
{
	Run		 *run;
	int		  count;
	Datum	  uncounted; /* bigint[], list users whose sentCount could not be incremented; or 0 */
	Message **messages;
} Recording;

static int
count_messages(const Recording *recordings, int count)
{
	int total = 0;

	for (int i = 0; i < count; i++)
		total += recordings[i].count;
	return total;
}

static const char *
outcome_name(Outcome outcome)
{
	switch (outcome)
	{
		case OUTCOME_SENT:
			return "sent";
		case OUTCOME_FAILED:
			return "failed";
		case OUTCOME_SKIPPED:
			return "skipped";
		case OUTCOME_IN_DOUBT:
			return "in_doubt";
		default:
			elog(ERROR, "unexpected outcome %d", (int) outcome);
	}
}

/* Collects messages that have an outcome, at most RECORD_SIZE; palloc'd. */
static Recording
collect(Run *run)
{
	Recording  recording = {run};
	int		   most = Min(run->num_done, RECORD_SIZE);
	dlist_iter iter;

	recording.messages = palloc(Max(most, 1) * sizeof(Message *));
	dlist_foreach (iter, &run->done)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (recording.count == most)
			break;
		if (message->outcome != OUTCOME_FOUND)
			recording.messages[recording.count++] = message;
	}
	return recording;
}

/* Returns the ids of the list users with this outcome, palloc'd. */
static Datum *
all_ids_with_outcome(const Recording *recordings, int num_recordings, Outcome outcome, int *count)
{
	Datum *ids = palloc(Max(count_messages(recordings, num_recordings), 1) * sizeof(Datum));

	*count = 0;
	for (int i = 0; i < num_recordings; i++)
	{
		for (int j = 0; j < recordings[i].count; j++)
		{
			if (recordings[i].messages[j]->outcome == outcome)
				ids[(*count)++] = Int64GetDatum(recordings[i].messages[j]->list_user_id);
		}
	}
	return ids;
}

static Datum *
ids_with_outcome(const Recording *recording, Outcome outcome, int *count)
{
	return all_ids_with_outcome(recording, 1, outcome, count);
}

static Datum
array_with_outcome(const Recording *recording, Outcome outcome, int *count)
{
	Datum *ids = ids_with_outcome(recording, outcome, count);

	return make_array(ids, NULL, *count, INT8OID);
}

static bool
has_outcome(const Recording *recording, Outcome outcome)
{
	int count;

	(void) ids_with_outcome(recording, outcome, &count);
	return count > 0;
}

/* Several recordings must have the same tables, which allow that. */
static void
count_sent(Recording *recordings, int num_recordings)
{
	Run	  *run = recordings[0].run;
	int	   count;
	Datum *ids = all_ids_with_outcome(recordings, num_recordings, OUTCOME_SENT, &count);
	Datum  uncounted = (Datum) 0;

	if (count > 0)
		uncounted = tables_count_sent(run->campaign.tables, ids, count, run->campaign.list_id,
									  run->counted_in);
	for (int i = 0; i < num_recordings; i++)
		recordings[i].uncounted = uncounted;
}

bool
mark_uncounted(int64 run_id, Datum ids)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.message_data SET counted = false"
		" WHERE run_id = $1 AND list_user_id = ANY ($2) AND status = 'sent'",
		2,
		{INT8OID, INT8ARRAYOID}};
	Datum values[] = {Int64GetDatum(run_id), ids};

	return ids != (Datum) 0 && own_execute(&statement, values, NULL) > 0;
}

/* Puts off recording a message whose list user is locked: the others must not wait for that. */
static void
record_later(Message *message)
{
	Run		   *run = message->claim->run;
	TimestampTz now = GetCurrentTimestamp();

	if (!run->locks_told)
		ereport(LOG,
				(errmsg("sendcampaign: job %lld: list users are locked by other sessions; their"
						" outcomes will be recorded later",
						(long long) run->job_id)));
	run->locks_told = true;
	if (message->locked_since == 0)
		message->locked_since = now;
	else if (!message->long_locked &&
			 TimestampDifferenceExceeds(message->locked_since, now, TOLD_AFTER_MS))
	{
		message->long_locked = true;
		run->num_long_locked++;
	}
	message_wait(message, MESSAGE_LOCKED, TimestampTzPlusMilliseconds(now, LOCKED_DELAY_MS));
}

static void
lock_left_out(Run *run, void *ids)
{
	tables_lock_all(run->campaign.tables, *(Datum *) ids, run->campaign.list_id);
}

/*
 * Tells whether these list users are really locked.  A row that a policy lets
 * the role see but not update is left out by SKIP LOCKED, too, and would be
 * forever.
 */
static bool
are_locked(Run *run, Datum *ids, int count)
{
	Backoff unused = {.failures = 1};
	Datum	array = make_array(ids, NULL, count, INT8OID);

	return !attempt_for_run(lock_left_out, run, &array, &unused);
}

/* Returns the list users of sent messages whom somebody else has locked; palloc'd, ascending. */
static Datum *
find_locked(const Recording *recording, int *num_locked)
{
	Run	  *run = recording->run;
	int	   count;
	Datum  ids = array_with_outcome(recording, OUTCOME_SENT, &count);
	Datum *locked;

	*num_locked = 0;
	if (count == 0)
		return NULL;
	locked = tables_lock_recipients(run->campaign.tables, ids, count, run->campaign.list_id,
									num_locked);
	if (*num_locked > 0 && !are_locked(run, locked, *num_locked))
		*num_locked = 0;
	qsort(locked, *num_locked, sizeof(Datum), compare_ids);
	return locked;
}

static void
leave_out_locked(Recording *recording)
{
	int	   num_locked;
	Datum *locked = find_locked(recording, &num_locked);
	int	   kept = 0;

	for (int i = 0; i < recording->count; i++)
	{
		Datum id = Int64GetDatum(recording->messages[i]->list_user_id);

		if (num_locked > 0 && recording->messages[i]->outcome == OUTCOME_SENT &&
			bsearch(&id, locked, num_locked, sizeof(Datum), compare_ids))
			record_later(recording->messages[i]);
		else
			recording->messages[kept++] = recording->messages[i];
	}
	recording->count = kept;
}

static void
count_sent_carefully(Run *run, void *recording)
{
	leave_out_locked(recording);
	count_sent(recording, 1);
	fire_deferred_triggers();
}

/* The columns of the rows to be inserted. */
typedef struct Columns
{
	int	   count;
	Datum *values[10];
	bool  *nulls[10];
} Columns;

static void
set_column(Columns *columns, int column, Datum value, bool isnull)
{
	columns->values[column][columns->count] = value;
	columns->nulls[column][columns->count] = isnull;
}

static void
add_row(Columns *columns, const Message *message)
{
	bool in_doubt = message->outcome == OUTCOME_IN_DOUBT;

	set_column(columns, 0, Int64GetDatum(message->claim->run->id), false);
	set_column(columns, 1, Int64GetDatum(message->list_user_id), false);
	set_column(columns, 2, optional_text(message->phone), message->phone == NULL);
	set_column(columns, 3, CStringGetTextDatum(outcome_name(message->outcome)), false);
	set_column(columns, 4, optional_text(message->sid), message->sid == NULL);
	set_column(columns, 5, Int32GetDatum(message->error_code), message->error_code == 0);
	set_column(columns, 6, optional_text(message->error_message), message->error_message == NULL);
	set_column(columns, 7, Int32GetDatum(message->segments), message->segments == 0);
	set_column(columns, 8, Int32GetDatum(message->attempts), false);
	set_column(columns, 9, optional_text(in_doubt ? message->claim->account : NULL), !in_doubt);
	columns->count++;
}

static void
add_rows(Columns *columns, const Recording *recording)
{
	for (int i = 0; i < recording->count; i++)
	{
		if (recording->messages[i]->outcome != OUTCOME_RELEASED)
			add_row(columns, recording->messages[i]);
	}
}

static void
insert_messages(const Recording *recordings, int num_recordings, bool counted)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, sid,"
		" error_code, error_message, segments, attempts, account, counted)"
		" SELECT u.*, $11 OR u.status <> 'sent'"
		" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
		"  u(run_id, id, phone, status, sid, code, message, segments, attempts, account)",
		11,
		{INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID,
		 TEXTARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, BOOLOID}};
	static const Oid types[] = {INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
								INT4OID, TEXTOID, INT4OID, INT4OID, TEXTOID};
	int				 most = Max(count_messages(recordings, num_recordings), 1);
	Columns			 columns = {0};
	Datum			 values[11];

	for (int i = 0; i < lengthof(types); i++)
	{
		columns.values[i] = palloc(most * sizeof(Datum));
		columns.nulls[i] = palloc(most * sizeof(bool));
	}
	for (int i = 0; i < num_recordings; i++)
		add_rows(&columns, &recordings[i]);
	if (columns.count == 0)
		return;
	for (int i = 0; i < lengthof(types); i++)
		values[i] = make_array(columns.values[i], columns.nulls[i], columns.count, types[i]);
	values[10] = BoolGetDatum(counted);
	(void) own_execute(&statement, values, NULL);
}

/* Records opt-outs that Twilio knows of, so that it need not be asked again. */
static void
record_opt_outs(const Recording *recording)
{
	Run	  *run = recording->run;
	char **phones = palloc(recording->count * sizeof(char *));
	int	   count = 0;

	for (int i = 0; i < recording->count; i++)
	{
		if (recording->messages[i]->outcome == OUTCOME_FAILED &&
			recording->messages[i]->error_code == OPTED_OUT)
			phones[count++] = recording->messages[i]->phone;
	}
	if (count > 0 && run->campaign.group)
		store_opt_outs(&run->campaign, make_text_array(phones, count), "Twilio's error 21610",
					   worker.role);
}

/* Puts recipients whose messages were not sent back into batches. */
static void
put_back_released(const Recording *recording)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.batch (run_id, number, list_user_ids)"
		" SELECT $1, (u.n - 1) / $4 + 1 + greatest($2,"
		"  (SELECT max(b.number) FROM sendcampaign.batch b WHERE b.run_id = $1)),"
		"  array_agg(u.id ORDER BY u.n)"
		" FROM unnest($3) WITH ORDINALITY u(id, n) GROUP BY (u.n - 1) / $4",
		4,
		{INT8OID, INT4OID, INT8ARRAYOID, INT8OID}};
	Run	 *run = recording->run;
	int	  count;
	Datum ids = array_with_outcome(recording, OUTCOME_RELEASED, &count);
	Datum values[] = {Int64GetDatum(run->id), Int32GetDatum(run->last_batch), ids,
					  Int64GetDatum(BATCH_SIZE)};

	if (count == 0)
		return;
	(void) own_execute(&statement, values, NULL);
	run->exhausted = false;
	run->next_at = 0;
}

/*
 * Removes recipients who were put back from their claims.  Otherwise, after a
 * crash, they would be both in doubt and unclaimed.
 */
static void
take_released_out_of_claims(const Recording *recording)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.claim c SET (list_user_ids, phones, texts) ="
		" (SELECT coalesce(array_agg(u.id ORDER BY u.n), '{}'),"
		"  coalesce(array_agg(u.phone ORDER BY u.n), '{}'),"
		"  CASE WHEN c.texts IS NOT NULL THEN coalesce(array_agg(u.text ORDER BY u.n), '{}') END"
		"  FROM unnest(c.list_user_ids, c.phones, c.texts) WITH ORDINALITY u(id, phone, text, n)"
		"  WHERE u.id <> ALL ($2))"
		" WHERE c.run_id = $1 AND c.list_user_ids && $2",
		2,
		{INT8OID, INT8ARRAYOID}};
	int	  count;
	Datum ids = array_with_outcome(recording, OUTCOME_RELEASED, &count);
	Datum values[] = {Int64GetDatum(recording->run->id), ids};

	if (count > 0)
		(void) own_execute(&statement, values, NULL);
}

/* Adds to the open messages of claims for those that were skipped in this transaction. */
static void
add_recorded_skips(Run *run, int change)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->recorded_skips)
		dlist_container(Message, node, iter.cur)->claim->open += change;
}

/*
 * Adds the claims whose outcomes are all recorded once these are; returns their
 * number.
 */
static int
add_finished_claims(const Recording *recording, Datum *run_ids, Datum *numbers)
{
	int count = 0;

	add_recorded_skips(recording->run, -1);
	for (int i = 0; i < recording->count; i++)
	{
		Claim *claim = recording->messages[i]->claim;

		if (--claim->open > 0)
			continue;
		run_ids[count] = Int64GetDatum(claim->run->id);
		numbers[count++] = Int32GetDatum(claim->number);
	}
	for (int i = 0; i < recording->count; i++)
		recording->messages[i]->claim->open++; /* until the outcome is durable */
	add_recorded_skips(recording->run, 1);
	return count;
}

static void
delete_claims(const Recording *recordings, int num_recordings)
{
	static OwnStatement statement = {
		"DELETE FROM sendcampaign.claim USING unnest($1, $2) u(run_id, number)"
		" WHERE " IS_ROW_OF("claim.run_id", "u.run_id") " AND claim.number = u.number",
		2,
		{INT8ARRAYOID, INT4ARRAYOID}};
	int	   most = Max(count_messages(recordings, num_recordings), 1);
	Datum *run_ids = palloc(most * sizeof(Datum));
	Datum *numbers = palloc(most * sizeof(Datum));
	int	   count = 0;
	Datum  values[2];

	for (int i = 0; i < num_recordings; i++)
		count += add_finished_claims(&recordings[i], run_ids + count, numbers + count);
	if (count == 0)
		return;
	values[0] = make_array(run_ids, NULL, count, INT8OID);
	values[1] = make_array(numbers, NULL, count, INT4OID);
	(void) own_execute(&statement, values, NULL);
}

static void
take_early_receipts(void *arg)
{
	Run					*run = arg;
	const ReceiptScope	 scope = {worker.role, run->campaign.group->account_sid, run->schema,
								  run->campaign.group->id};
	const StoredReceipts stored = receipts_take_early(&scope);
	ListCell			*lc;

	/* of other runs of the group, which have ended */
	foreach (lc, stored.announcements)
		run_announce(run, lfirst(lc));
}

static bool
have_same_group(const Run *a, const Run *b)
{
	const GroupConfig *x = a->campaign.group;
	const GroupConfig *y = b->campaign.group;

	return x && y && x->id == y->id && strcmp(x->account_sid, y->account_sid) == 0 &&
		   strcmp(a->schema, b->schema) == 0;
}

/*
 * Twilio's report may be faster than we are.  Somebody who is just storing
 * another report of the same message, and takes long to commit, must not keep
 * us from recording it: then the report is taken over later.
 */
static void
follow_early_receipts(const Recording *recordings, int num_recordings)
{
	TimestampTz now = GetCurrentTimestamp();

	if (worker.early_until > now || !receipts_are_early(worker.role))
		return;
	for (int i = 0; i < num_recordings; i++)
	{
		ErrorData *error;

		if (recordings[i].run->campaign.group == NULL ||
			(i > 0 && have_same_group(recordings[i].run, recordings[i - 1].run)))
			continue;
		error = attempt(take_early_receipts, recordings[i].run);
		if (error == NULL)
			continue;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(error);
		worker.early_until = TimestampTzPlusMilliseconds(now, EARLY_DELAY_MS);
		return;
	}
}

static RunOutcomes
outcomes_of(const Recording *recording)
{
	int64		counts[OUTCOME_RELEASED + 1] = {0};
	RunOutcomes outcomes = {.run_id = recording->run->id};

	for (int i = 0; i < recording->count; i++)
		counts[recording->messages[i]->outcome]++;
	outcomes.more.sent = counts[OUTCOME_SENT];
	outcomes.more.failed = counts[OUTCOME_FAILED];
	outcomes.more.skipped = counts[OUTCOME_SKIPPED];
	outcomes.more.in_doubt = counts[OUTCOME_IN_DOUBT];
	return outcomes;
}

static RunCounts
add_counts(const Recording *recording)
{
	RunOutcomes outcomes = outcomes_of(recording);

	runs_add_outcomes(&outcomes, 1);
	return outcomes.counts;
}

/* Whether sentCount was incremented. */
typedef enum Counting
{
	COUNTED,
	NOT_COUNTED, /* the application's tables have raised an error: the run fails */
	COUNT_LATER	 /* they have raised a temporary error */
} Counting;

static Counting
count_what_was_sent(Recording *recording, bool careful)
{
	Run *run = recording->run;
	int	 failures = run->recording.failures;
	bool is_test = run->campaign.test_phone != NULL; /* it is counted nowhere */

	if (!is_test && !careful)
		count_sent(recording, 1);
	else if (!is_test && !attempt_work(count_sent_carefully, run, recording, &run->recording))
		return run->recording.failures > failures ? COUNT_LATER : NOT_COUNTED;
	else if (!is_test && has_outcome(recording, OUTCOME_SENT))
		tables_are_free(run, &run->recording);
	end_back_off(&run->recording);
	return COUNTED;
}

/* Tells whether locks have been a problem, so that we must not wait for them first. */
static bool
needs_care(const Recording *recording)
{
	if (recording->run->recording.failures > 0)
		return true;
	for (int i = 0; i < recording->count; i++)
	{
		if (recording->messages[i]->locked_since != 0)
			return true;
	}
	return false;
}

static void
move_to(const Recording *recording, dlist_head *list)
{
	for (int i = 0; i < recording->count; i++)
	{
		Message *message = recording->messages[i];

		message_recorded(message, list);
	}
}

/*
 * Returns which of the recording's own list users could not be counted
 * (bigint[]), or 0: its run may have a message to others from before.
 */
static Datum
uncounted_of(const Recording *recording)
{
	int	   num_all;
	int	   num_own = 0;
	int	   count;
	Datum *all;
	Datum *own;

	if (recording->uncounted == (Datum) 0)
		return (Datum) 0;
	all = ids_of_array(DatumGetArrayTypeP(recording->uncounted), &num_all);
	qsort(all, num_all, sizeof(Datum), compare_ids);
	own = ids_with_outcome(recording, OUTCOME_SENT, &count);
	for (int i = 0; i < count; i++)
	{
		if (bsearch(&own[i], all, num_all, sizeof(Datum), compare_ids))
			own[num_own++] = own[i];
	}
	return num_own > 0 ? make_array(own, NULL, num_own, INT8OID) : (Datum) 0;
}

/* Writes what has become of the messages, except for counts. */
static void
write_outcomes(const Recording *recordings, int num_recordings, bool counted)
{
	insert_messages(recordings, num_recordings, counted);
	for (int i = 0; i < num_recordings; i++)
	{
		const Recording *recording = &recordings[i];

		if (counted && mark_uncounted(recording->run->id, uncounted_of(recording)))
			recording->run->uncounted = true;
		record_opt_outs(recording);
		put_back_released(recording);
	}
	delete_claims(recordings, num_recordings);
	for (int i = 0; i < num_recordings; i++)
		take_released_out_of_claims(&recordings[i]);
	follow_early_receipts(recordings, num_recordings);
}

void
record_outcomes(Run *run, bool careful)
{
	Recording recording = collect(run);
	RunCounts counts;
	Counting  counting;

	if (recording.count == 0)
		return;
	counting = count_what_was_sent(&recording, careful || needs_care(&recording));
	if (counting == COUNT_LATER || recording.count == 0)
		return;
	debug_point(DEBUG_RECORDING);
	write_outcomes(&recording, 1, counting == COUNTED);
	counts = add_counts(&recording);
	if (!run_is_cancelled(run))
		report_progress(run, &counts, careful);
	move_to(&recording, &run->recorded);
}

/* Tells jobs what was added to the counts of their runs. */
static void
tell_jobs(AppTables *tables, Run **runs, const RunOutcomes *outcomes, int count)
{
	JobReport *ends = palloc(count * sizeof(JobReport));
	JobReport *going = palloc(count * sizeof(JobReport));
	int		   num_ends = 0;
	int		   num_going = 0;

	for (int i = 0; i < count; i++)
	{
		if (outcomes[i].completed)
			ends[num_ends++] = job_end(runs[i]->job_id, &outcomes[i].counts);
		else
			going[num_going++] = job_progress(runs[i]->job_id, &outcomes[i].counts);
	}
	if (num_going > 0)
		tables_report_progress(tables, going, num_going);
	if (num_ends > 0)
		job_tell_ends(tables, ends, num_ends);
}

/* Adds to the counts of runs; those that complete by that have ended. */
static void
add_all_counts(const Recording *recordings, Run **runs, int count)
{
	RunOutcomes *outcomes = palloc(count * sizeof(RunOutcomes));

	for (int i = 0; i < count; i++)
	{
		outcomes[i] = outcomes_of(&recordings[i]);
		outcomes[i].is_last = !runs[i]->uncounted && run_ending(runs[i]) == RUN_COMPLETES;
	}
	runs_add_outcomes(outcomes, count);
	tell_jobs(runs[0]->campaign.tables, runs, outcomes, count);
	for (int i = 0; i < count; i++)
	{
		if (!outcomes[i].completed)
			continue;
		if (outcomes[i].announcement)
			run_announce(runs[i], outcomes[i].announcement);
		run_wrote(runs[i], RUN_ENDED);
	}
}

bool
may_record_together(Run *run)
{
	dlist_iter iter;

	if (run->num_done == 0 || run->num_done > RECORD_SIZE / 4 || run->campaign.test_phone ||
		run->phase != RUN_SENDING || run->written != RUN_NO_PHASE || run->stop_reason ||
		run->read_back || run->num_doubtful > 0 || run->recording.failures > 0 ||
		run->reporting.failures > 0 || !may_try_work(run, &run->reporting, GetCurrentTimestamp()) ||
		OidIsValid(run->counted_in))
		return false;
	dlist_foreach (iter, &run->done)
	{
		if (dlist_container(Message, node, iter.cur)->locked_since != 0)
			return false;
	}
	return true;
}

/* Adds the ids of the messages' list users; returns false if one is there already. */
static bool
add_list_users(HTAB *ids, const Recording *recording)
{
	bool found = false;

	for (int i = 0; i < recording->count && !found; i++)
		(void) hash_search(ids, &recording->messages[i]->list_user_id, HASH_ENTER, &found);
	return !found;
}

int
record_together(Run **runs, int count)
{
	HASHCTL	   control = {.keysize = sizeof(int64), .entrysize = sizeof(int64)};
	HTAB	  *ids = hash_create("sendcampaign list users", RECORD_SIZE, &control,
								 HASH_ELEM | HASH_BLOBS);
	Recording *recordings = palloc(count * sizeof(Recording));
	int		   total = 0;
	int		   n = 0;

	for (; n < count; n++)
	{
		recordings[n] = collect(runs[n]);
		total += recordings[n].count;
		if (n > 0 && (total > RECORD_SIZE || !add_list_users(ids, &recordings[n])))
			break;
		if (n == 0)
			(void) add_list_users(ids, &recordings[n]);
	}
	hash_destroy(ids);
	count_sent(recordings, n);
	debug_point(DEBUG_RECORDING);
	write_outcomes(recordings, n, true);
	for (int i = 0; i < n; i++)
		move_to(&recordings[i], &runs[i]->recorded);
	add_all_counts(recordings, runs, n);
	return n;
}

/* Collects the messages of a claim that were skipped when it was made. */
static Recording
collect_skipped(Claim *claim)
{
	Recording recording = {claim->run};

	recording.messages = palloc(Max(claim->num_messages, 1) * sizeof(Message *));
	for (int i = 0; i < claim->num_messages; i++)
	{
		if (claim->messages[i].state == MESSAGE_DONE &&
			claim->messages[i].outcome == OUTCOME_SKIPPED)
			recording.messages[recording.count++] = &claim->messages[i];
	}
	return recording;
}

void
record_skipped(Claim *claim)
{
	Recording recording = collect_skipped(claim);

	if (recording.count == 0)
		return;
	insert_messages(&recording, 1, true);
	(void) add_counts(&recording);
	move_to(&recording, &claim->run->recorded_skips);
}

void
record_skipped_uncounted(Claim **claims, int count, int64 *skipped)
{
	Recording *recordings = palloc(Max(count, 1) * sizeof(Recording));

	for (int i = 0; i < count; i++)
		recordings[i] = collect_skipped(claims[i]);
	insert_messages(recordings, count, true);
	for (int i = 0; i < count; i++)
	{
		skipped[i] = recordings[i].count;
		move_to(&recordings[i], &claims[i]->run->recorded_skips);
	}
}

void
unrecord_skipped(Claim *claim)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &claim->run->recorded_skips)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (message->claim != claim)
			continue;
		dlist_delete(&message->node);
		message_done(message, message->outcome);
	}
}

/*
 * When a run continues that had failed because of an error in the application's
 * tables, sentCount is still to be incremented for what was sent at that time.
 */
void
count_uncounted(Run *run)
{
	uint64 count;
	Datum *ids;

	if (run->campaign.test_phone)
		return;
	count = own_query_by_id("UPDATE sendcampaign.message_data SET counted = true"
							" WHERE run_id = $1 AND NOT counted RETURNING list_user_id",
							run->id);
	if (count == 0)
		return;
	ids = palloc(count * sizeof(Datum));
	for (uint64 i = 0; i < count; i++)
		ids[i] = Int64GetDatum(spi_int64(i, 1));
	run->uncounted = mark_uncounted(run->id,
									tables_count_sent(run->campaign.tables, ids, (int) count,
													  run->campaign.list_id, run->counted_in));
}

static void
forget_list(Run *run, dlist_head *list)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, list)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		dlist_delete(&message->node);
		run->open--;
		run->num_long_locked -= message->long_locked ? 1 : 0;
		if (--message->claim->open == 0)
			free_claim(message->claim);
	}
}

void
forget_recorded(Run *run)
{
	forget_list(run, &run->recorded);
	forget_list(run, &run->recorded_skips);
}

static void
unrecord_list(dlist_head *list)
{
	while (!dlist_is_empty(list))
	{
		Message *message = dlist_container(Message, node, dlist_pop_head_node(list));

		message_done(message, message->outcome);
	}
}

void
unrecord(Run *run)
{
	unrecord_list(&run->recorded);
}

void
unrecord_skips(Run *run)
{
	unrecord_list(&run->recorded_skips);
}

static void
tell_dropped_extension(Run *run, void *arg)
{
	job_tell_dropped_extension(run->campaign.tables, run->job_id);
}

void
record_without_extension(Run *run)
{
	Recording recording;

	if (run->campaign.tables == NULL)
		return;
	recording = collect(run);
	(void) attempt_for_run(count_sent_carefully, run, &recording, &run->recording);
	(void) attempt_for_run(tell_dropped_extension, run, NULL, &run->recording);
}
