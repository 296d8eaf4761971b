/*-------------------------------------------------------------------------
 *
 * duplicates.c
 *	  Of list users with the same phone number, only one gets the message.
 *
 * Phone numbers are compared in the form to which messages are sent, so the
 * list's users are sorted by number here, and not by SQL.
 *
 * Who has been chosen among a run's duplicates is in sendcampaign.chosen,
 * written with the claim or with the batch that puts them off.  The choice
 * stands whatever becomes of the message, unless the one that was chosen has
 * been skipped since: then nobody has had the message, and the next one that
 * is read is chosen.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "campaign/phone.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/own_tables.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"
#include "worker/duplicates.h"
#include "worker/run.h"

/* Sorts pairs of int8, by both. */
typedef struct PairSort
{
	Tuplesortstate *state;
	TupleTableSlot *in;
	TupleTableSlot *out;
} PairSort;

struct DuplicateStream
{
	PairSort	by_phone; /* phone, id */
	PairSort	by_id;	  /* id, first */
	const char *country;
	bool		has_next;
	int64		next[2];
};

static void
begin_sort(PairSort *sort)
{
	TupleDesc  pair = CreateTemplateTupleDesc(2);
	AttrNumber columns[] = {1, 2};
	Oid		   operators[] = {Int8LessOperator, Int8LessOperator};
	Oid		   collations[] = {InvalidOid, InvalidOid};
	bool	   nulls_first[] = {false, false};

	TupleDescInitEntry(pair, 1, "a", INT8OID, -1, 0);
	TupleDescInitEntry(pair, 2, "b", INT8OID, -1, 0);
	TupleDescFinalize(pair);
	sort->state = tuplesort_begin_heap(pair, 2, columns, operators, collations, nulls_first,
									   work_mem, NULL, TUPLESORT_NONE);
	sort->in = MakeSingleTupleTableSlot(pair, &TTSOpsVirtual);
	sort->out = MakeSingleTupleTableSlot(pair, &TTSOpsMinimalTuple);
}

static void
put_pair(PairSort *sort, int64 a, int64 b)
{
	ExecClearTuple(sort->in);
	sort->in->tts_values[0] = Int64GetDatum(a);
	sort->in->tts_values[1] = Int64GetDatum(b);
	sort->in->tts_isnull[0] = sort->in->tts_isnull[1] = false;
	ExecStoreVirtualTuple(sort->in);
	tuplesort_puttupleslot(sort->state, sort->in);
}

/* Returns false at the end. */
static bool
get_pair(PairSort *sort, int64 *pair)
{
	if (!tuplesort_gettupleslot(sort->state, true, false, sort->out, NULL))
		return false;
	slot_getallattrs(sort->out);
	pair[0] = DatumGetInt64(sort->out->tts_values[0]);
	pair[1] = DatumGetInt64(sort->out->tts_values[1]);
	return true;
}

static void
end_sort(PairSort *sort)
{
	if (sort->state == NULL)
		return;
	ExecDropSingleTupleTableSlot(sort->in);
	ExecDropSingleTupleTableSlot(sort->out);
	tuplesort_end(sort->state);
	sort->state = NULL;
}

DuplicateStream *
open_duplicates(const char *country)
{
	DuplicateStream *stream = palloc0(sizeof(DuplicateStream));

	stream->country = country;
	begin_sort(&stream->by_phone);
	begin_sort(&stream->by_id);
	return stream;
}

void
put_phone(DuplicateStream *stream, int64 list_user_id, const char *phone)
{
	char *e164 = normalize_phone_in(phone, stream->country);

	if (e164)
		put_pair(&stream->by_phone, phone_number(e164), list_user_id);
}

