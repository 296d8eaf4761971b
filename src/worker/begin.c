/*-------------------------------------------------------------------------
 *
 * begin.c
 *	  Begins small runs, many in one go.
 *
 * An application that sends one message at a time queues many runs with a few
 * recipients each.  Those that begin in the same transaction are read, claimed
 * and written together, in one statement of each kind.  A list that fits into
 * one claim is never stored as a batch.
 *
 * Whatever is unusual about a run - quiet hours, senders with a low rate,
 * duplicates, media - is left to the code that takes up one run at a time.  So
 * is everything, if one of them raises an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/phone.h"
#include "campaign/recipients.h"
#include "database/attempt.h"
#include "database/check.h"
#include "database/run_table.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker/batch.h"
#include "worker/begin.h"
#include "worker/claim.h"
#include "worker/message.h"
#include "worker/next.h"
#include "worker/record.h"
#include "worker/run_attempt.h"

/*
 * How many messages may be ready in runs that are claimed completely: what is sent
 * until the next runs begin, with some to spare.  After a crash, each of them has
 * to be looked up.
 */
#define MAX_READY 128

/* The same, together with those that have to wait for their account or their sender. */
#define MAX_READY_AND_WAITING 1024

/* How often lists are read, each time without those that were found to be long. */
#define LIST_TRIES 3

/* A set that has failed is halved if it has at least this many runs. */
#define MIN_HALVED 4

/* A run that is to begin. */
typedef struct Candidate
{
	Run			   *run;
	bool			fits;  /* false if it does not begin with the others */
	bool			waits; /* true if there is no room for it now */
	RecipientList	list;
	const ListUser *users; /* of the list, in its order */
	Claim		   *claim;
} Candidate;

typedef struct Beginning
{
	Candidate *candidates;
	int		   count;
} Beginning;

/* Returns how many of the run's ready messages wait for more than their turn. */
static int
num_waiting(Run *run, TimestampTz now)
{
	if (run->account->paused_until > now || run->campaign.group->rate > 0)
		return run->num_ready;
	return run_num_blocked(run, now);
}

/* Returns how many messages may still be claimed of this account, or of all of them (NULL). */
static int
room_of(const Account *account)
{
	TimestampTz now = GetCurrentTimestamp();
	int			ready = 0;
	int			waiting = 0;
	dlist_iter	iter;

	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (!run->exhausted || run->num_ready == 0 || run->account == NULL ||
			(account && run->account != account))
			continue;
		ready += run->num_ready;
		waiting += num_waiting(run, now);
	}
	return Max(0, Min(MAX_READY - (ready - waiting), MAX_READY_AND_WAITING - ready));
}

int
room_for_small_runs(void)
{
	return room_of(NULL);
}

/* Forgets those that do not fit; returns whether any are left. */
static bool
keep_fitting(Beginning *beginning)
{
	int kept = 0;

	for (int i = 0; i < beginning->count; i++)
	{
		Candidate candidate = beginning->candidates[i];

		if (!candidate.fits)
			continue;
		/* those that do not fit come after the others, so that they can be reset */
		beginning->candidates[i] = beginning->candidates[kept];
		beginning->candidates[kept++] = candidate;
	}
	beginning->count = kept;
	return kept > 0;
}

static void
open_all(Beginning *beginning)
{
	AppTables *tables = tables_open(beginning->candidates[0].run->schema);

	for (int i = 0; i < beginning->count; i++)
	{
		Run *run = beginning->candidates[i].run;

		if (OidIsValid(run->list_users))
			tables_check_chosen(tables, run->list_users);
		run->campaign.tables = tables_share(tables);
	}
	tables = beginning->candidates[0].run->campaign.tables;
	tables_check_rights(tables, worker.role, false);
	tables_plan(tables, NIL);
	tables_check_not_replaced(tables);
}

static Datum
ids_of_campaigns(const Beginning *beginning)
{
	int64 *ids = palloc(beginning->count * sizeof(int64));

	for (int i = 0; i < beginning->count; i++)
		ids[i] = beginning->candidates[i].run->campaign.id;
	return array_of_ids(ids, beginning->count);
}

static Datum
ids_of_lists(const Beginning *beginning)
{
	int64 *ids = palloc(beginning->count * sizeof(int64));

	for (int i = 0; i < beginning->count; i++)
		ids[i] = beginning->candidates[i].run->campaign.list_id;
	return array_of_ids(ids, beginning->count);
}

