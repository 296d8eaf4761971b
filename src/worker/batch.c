/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  The recipients of a run that are still to be claimed.
 *
 * When a run starts, the ids of its recipients are stored, many per row, so
 * that the application's table is read once per run, and the set is fixed.
 * Recipients who share a phone number are found then as well, by one sort of
 * the list, rather than an index that each message would have to pay for.  Both
 * come from one pass over the table, which has rows of any width.
 *
 * If a query selects some of the list's users, its ids are sorted as well, and
 * taken out beside those of the list.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"
#include "worker/batch.h"

/* Rows fetched at once. */
#define FETCH_SIZE 1000

/*
 * A list takes long to read if the planner expects this cost, as for a table of
 * two million rows without an index on the list: some tenths of a second.
 */
#define MAX_COST 50000

/* A list's users: their ids, sorted, and which of them share a phone number. */
typedef struct ListUsers
{
	const AppTables *tables;
	Tuplesortstate	*ids;
	DuplicateStream *duplicates;
	int64			 list_id;
	int64			 count;
	int64			 last; /* the last id taken, if any has been */
	bool			 begun;
	Tuplesortstate	*selected; /* ids that the query has returned; NULL if there is none */
	bool			 has_selected;
	int64			 next_selected; /* the next one of these, if there is one */
	int64			 num_foreign;	/* those that are not users of the list */
	int64			 first_foreign;
} ListUsers;

static Tuplesortstate *
begin_sort_of_ids(void)
{
	return tuplesort_begin_datum(INT8OID, Int8LessOperator, InvalidOid, false, work_mem, NULL,
								 TUPLESORT_NONE);
}

static void
open_users(ListUsers *users, const Campaign *campaign)
{
	*users = (ListUsers){.tables = campaign->tables,
						 .list_id = campaign->list_id,
						 .ids = begin_sort_of_ids(),
						 .duplicates = open_duplicates(campaign->country)};
	if (campaign->recipients)
		users->selected = begin_sort_of_ids();
}

static void
close_users(ListUsers *users)
{
	tuplesort_end(users->ids);
	if (users->selected)
		tuplesort_end(users->selected);
	close_duplicates(users->duplicates);
}

static void
put_user(ListUsers *users, uint64 row)
{
	int64 id = spi_int64(row, 1);
	char *phone = spi_string(row, 2);

	if (spi_isnull(row, 1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a list user has no id"),
				 errhint("Make \"id\" the primary key of \"ac_list_users\".")));
	tuplesort_putdatum(users->ids, Int64GetDatum(id), false);
	if (phone)
		put_phone(users->duplicates, id, phone);
	users->count++;
}

/* Puts in what the portal has, in memory that is freed page by page. */
static void
put_users(ListUsers *users, Portal portal, int64 most)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "sendcampaign list users",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	uint64		  count;

	do
	{
		count = spi_fetch(portal, FETCH_SIZE);
		for (uint64 i = 0; i < count; i++)
			put_user(users, i);
		SPI_freetuptable(SPI_tuptable);
		MemoryContextReset(context);
		give_way();
		CHECK_FOR_INTERRUPTS();
	} while (count > 0 && users->count <= most);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
put_selected(void *arg, int64 id)
{
	ListUsers *users = arg;

	tuplesort_putdatum(users->selected, Int64GetDatum(id), false);
}

/* Moves on to the next one that the query has selected; it may have selected one twice. */
static void
next_selected(ListUsers *users)
{
	int64 before = users->next_selected;
	bool  any = users->has_selected;
	Datum value;
	bool  isnull;

	do
	{
		users->has_selected = compat_get_datum(users->selected, &value, &isnull);
		if (users->has_selected)
			users->next_selected = DatumGetInt64(value);
	} while (users->has_selected && any && users->next_selected == before);
}

static void
read_selected(ListUsers *users, ListQuery *query)
{
	list_query_read(query, put_selected, users);
	tuplesort_performsort(users->selected);
	next_selected(users);
}