/* Puts those who share a number into the second sort, with the first of them. */
void
find_duplicates(DuplicateStream *stream)
{
	int64 phone = 0;
	int64 first = 0;
	int64 pair[2];
	bool  alone = true;

	tuplesort_performsort(stream->by_phone.state);
	while (get_pair(&stream->by_phone, pair))
	{
		if (pair[0] != phone)
		{
			phone = pair[0];
			first = pair[1];
			alone = true;
			continue;
		}
		if (alone)
			put_pair(&stream->by_id, first, first);
		alone = false;
		put_pair(&stream->by_id, pair[1], first);
	}
	end_sort(&stream->by_phone);
	tuplesort_performsort(stream->by_id.state);
	stream->has_next = get_pair(&stream->by_id, stream->next);
}

Duplicates
take_duplicates(DuplicateStream *stream, const Datum *wanted, int num_wanted)
{
	Datum *ids = palloc(num_wanted * sizeof(Datum));
	Datum *firsts = palloc(num_wanted * sizeof(Datum));
	int	   count = 0;

	for (int i = 0; i < num_wanted; i++)
	{
		/* others are not among the recipients */
		while (stream->has_next && stream->next[0] < DatumGetInt64(wanted[i]))
			stream->has_next = get_pair(&stream->by_id, stream->next);
		if (!stream->has_next || stream->next[0] != DatumGetInt64(wanted[i]))
			continue;
		ids[count] = Int64GetDatum(stream->next[0]);
		firsts[count++] = Int64GetDatum(stream->next[1]);
	}
	if (count == 0)
		return (Duplicates){NULL, NULL};
	return (Duplicates){DatumGetArrayTypeP(make_array(ids, NULL, count, INT8OID)),
						DatumGetArrayTypeP(make_array(firsts, NULL, count, INT8OID))};
}

void
close_duplicates(DuplicateStream *stream)
{
	end_sort(&stream->by_phone);
	end_sort(&stream->by_id);
	pfree(stream);
}

/* A recipient who would get a message, and the first one with that phone number. */
typedef struct Candidate
{
	Recipient *recipient;
	int64	   first;
} Candidate;

/* Returns the recipients who have duplicates and are not skipped; palloc'd. */
static Candidate *
find_candidates(Recipient *recipients, int count, Duplicates duplicates, int *num_found)
{
	Candidate *found = palloc(Max(count, 1) * sizeof(Candidate));
	int		   num_ids;
	int		   num_firsts;
	Datum	  *ids;
	Datum	  *firsts;

	*num_found = 0;
	if (duplicates.ids == NULL || duplicates.firsts == NULL)
		return found;
	ids = ids_of_array(duplicates.ids, &num_ids);
	firsts = ids_of_array(duplicates.firsts, &num_firsts);
	for (int i = 0; i < count; i++)
	{
		Datum  id = Int64GetDatum(recipients[i].list_user_id);
		Datum *at = bsearch(&id, ids, Min(num_ids, num_firsts), sizeof(Datum), compare_ids);

		if (at && recipients[i].skip == NOT_SKIPPED)
			found[(*num_found)++] = (Candidate){&recipients[i], DatumGetInt64(firsts[at - ids])};
	}
	return found;
}

/* Who gets the message, of those with the same phone number. */
typedef struct Chosen
{
	int64 first;
	int64 list_user_id;
} Chosen;

