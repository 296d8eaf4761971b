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
#include "worker/batch.h"
#include "worker/finish.h"
#include "worker/run_attempt.h"
#include "worker/job.h"
#include "worker/message.h"
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

/* Messages of a run whose outcomes are recorded in one statement of each kind. */
typedef struct Recording
{
	Run		 *run;
	int		  count;
	Datum	  uncounted; /* bigint[], list users whose sentCount could not be incremented; or 0 */
	Message **messages;
} Recording;

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
ids_with_outcome(const Recording *recording, Outcome outcome, int *count)
{
	Datum *ids = palloc(Max(recording->count, 1) * sizeof(Datum));

	*count = 0;
	for (int i = 0; i < recording->count; i++)
	{
		if (recording->messages[i]->outcome == outcome)
			ids[(*count)++] = Int64GetDatum(recording->messages[i]->list_user_id);
	}
	return ids;
}

static Datum
array_with_outcome(const Recording *recording, Outcome outcome, int *count)
{
	Datum *ids = ids_with_outcome(recording, outcome, count);

	return make_array(ids, NULL, *count, INT8OID);
}

static void
count_sent(Recording *recording)
{
	Run	  *run = recording->run;
	int	   count;
	Datum *ids = ids_with_outcome(recording, OUTCOME_SENT, &count);

	recording->uncounted = (Datum) 0;
	if (count > 0)
		recording->uncounted = tables_count_sent(run->campaign.tables, ids, count,
												 run->campaign.list_id);
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
	count_sent(recording);
	fire_deferred_triggers();
}

/* The columns of the rows to be inserted. */
typedef struct Columns
{
	int	   count;
	Datum *values[9];
	bool  *nulls[9];
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

	set_column(columns, 0, Int64GetDatum(message->list_user_id), false);
	set_column(columns, 1, optional_text(message->phone), message->phone == NULL);
	set_column(columns, 2, CStringGetTextDatum(outcome_name(message->outcome)), false);
	set_column(columns, 3, optional_text(message->sid), message->sid == NULL);
	set_column(columns, 4, Int32GetDatum(message->error_code), message->error_code == 0);
	set_column(columns, 5, optional_text(message->error_message), message->error_message == NULL);
	set_column(columns, 6, Int32GetDatum(message->segments), message->segments == 0);
	set_column(columns, 7, Int32GetDatum(message->attempts), false);
	set_column(columns, 8, optional_text(in_doubt ? message->claim->account : NULL), !in_doubt);
	columns->count++;
}

static void
insert_messages(const Recording *recording, bool counted)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.message_data (run_id, list_user_id, phone, status, sid,"
		" error_code, error_message, segments, attempts, account, counted)"
		" SELECT $1, u.*, $11 OR u.status <> 'sent'"
		" FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)"
		"  u(id, phone, status, sid, code, message, segments, attempts, account)",
		11,
		{INT8OID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID,
		 TEXTARRAYOID, INT4ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, BOOLOID}};
	static const Oid types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT4OID,
								TEXTOID, INT4OID, INT4OID, TEXTOID};
	Columns			 columns = {0};
	Datum			 values[11];

	for (int i = 0; i < lengthof(types); i++)
	{
		columns.values[i] = palloc(Max(recording->count, 1) * sizeof(Datum));
		columns.nulls[i] = palloc(Max(recording->count, 1) * sizeof(bool));
	}
	for (int i = 0; i < recording->count; i++)
	{
		if (recording->messages[i]->outcome != OUTCOME_RELEASED)
			add_row(&columns, recording->messages[i]);
	}
	if (columns.count == 0)
		return;
	values[0] = Int64GetDatum(recording->run->id);
	for (int i = 0; i < lengthof(types); i++)
		values[i + 1] = make_array(columns.values[i], columns.nulls[i], columns.count, types[i]);
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

/* Deletes the claims whose outcomes are all recorded once these are. */
static void
delete_claims(const Recording *recording)
{
	static OwnStatement statement = {
		"DELETE FROM sendcampaign.claim WHERE run_id = $1 AND number = ANY ($2)",
		2,
		{INT8OID, INT4ARRAYOID}};
	Datum *numbers = palloc(recording->count * sizeof(Datum));
	int	   count = 0;
	Datum  values[2];

	add_recorded_skips(recording->run, -1);
	for (int i = 0; i < recording->count; i++)
	{
		Claim *claim = recording->messages[i]->claim;

		if (--claim->open == 0)
			numbers[count++] = Int32GetDatum(claim->number);
	}
	for (int i = 0; i < recording->count; i++)
		recording->messages[i]->claim->open++; /* until the outcome is durable */
	add_recorded_skips(recording->run, 1);
	if (count == 0)
		return;
	values[0] = Int64GetDatum(recording->run->id);
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

/*
 * Twilio's report may be faster than we are.  Somebody who is just storing
 * another report of the same message, and takes long to commit, must not keep
 * us from recording it: then the report is taken over later.
 */
static void
follow_early_receipts(Run *run)
{
	TimestampTz now = GetCurrentTimestamp();
	ErrorData  *error;

	if (run->campaign.group == NULL || worker.early_until > now || !receipts_are_early(worker.role))
		return;
	error = attempt(take_early_receipts, run);
	if (error == NULL)
		return;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	worker.early_until = TimestampTzPlusMilliseconds(now, EARLY_DELAY_MS);
}

static RunCounts
add_counts(const Recording *recording)
{
	int64	  counts[OUTCOME_RELEASED + 1] = {0};
	RunCounts more = {0};

	for (int i = 0; i < recording->count; i++)
		counts[recording->messages[i]->outcome]++;
	more.sent = counts[OUTCOME_SENT];
	more.failed = counts[OUTCOME_FAILED];
	more.skipped = counts[OUTCOME_SKIPPED];
	more.in_doubt = counts[OUTCOME_IN_DOUBT];
	return runs_add_outcomes(recording->run->id, &more);
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
		count_sent(recording);
	else if (!is_test && !attempt_for_run(count_sent_carefully, run, recording, &run->recording))
		return run->recording.failures > failures ? COUNT_LATER : NOT_COUNTED;
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
	insert_messages(&recording, counting == COUNTED);
	if (counting == COUNTED && mark_uncounted(run->id, recording.uncounted))
		run->uncounted = true;
	record_opt_outs(&recording);
	put_back_released(&recording);
	delete_claims(&recording);
	take_released_out_of_claims(&recording);
	follow_early_receipts(run);
	counts = add_counts(&recording);
	if (!run_is_cancelled(run))
		report_progress(run, &counts, careful);
	move_to(&recording, &run->recorded);
}

void
record_skipped(Claim *claim)
{
	Recording recording = {claim->run};

	recording.messages = palloc(Max(claim->num_messages, 1) * sizeof(Message *));
	for (int i = 0; i < claim->num_messages; i++)
	{
		if (claim->messages[i].state == MESSAGE_DONE &&
			claim->messages[i].outcome == OUTCOME_SKIPPED)
			recording.messages[recording.count++] = &claim->messages[i];
	}
	if (recording.count == 0)
		return;
	insert_messages(&recording, true);
	(void) add_counts(&recording);
	move_to(&recording, &claim->run->recorded_skips);
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
	run->uncounted = mark_uncounted(
		run->id, tables_count_sent(run->campaign.tables, ids, (int) count, run->campaign.list_id));
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