static void
skip_foreign(ListUsers *users)
{
	if (users->num_foreign++ == 0)
		users->first_foreign = users->next_selected;
	next_selected(users);
}

/* Tells whether a user of the list is a recipient; called in the order of their ids. */
static bool
is_recipient(ListUsers *users, int64 id)
{
	if (users->selected == NULL)
		return true;
	while (users->has_selected && users->next_selected < id)
		skip_foreign(users);
	if (!users->has_selected || users->next_selected != id)
		return false;
	next_selected(users);
	return true;
}

/*
 * Ids of other things, such as people, may be those of list users by chance.  So
 * nobody gets a message if there is one that is not.
 */
static void
check_selected(ListUsers *users)
{
	while (users->selected && users->has_selected)
		skip_foreign(users);
	if (users->num_foreign > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg_plural("the query that selects the recipients has returned %lld id that is"
							   " not of a user of list %lld",
							   "the query that selects the recipients has returned %lld ids that are"
							   " not of users of list %lld",
							   (unsigned long) users->num_foreign, (long long) users->num_foreign,
							   (long long) users->list_id),
				 errdetail("The lowest one is %lld.", (long long) users->first_foreign),
				 errhint("Make the query return only ids of rows of \"%s.ac_list_users\" whose"
						 " \"ac_list_id\" is %lld.",
						 users->tables->schema, (long long) users->list_id)));
}

/* Reads them in one pass.  Returns false if the list is longer than that, or takes long to read. */
static bool
read_users(ListUsers *users, int64 most)
{
	Portal portal = tables_open_list(users->tables, users->list_id);
	bool   short_enough = most == PG_INT64_MAX || spi_portal_cost(portal) <= MAX_COST;

	if (short_enough)
		put_users(users, portal, most);
	SPI_cursor_close(portal);
	if (!short_enough || users->count > most)
		return false;
	tuplesort_performsort(users->ids);
	find_duplicates(users->duplicates);
	return true;
}

/* Takes the next ids; returns their number.  A user who occurs twice would get two messages. */
static int
take_ids(ListUsers *users, Datum *ids, int most)
{
	bool isnull;
	int	 count = 0;

	while (count < most && compat_get_datum(users->ids, &ids[count], &isnull))
	{
		int64 id = DatumGetInt64(ids[count]);

		if (users->begun && id == users->last)
			tables_fail_twice(users->tables, id);
		users->begun = true;
		users->last = id;
		if (is_recipient(users, id))
			count++;
	}
	return count;
}

Datum
part_of_ids(Datum ids, int first, int most)
{
	Datum *values;
	int	   count;

	values = ids_of_array(DatumGetArrayTypeP(ids), &count);
	return make_array(values + first, NULL, Min(most, count - first), INT8OID);
}

static void
store_batch(Run *run, int number, Datum ids, Duplicates duplicates)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.batch (run_id, number, list_user_ids, duplicates, firsts)"
		" VALUES ($1, $2, $3, $4, $5)",
		5,
		{INT8OID, INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID}};
	Datum values[] = {Int64GetDatum(run->id), Int32GetDatum(number), ids,
					  PointerGetDatum(duplicates.ids), PointerGetDatum(duplicates.firsts)};

	(void) own_execute(&statement, values, duplicates.ids ? NULL : "   nn");
}