ChosenDuplicates
choose_in_memory(MemoryContext context)
{
	HASHCTL control = {.keysize = sizeof(int64), .entrysize = sizeof(Chosen), .hcxt = context};

	return hash_create("sendcampaign duplicates", 256, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
skip_as_duplicate(Recipient *recipient)
{
	recipient_skip(recipient, SKIP_DUPLICATE,
				   "duplicate: another list user has the same phone number");
}

void
skip_duplicates_in_memory(ChosenDuplicates chosen, Recipient *recipients, int count,
						  Duplicates duplicates)
{
	int		   num_found;
	Candidate *found = find_candidates(recipients, count, duplicates, &num_found);

	for (int i = 0; i < num_found; i++)
	{
		bool	known;
		Chosen *entry = hash_search(chosen, &found[i].first, HASH_ENTER, &known);

		if (!known)
			entry->list_user_id = found[i].recipient->list_user_id;
		else if (entry->list_user_id != found[i].recipient->list_user_id)
			skip_as_duplicate(found[i].recipient);
	}
}

/*
 * Records who is chosen.  What was sent before commits were lost may have gone
 * to another one than would be chosen now.  A loaded row does not prove that
 * the chosen one was skipped, unless Twilio's list has been read back since,
 * and contains nothing for him.
 */
static void
choose(Datum *values)
{
	static OwnStatement statement = {
		"INSERT INTO sendcampaign.chosen AS c (run_id, first_id, list_user_id)"
		" SELECT $1, u.first, coalesce(min((SELECT w.list_user_id FROM sendcampaign.read_back_message w"
		"  WHERE w.run_id = $1 AND w.phone = u.phone AND w.list_user_id <> 0 AND NOT w.withheld"
		"  ORDER BY w.list_user_id = ANY ($3) DESC, w.list_user_id LIMIT 1)), min(u.id))"
		" FROM unnest($2, $3, $4) u(first, id, phone)"
		" GROUP BY u.first"
		" ON CONFLICT (run_id, first_id) DO UPDATE SET list_user_id = excluded.list_user_id"
		" WHERE EXISTS (SELECT FROM sendcampaign.message_data m WHERE m.run_id = c.run_id"
		"  AND m.list_user_id = c.list_user_id AND m.status = 'skipped'"
		"  AND (m.xmin = m.written_in OR (EXISTS (SELECT FROM sendcampaign.run_data r"
		"    WHERE r.id = $1 AND r.read_back)"
		"   AND NOT EXISTS (SELECT FROM sendcampaign.read_back_message w WHERE w.run_id = $1"
		"    AND (w.list_user_id = c.list_user_id OR (w.list_user_id = 0"
		"     AND w.phone = ($4)[array_position($2, c.first_id)]))))))",
		4,
		{INT8OID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID}};

	(void) own_execute(&statement, values, NULL);
}

/* Fills SPI_tuptable with the ids of the duplicates that are not chosen. */
static int
find_not_chosen(Datum *values)
{
	static OwnStatement statement = {
		"SELECT u.id FROM unnest($2, $3) u(first, id) JOIN sendcampaign.chosen c"
		" ON c.run_id = $1 AND c.first_id = u.first WHERE c.list_user_id <> u.id ORDER BY u.id",
		3,
		{INT8OID, INT8ARRAYOID, INT8ARRAYOID}};

	return (int) own_execute(&statement, values, NULL);
}

void
skip_duplicates_of_run(int64 run_id, Recipient *recipients, int count, Duplicates duplicates)
{
	int		   num_found;
	int		   num_others;
	Candidate *found = find_candidates(recipients, count, duplicates, &num_found);
	Datum	  *firsts = palloc(Max(num_found, 1) * sizeof(Datum));
	Datum	  *ids = palloc(Max(num_found, 1) * sizeof(Datum));
	char	 **phones = palloc(Max(num_found, 1) * sizeof(char *));
	Datum	  *others;
	Datum	   values[4];

	if (num_found == 0)
		return;
	for (int i = 0; i < num_found; i++)
	{
		firsts[i] = Int64GetDatum(found[i].first);
		ids[i] = Int64GetDatum(found[i].recipient->list_user_id);
		phones[i] = found[i].recipient->phone;
	}
	values[0] = Int64GetDatum(run_id);
	values[1] = make_array(firsts, NULL, num_found, INT8OID);
	values[2] = make_array(ids, NULL, num_found, INT8OID);
	values[3] = make_text_array(phones, num_found);
	choose(values);
	num_others = find_not_chosen(values);
	others = palloc(Max(num_others, 1) * sizeof(Datum));
	for (int i = 0; i < num_others; i++)
		others[i] = Int64GetDatum(spi_int64(i, 1));
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < num_found; i++)
	{
		if (num_others > 0 && bsearch(&ids[i], others, num_others, sizeof(Datum), compare_ids))
			skip_as_duplicate(found[i].recipient);
	}
}