/* Reads what the runs send; from now on, the text of each is the same for all recipients. */
static void
read_texts(Beginning *beginning)
{
	AppTables	*tables = beginning->candidates[0].run->campaign.tables;
	CampaignRow *rows = tables_read_campaigns(tables, ids_of_campaigns(beginning),
											  beginning->count);

	for (int i = 0; i < beginning->count; i++)
	{
		Run			 *run = beginning->candidates[i].run;
		MemoryContext old = MemoryContextSwitchTo(run->context);

		campaign_take_row(&run->campaign, &rows[i]);
		MemoryContextSwitchTo(old);
		beginning->candidates[i].fits = run->campaign.text.num_media == 0;
	}
}

static int
compare_users(const void *a, const void *b)
{
	const ListUser *x = a;
	const ListUser *y = b;

	if (x->list_id != y->list_id)
		return x->list_id < y->list_id ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* Tells whether two of the users have the same phone number. */
static bool
have_duplicates(const ListUser *users, int count, const char *country)
{
	Datum *phones = palloc(count * sizeof(Datum));
	int	   num_phones = 0;
	bool   found = false;

	for (int i = 0; i < count; i++)
	{
		char *e164 = users[i].phone ? normalize_phone_in(users[i].phone, country) : NULL;

		if (e164)
			phones[num_phones++] = Int64GetDatum(phone_number(e164));
	}
	qsort(phones, num_phones, sizeof(Datum), compare_ids);
	for (int i = 1; i < num_phones && !found; i++)
		found = phones[i] == phones[i - 1];
	return found;
}

/* Takes a list's users, sorted by id, if they can be claimed together. */
static void
take_users(Candidate *candidate, const ListUser *users, int count)
{
	candidate->fits = count > 0 && count <= BATCH_SIZE;
	if (!candidate->fits)
		return;
	candidate->users = users;
	candidate->list = (RecipientList){&candidate->run->campaign, palloc(count * sizeof(Datum)),
									  count};
	for (int i = 0; i < count; i++)
	{
		/* whoever reads the list by itself explains what is wrong */
		if (!users[i].has_id || (i > 0 && users[i].id == users[i - 1].id))
			candidate->fits = false;
		candidate->list.ids[i] = Int64GetDatum(users[i].id);
	}
}

/* Returns where the user is, or would be, among these, which are sorted. */
static int
lower_bound(const ListUser *users, int count, const ListUser *user)
{
	int low = 0;

	while (count > 0)
	{
		int half = count / 2;

		if (compare_users(&users[low + half], user) < 0)
		{
			low += half + 1;
			count -= half + 1;
		}
		else
			count = half;
	}
	return low;
}

/* Returns where a list's users are among these, which are sorted, and their number. */
static const ListUser *
users_of(const ListUser *users, int count, int64 list_id, int *num_users)
{
	ListUser first = {list_id, PG_INT64_MIN};
	ListUser after = {list_id, PG_INT64_MAX};
	int		 begin = lower_bound(users, count, &first);

	*num_users = lower_bound(users, count, &after) - begin;
	return users + begin;
}

/*
 * Reads their lists.  If that is more than all of them could have if they were
 * small, it is not known who is missing, but some list is long.  Returns false
 * then; those that are known to be long do not fit.
 */
static bool
read_lists(Beginning *beginning)
{
	AppTables *tables = beginning->candidates[0].run->campaign.tables;
	int		   most = beginning->count * BATCH_SIZE;
	int		   count;
	ListUser  *users = tables_read_lists(tables, ids_of_lists(beginning), most + 1, &count);

	qsort(users, count, sizeof(ListUser), compare_users);
	for (int i = 0; i < beginning->count; i++)
	{
		Candidate	   *candidate = &beginning->candidates[i];
		int				num_users;
		const ListUser *own = users_of(users, count, candidate->run->campaign.list_id, &num_users);

		if (count <= most)
			take_users(candidate, own, num_users);
		else
			candidate->fits = num_users <= BATCH_SIZE;
	}
	return count <= most;
}

/* Reads lists until those are left that are short; gives up if there are too many long ones. */
static bool
read_short_lists(Beginning *beginning)
{
	for (int i = 0; i < LIST_TRIES; i++)
	{
		bool done = read_lists(beginning);

		if (!keep_fitting(beginning))
			return false;
		if (done)
			return true;
	}
	beginning->count = 0;
	return false;
}

/* Of a snapshot that is newer than our locks, see adopt.c. */
static bool
read_what_is_sent(Beginning *beginning)
{
	bool any;

	PushActiveSnapshot(GetTransactionSnapshot());
	read_texts(beginning);
	any = keep_fitting(beginning) && read_short_lists(beginning);
	PopActiveSnapshot();
	return any;
}

static void
read_all_groups(Beginning *beginning)
{
	WantedGroup *wanted = palloc(beginning->count * sizeof(WantedGroup));

	for (int i = 0; i < beginning->count; i++)
	{
		Run *run = beginning->candidates[i].run;

		wanted[i] = (WantedGroup){
			run->campaign.id, run->campaign.list_id,
			AllocSetContextCreate(run->context, "sendcampaign group", ALLOCSET_SMALL_SIZES)};
	}
	read_groups(beginning->candidates[0].run->campaign.tables, wanted, beginning->count);
	for (int i = 0; i < beginning->count; i++)
	{
		Run *run = beginning->candidates[i].run;

		run_use_group(run, wanted[i].group, wanted[i].context);
		run->campaign.country = wanted[i].group->country;
		run->group_is_new = true;
		run->group_stored = true; /* with the beginning */
	}
}

/*
 * With a limit, what one run sends counts for the next one.  Which numbers are
 * the same depends on the country.
 */
static void
leave_out_unusual(Beginning *beginning)
{
	for (int i = 0; i < beginning->count; i++)
	{
		Candidate	   *candidate = &beginning->candidates[i];
		const Campaign *campaign = &candidate->run->campaign;

		candidate->fits = campaign->group->limit.messages == 0 &&
						  !have_duplicates(candidate->users, candidate->list.count,
										   campaign->country);
	}
}

static int
compare_accounts(const void *a, const void *b)
{
	const Run *x = ((const Candidate *) a)->run;
	const Run *y = ((const Candidate *) b)->run;

	if (x->account != y->account)
		return (uintptr_t) x->account < (uintptr_t) y->account ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/*
 * Leaves runs to a later transaction for whose messages there is no room.  An
 * account that is slow must not keep others from beginning.
 */
static void
keep_within_room(Beginning *beginning)
{
	Account *account = NULL;
	int		 room = 0;

	qsort(beginning->candidates, beginning->count, sizeof(Candidate), compare_accounts);
	for (int i = 0; i < beginning->count; i++)
	{
		Candidate *candidate = &beginning->candidates[i];

		if (candidate->run->account != account)
			room = room_of(candidate->run->account);
		account = candidate->run->account;
		/* a list may be longer than what is ready at most */
		candidate->fits = room >= Min(candidate->list.count, MAX_READY);
		candidate->waits = !candidate->fits;
		room -= candidate->list.count;
	}
}

static int
compare_keys(const void *a, const void *b)
{
	return tables_compare_keys(((const Candidate *) a)->run->campaign.keys,
							   ((const Candidate *) b)->run->campaign.keys);
}

/* Reads together those whose texts have the same keys. */
static void
read_all_recipients(Beginning *beginning)
{
	TimestampTz	   now = GetCurrentTimestamp();
	RecipientList *lists = palloc(beginning->count * sizeof(RecipientList));
	int			   end;

	qsort(beginning->candidates, beginning->count, sizeof(Candidate), compare_keys);
	for (int i = 0; i < beginning->count; i++)
		lists[i] = beginning->candidates[i].list;
	for (int begin = 0; begin < beginning->count; begin = end)
	{
		for (end = begin + 1; end < beginning->count; end++)
		{
			if (compare_keys(&beginning->candidates[begin], &beginning->candidates[end]) != 0)
				break;
		}
		read_recipient_lists(lists + begin, end - begin, now);
	}
	for (int i = 0; i < beginning->count; i++)
		beginning->candidates[i].list = lists[i];
}

/* Tells whether all of them can be sent to, or skipped, at once. */
static bool
are_due_at_once(const Candidate *candidate)
{
	int messages = 0;

	for (int i = 0; i < candidate->list.count; i++)
	{
		const Recipient *recipient = &candidate->list.recipients[i];

		if (recipient->skip == NOT_SKIPPED && recipient->due != 0)
			return false;
		messages += recipient->skip == NOT_SKIPPED;
	}
	return messages <= run_claim_size(candidate->run);
}

static void
claim_all_recipients(Beginning *beginning)
{
	for (int i = 0; i < beginning->count; i++)
	{
		Candidate *candidate = &beginning->candidates[i];

		candidate->claim = prepare_claim(candidate->run, 0, candidate->list.recipients,
										 candidate->list.count);
		candidate->run->exhausted = true;
	}
}

static SmallBeginning
row_of(const Candidate *candidate, int64 skipped)
{
	const Campaign *campaign = &candidate->run->campaign;

	return (SmallBeginning){.run_id = candidate->run->id,
							.list_id = campaign->list_id,
							.message = campaign->text.message,
							.base_url = campaign->text.base_url,
							.content_sid = campaign->text.content_sid,
							.country_code = campaign->country,
							.total = candidate->list.count,
							.skipped = skipped,
							.account = campaign->group->account_sid,
							.group_id = campaign->group->id,
							.senders = campaign->group->senders,
							.num_senders = campaign->group->num_senders,
							.links_signed = campaign->group->sign_links};
}

static void
store_all(Beginning *beginning)
{
	Claim		  **claims = palloc(beginning->count * sizeof(Claim *));
	int64		   *skipped = palloc(beginning->count * sizeof(int64));
	SmallBeginning *rows = palloc(beginning->count * sizeof(SmallBeginning));

	for (int i = 0; i < beginning->count; i++)
		claims[i] = beginning->candidates[i].claim;
	store_claims(claims, beginning->count);
	record_skipped_uncounted(claims, beginning->count, skipped);
	for (int i = 0; i < beginning->count; i++)
	{
		rows[i] = row_of(&beginning->candidates[i], skipped[i]);
		claims[i]->stored = true;
	}
	runs_begin_small(rows, beginning->count,
					 beginning->candidates[0].run->campaign.tables->list_users);
}

static void
begin_all(void *arg)
{
	Beginning *beginning = arg;

	open_all(beginning);
	if (!read_what_is_sent(beginning))
		return;
	read_all_groups(beginning);
	leave_out_unusual(beginning);
	if (!keep_fitting(beginning))
		return;
	keep_within_room(beginning);
	if (!keep_fitting(beginning))
		return;
	read_all_recipients(beginning);
	for (int i = 0; i < beginning->count; i++)
		beginning->candidates[i].fits = are_due_at_once(&beginning->candidates[i]);
	if (!keep_fitting(beginning))
		return;
	claim_all_recipients(beginning);
	store_all(beginning);
}

/* Undoes in memory what was done for a run that has not begun. */
static void
reset(Run *run)
{
	while (!dlist_is_empty(&run->claims))
		drop_claim(dlist_head_element(Claim, node, &run->claims));
	dlist_init(&run->recorded_skips);
	run->last_claim = 0;
	run->exhausted = false;
	run->group_stored = run->group_is_new = false;
	run->account = NULL;
	run->campaign.group = NULL;
	if (run->group_context)
		MemoryContextDelete(run->group_context);
	run->group_context = NULL;
	if (run->campaign.tables)
		tables_close(run->campaign.tables);
	run->campaign.tables = NULL;
}

/* Begins them together.  Returns how many have begun, and an error if that has failed. */
static int
begin_set(Run **runs, int count, ErrorData **error)
{
	Candidate *candidates = palloc0(count * sizeof(Candidate));
	Beginning  beginning = {candidates, count};

	for (int i = 0; i < count; i++)
		candidates[i] = (Candidate){.run = runs[i], .fits = true};
	*error = attempt(begin_all, &beginning);
	if (*error)
		beginning.count = 0;
	for (int i = 0; i < count; i++)
	{
		runs[i] = candidates[i].run;
		runs[i]->waits_for_room = candidates[i].waits && *error == NULL;
		if (i >= beginning.count)
			reset(runs[i]);
	}
	return beginning.count;
}

/* Moves runs from the end of an array to its front, before the others. */
static void
move_to_front(Run **runs, int before, int first, int count)
{
	Run **moved = palloc(count * sizeof(Run *));

	memcpy(moved, runs + first, count * sizeof(Run *));
	memmove(runs + before + count, runs + before, (first - before) * sizeof(Run *));
	memcpy(runs + before, moved, count * sizeof(Run *));
}

/* If one run is the cause of an error, those in the other half can still begin together. */
int
begin_small_runs(Run **runs, int count)
{
	ErrorData *error;
	int		   half = count / 2;
	int		   begun = begin_set(runs, count, &error);
	int		   more;

	if (error == NULL || error_may_pass(error->sqlerrcode) || count < MIN_HALVED)
		return begun;
	begun = begin_small_runs(runs, half);
	more = begin_small_runs(runs + half, count - half);
	move_to_front(runs, begun, half, more);
	return begun + more;
}