static void
pass_on_batches(ListUsers *users, BatchFunction function, void *arg)
{
	Datum		  ids[BATCH_SIZE];
	int			  count;
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(old, "sendcampaign batch",
												  ALLOCSET_DEFAULT_SIZES);
	bool		  more = true;

	while (more && (count = take_ids(users, ids, BATCH_SIZE)) > 0)
	{
		MemoryContextSwitchTo(context);
		more = function(arg, make_array(ids, NULL, count, INT8OID),
						take_duplicates(users->duplicates, ids, count), count);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

/* Checks what is left if the function wants no more. */
static void
check_rest(ListUsers *users)
{
	Datum ids[BATCH_SIZE];

	while (users->selected && take_ids(users, ids, BATCH_SIZE) > 0)
		CHECK_FOR_INTERRUPTS();
	check_selected(users);
}

bool
each_batch(const Campaign *campaign, int64 most, BatchFunction function, void *arg)
{
	ListUsers users;
	bool	  fits;

	open_users(&users, campaign);
	if (campaign->recipients)
		read_selected(&users, campaign->recipients);
	fits = read_users(&users, most);
	if (fits)
	{
		pass_on_batches(&users, function, arg);
		check_rest(&users);
	}
	close_users(&users);
	return fits;
}

/* The recipients that have been stored when a run starts. */
typedef struct Stored
{
	Run	 *run;
	int	  number;
	int64 total;
} Stored;

static bool
store_next(void *arg, Datum ids, Duplicates duplicates, int count)
{
	Stored *stored = arg;

	store_batch(stored->run, ++stored->number, ids, duplicates);
	stored->total += count;
	give_way();
	return true;
}

bool
store_recipients(Run *run, int64 most, int64 *total)
{
	Stored stored = {run};
	bool   fits = each_batch(&run->campaign, most, store_next, &stored);

	*total = stored.total;
	return fits;
}

static bool
store_first(void *arg, Datum ids, Duplicates duplicates, int count)
{
	Stored *stored = arg;

	store_batch(stored->run, 1, part_of_ids(ids, 0, 1), (Duplicates){NULL, NULL});
	stored->total = 1;
	return false;
}

int64
store_first_recipient(Run *run)
{
	Stored stored = {run};

	(void) each_batch(&run->campaign, PG_INT64_MAX, store_first, &stored);
	return stored.total;
}

/*
 * Takes a batch with a higher number than the last one, past which only dead rows are.
 * Once the run is cancelled, nobody is waited for.
 */
static bool
take_next(Run *run, Batch *batch)
{
	static OwnStatement statement = {
		"DELETE FROM sendcampaign.batch WHERE run_id = $1 AND number ="
		" (SELECT b.number FROM sendcampaign.batch b WHERE b.run_id = $1 AND b.number > $2"
		"  AND (b.due IS NULL OR b.due <= clock_timestamp() OR $3) ORDER BY b.number LIMIT 1)"
		" RETURNING number, list_user_ids, duplicates, firsts, " IS_CONTINUOUS,
		3,
		{INT8OID, INT4OID, BOOLOID}};
	Datum values[] = {Int64GetDatum(run->id), Int32GetDatum(run->last_batch),
					  BoolGetDatum(run_is_cancelled(run))};

	if (own_execute(&statement, values, NULL) == 0)
		return false;
	if (!spi_bool(0, 5))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recipients of job %lld were loaded from a dump while it was being sent",
						(long long) run->job_id),
				 errhint("Call send_campaign() with the same campaign and job. What was sent is"
						 " read back from Twilio before the run continues.")));
	batch->number = spi_int32(0, 1);
	batch->ids = spi_array(0, 2);
	batch->duplicates = (Duplicates){spi_array(0, 3), spi_array(0, 4)};
	run->last_batch = batch->number;
	return true;
}

/*
 * Ours have numbers from 1 on.  Somebody may have made some due since we looked for
 * one that is (see resume()).
 */
void
look_ahead(Run *run)
{
	static OwnStatement statement = {"SELECT min(coalesce(due, clock_timestamp()))"
									 " FROM sendcampaign.batch WHERE run_id = $1 AND number > 0",
									 1,
									 {INT8OID}};
	Datum				value = Int64GetDatum(run->id);

	(void) own_execute(&statement, &value, NULL);
	run->next_at = spi_timestamptz(0, 1);
	run->exhausted = run->next_at == 0;
}

bool
take_batch(Run *run, Batch *batch)
{
	if (take_next(run, batch))
		return true;
	/* batches that were put off may have lower numbers */
	if (run->last_batch > 0)
	{
		run->last_batch = 0;
		if (take_next(run, batch))
			return true;
	}
	look_ahead(run);
	return false;
}

void
expect_overlaps(Run *run)
{
	runs_expect_overlaps(run->id);
	run->may_overlap = true;
}

ArrayType *
leave_out_known(const Run *run, ArrayType *ids)
{
	static OwnStatement statement = {
		"SELECT coalesce(array_agg(DISTINCT u.id), '{}') FROM unnest($2) u(id)"
		" WHERE u.id IS NOT NULL AND NOT EXISTS (SELECT FROM sendcampaign.message_data m"
		"  WHERE m.run_id = $1 AND m.list_user_id = u.id)"
		" AND NOT EXISTS (SELECT FROM sendcampaign.claim c"
		"  WHERE c.run_id = $1 AND u.id = ANY (c.list_user_ids))",
		2,
		{INT8OID, INT8ARRAYOID}};
	Datum values[] = {Int64GetDatum(run->id), PointerGetDatum(ids)};

	(void) own_execute(&statement, values, NULL);
	return spi_array(0, 1);
}

void
put_back(Run *run, const Batch *batch, Datum *ids, int count)
{
	store_batch(run, batch->number, make_array(ids, NULL, count, INT8OID), batch->duplicates);
	run->last_batch = batch->number - 1;
}

/*
 * The batch to which recipients that are due at some time are put off, so that
 * a worldwide list does not end up in many small batches.  Only a hint: it is
 * checked when used, as its transaction may have been rolled back.
 */
typedef struct OpenBatch
{
	int64		run_id;
	TimestampTz due;
	int			number;
} OpenBatch;

/* More entries than there are offsets from UTC, for a run or two. */
static OpenBatch open_batches[64];

/* Returns the entry for that time; a new one replaces the oldest. */
static OpenBatch *
find_open_batch(int64 run_id, TimestampTz due)
{
	static int oldest = 0;
	OpenBatch *batch;

	for (int i = 0; i < lengthof(open_batches); i++)
	{
		if (open_batches[i].run_id == run_id && open_batches[i].due == due)
			return &open_batches[i];
	}
	batch = &open_batches[oldest];
	oldest = (oldest + 1) % lengthof(open_batches);
	*batch = (OpenBatch){run_id, due, 0};
	return batch;
}

/* Returns false if the batch does not exist or has no room. */
static bool
add_to_batch(const OpenBatch *batch, Datum ids)
{
	static OwnStatement statement = {
		"UPDATE sendcampaign.batch SET list_user_ids = list_user_ids || $4"
		" WHERE run_id = $1 AND number = $2 AND due = $3"
		" AND cardinality(list_user_ids) + cardinality($4) <= $5",
		5,
		{INT8OID, INT4OID, TIMESTAMPTZOID, INT8ARRAYOID, INT4OID}};
	Datum values[] = {Int64GetDatum(batch->run_id), Int32GetDatum(batch->number),
					  TimestampTzGetDatum(batch->due), ids, Int32GetDatum(BATCH_SIZE)};

	return batch->number > 0 && own_execute(&statement, values, NULL) == 1;
}

void
put_off(Run *run, Datum *ids, int count, TimestampTz due)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.batch (run_id, number, list_user_ids, due)"
		" SELECT $1, 1 + greatest($2,"
		"  (SELECT max(b.number) FROM sendcampaign.batch b WHERE b.run_id = $1)), $3, $4"
		" RETURNING number",
		4,
		{INT8OID, INT4OID, INT8ARRAYOID, TIMESTAMPTZOID}};
	Datum	   array = make_array(ids, NULL, count, INT8OID);
	Datum	   values[] = {Int64GetDatum(run->id), Int32GetDatum(run->last_batch), array,
						   TimestampTzGetDatum(due)};
	OpenBatch *batch = find_open_batch(run->id, due);

	if (add_to_batch(batch, array))
		return;
	(void) own_execute(&statement, values, NULL);
	batch->number = spi_int32(0, 1);
}
