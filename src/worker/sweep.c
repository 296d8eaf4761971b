/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Learns from Twilio what became of messages that it took.
 *
 * A sweep asks one account for all runs of the worker's role that are due (see
 * sweep_times.c): for its list of messages, back to the first one that is
 * wanted, or, if only a few are open, for these.  It goes through phases:
 *
 *	gathering	groups of due runs whose credentials are those of one account
 *	searching	if few messages are open: which ones
 *	reading		requests, and a transaction for each page that has come
 *	closing		what is open after a run's last sweep stays unknown
 *	telling		the runs' jobs what has become known
 *	planning	when the next sweep of each run is due
 *
 * Each step in the database is a short transaction of its own, none of which is
 * open while Twilio is waited for.  So sending is not held up, and trouble with
 * a sweep is nobody else's.  A crash costs the sweep: its runs are still due,
 * and what is stored twice makes no difference.
 *
 * The same list has what recipients have answered.  If it is not read for
 * receipts, the messages to the groups' numbers are asked for.  So a run is swept
 * until the last interval is over, even if nothing is open.
 *
 * The list changes while it is read: a message may be seen twice, or not at
 * all.  What is not seen is still open, and is asked for in the next sweep.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/group.h"
#include "catalog/pg_type.h"
#include "database/attempt.h"
#include "database/own_tables.h"
#include "database/run_table.h"
#include "database/scopes.h"
#include "debug_point.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "settings.h"
#include "twilio/request.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/announce.h"
#include "worker/deliveries.h"
#include "worker/receipt_reader.h"
#include "worker/run_attempt.h"
#include "worker/sweep.h"
#include "worker/sweep_queue.h"
#include "worker/transaction.h"

/* The queue is looked at this often; after an error, and after many, later. */
#define LOOK_INTERVAL_MS 1000
#define ERROR_DELAY_MS	 5000
#define MAX_FAILURES	 10
#define GIVE_UP_MS		 600000

/* A sweep of this many runs is enough; the most that one group has come on top. */
#define ENOUGH_RUNS 1000
#define MAX_RUNS	(ENOUGH_RUNS + MAX_DUE_RUNS)

/*
 * So few messages are asked for one by one, or more if the list would have as
 * many pages.
 */
#define FEW_MESSAGES 20
#define PAGE_ROWS	 1000

/* So many pages of open messages are asked for by sender. */
#define SPLIT_PAGES 5

/* Messages among which open ones are looked for, or which are closed, at once; and runs. */
#define STEP_ROWS 5000
#define STEP_RUNS 50

/* While the worker sends, a sweep rests so many times as long as its step took, at most this. */
#define REST		19
#define MAX_REST_US 2000000

/*
 * If a page cannot be stored, since somebody has locked what it is about, as a
 * transaction does that has called receive(), that is tried with a part of it,
 * down to a single row, which is left out after some failures.
 */
#define WHOLE_PAGE	  INT_MAX
#define PORTION_RATIO 8
#define ROW_FAILURES  6
#define MAX_LEFT_OUT  20

/* Jobs that are told at once: each of them may be locked. */
#define STEP_JOBS 2

/* So many numbers are asked for replies one by one; otherwise the list is read for them. */
#define MAX_NUMBERS 20

/* How often the next sweeps of runs whose rows are locked are planned. */
#define MAX_PLANS 10

typedef enum SweepPhase
{
	SWEEP_GATHERING,
	SWEEP_SEARCHING,
	SWEEP_READING,
	SWEEP_CLOSING,
	SWEEP_TELLING,
	SWEEP_PLANNING,
	SWEEP_OVER
} SweepPhase;

typedef struct Sweep
{
	dlist_node	   node; /* in sweeps */
	MemoryContext  context;
	SweepPhase	   phase;
	Oid			   extension; /* that was there when it began */
	char		  *account;	  /* SID; NULL if it is not known */
	ReceiptReader *reader;	  /* NULL if Twilio cannot be asked */
	List		  *groups;	  /* of ReplyGroup */
	List		  *others;	  /* of the role, which may share a sender with these */
	bool		   others_read;
	TimestampTz	   replies_since; /* replies from before this are not asked for now */
	TimestampTz	   began_at;
	int			   num_runs;
	DueRun		  *runs;
	int64		   open; /* total of the runs */
	int64		   sent;
	TimestampTz	   since;	 /* of the messages that are open */
	bool		   is_split; /* the list is asked for by sender: */
	int64		   known;	 /* so many messages of ours were in it */
	int64		   expected; /* and so many must be */
	/* the step in the database */
	TimestampTz due;		  /* not before this */
	int			failures;	  /* consecutive */
	int			next_run;	  /* while searching and closing */
	int64		after;		  /* list user of that run */
	int64		found;		  /* open messages, while searching */
	Chain	   *stored;		  /* of whose page rows are stored in the open transaction */
	int			num_stored;	  /* so many */
	int			portion;	  /* so many rows are stored at once */
	int			num_left_out; /* rows that cannot be stored */
	List	   *announcements;
	int			plans;
} Sweep;

static dlist_head  sweeps = DLIST_STATIC_INIT(sweeps);
static TimestampTz next_look = 0;
static int		   look_failures = 0;

/* Receipts are read again if they are lost, so no commit waits for the disk. */
static void
do_not_wait_for_disk(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Returns the ids of the runs of all sweeps, or of one, as a bigint[]; palloc'd. */
static Datum
ids_of_sweeps(const Sweep *only)
{
	Datum	  *ids = palloc(sizeof(Datum));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (only && sweep != only)
			continue;
		ids = repalloc(ids, (count + sweep->num_runs + 1) * sizeof(Datum));
		for (int i = 0; i < sweep->num_runs; i++)
			ids[count++] = Int64GetDatum(sweep->runs[i].id);
	}
	return make_array(ids, NULL, count, INT8OID);
}

/* Returns the accounts that are being asked, so that no other run joins, as a text[]; palloc'd. */
static Datum
busy_accounts(void)
{
	char	 **accounts = palloc(sizeof(char *));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (sweep->account == NULL ||
			(sweep->phase == SWEEP_GATHERING && sweep->num_runs < ENOUGH_RUNS))
			continue;
		accounts = repalloc(accounts, (count + 1) * sizeof(char *));
		accounts[count++] = sweep->account;
	}
	return make_text_array(accounts, count);
}

static Sweep *
create_sweep(Account *account, const DueGroup *group)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sendcampaign sweep",
												  ALLOCSET_DEFAULT_SIZES);
	Sweep		 *sweep = MemoryContextAllocZero(context, sizeof(Sweep));

	sweep->context = context;
	sweep->phase = account ? SWEEP_GATHERING : SWEEP_CLOSING;
	sweep->after = PG_INT64_MIN;
	sweep->portion = WHOLE_PAGE;
	sweep->extension = own_lock_extension();
	if (account)
	{
		sweep->account = account->sid;
		sweep->reader = receipt_reader_create(context, account);
	}
	sweep->began_at = sweep->since = sweep->replies_since = group->now;
	sweep->runs = MemoryContextAlloc(context, MAX_RUNS * sizeof(DueRun));
	dlist_push_tail(&sweeps, &sweep->node);
	return sweep;
}

/* Returns the sweep that gathers runs of this account, which is created if there is none. */
static Sweep *
gathering_sweep(Account *account, const DueGroup *group)
{
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (sweep->phase == SWEEP_GATHERING && sweep->reader->account == account)
			return sweep;
	}
	return create_sweep(account, group);
}

static void
add_run(Sweep *sweep, const DueRun *run)
{
	sweep->runs[sweep->num_runs++] = *run;
	sweep->open += run->open;
	sweep->sent += run->sent;
	if (run->open > 0)
		sweep->since = Min(sweep->since, run->since);
}

/* The configuration with which the group's runs are swept. */
typedef struct Credentials
{
	const DueGroup *group;
	MemoryContext	context; /* for the configuration */
	GroupConfig	   *config;
	Account		   *account;
} Credentials;

/*
 * With the rights of the role, as for sending.  The campaign and its list may
 * have been deleted since, or the list belong to another group.
 */
static void
read_credentials(void *arg)
{
	Credentials	   *credentials = arg;
	const DueGroup *due = credentials->group;
	AppTables	   *tables = tables_open(due->schema);
	MemoryContext	old;
	GroupConfig	   *config;

	tables_check_chosen(tables, due->list_users);
	old = MemoryContextSwitchTo(credentials->context);
	config = read_group_of_messages(tables, due->group_id, due->list_id);
	MemoryContextSwitchTo(old);
	tables_close(tables);
	if (due->account == NULL || strcmp(config->account_sid, due->account) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the group no longer has the Twilio account to which the messages were"
						" sent"),
				 errhint("Nobody asks what became of them until it has that account again.")));
	credentials->config = config;
	credentials->account = account_get(config);
}

/* Adds the group, whose configuration belongs to the sweep from now on. */
static void
add_group(Sweep *sweep, const Credentials *credentials)
{
	const DueGroup *due = credentials->group;
	MemoryContext	old = MemoryContextSwitchTo(sweep->context);
	ReplyGroup	   *group = palloc0(sizeof(ReplyGroup));

	MemoryContextSetParent(credentials->context, sweep->context);
	group->scope.role = worker.role;
	group->scope.account = sweep->account;
	group->scope.schema = pstrdup(due->schema);
	group->scope.group_id = credentials->config->id;
	group->group = credentials->config;
	for (int i = 0; i < due->num_senders; i++)
		group->past_senders = lappend(group->past_senders, pstrdup(due->senders[i]));
	sweep->groups = lappend(sweep->groups, group);
	for (int i = 0; i < due->num_runs; i++)
	{
		add_run(sweep, &due->runs[i]);
		/* as with receipts, what the list shows late is read by a later sweep */
		sweep->replies_since = Min(sweep->replies_since, due->runs[i].since);
	}
	sweep->replies_since = Min(sweep->replies_since, due->replies_since);
	MemoryContextSwitchTo(old);
}

/* Makes a sweep in which Twilio is not asked, as the credentials cannot be read. */
static void
put_off(const DueGroup *group, const char *reason)
{
	Sweep *sweep = create_sweep(NULL, group);

	for (int i = 0; i < group->num_runs; i++)
		add_run(sweep, &group->runs[i]);
	ereport(LOG,
			(errmsg("sendcampaign: campaign %lld: could not ask Twilio what became of its"
					" messages: %s",
					(long long) group->campaign_id, reason)));
}

/* Reads the group's configuration, and makes or joins a sweep of its account. */
static void
take_group(const DueGroup *group)
{
	Credentials credentials = {.group = group};
	ErrorData  *error;

	credentials.context = AllocSetContextCreate(CurrentMemoryContext, "sendcampaign swept group",
												ALLOCSET_SMALL_SIZES);
	error = attempt(read_credentials, &credentials);
	if (error && error_may_pass(error->sqlerrcode))
		ReThrowError(error);
	if (error)
		put_off(group, error_text(error));
	else
		add_group(gathering_sweep(credentials.account, group), &credentials);
}

/* Takes the runs of one group from the queue. */
static void
look_at_queue(void *found)
{
	DueGroup *group;

	if (!OidIsValid(own_lock_extension()))
		return;
	do_not_wait_for_disk();
	if (!sendcampaign_receipts)
	{
		runs_cancel_sweeps(worker.role);
		return;
	}
	group = next_due_group(worker.role, ids_of_sweeps(NULL), busy_accounts());
	if (group)
		take_group(group);
	*(bool *) found = group != NULL;
}

/* Goes on to the next run, of which nothing has been looked at yet. */
static void
next_run(Sweep *sweep)
{
	sweep->next_run++;
	sweep->after = PG_INT64_MIN;
}

static void
enter(Sweep *sweep, SweepPhase phase)
{
	sweep->phase = phase;
	sweep->next_run = -1;
	next_run(sweep);
	sweep->due = 0;
	sweep->failures = 0;
}

/* How many messages are few enough to be asked for one by one. */
static int64
few_messages(const Sweep *sweep)
{
	return Max(FEW_MESSAGES, sweep->sent / PAGE_ROWS);
}

/* Tells whether people can reply to the sender: a number, of whatever channel. */
static bool
is_number(const char *sender)
{
	return strspn(sender, "+0123456789") == strlen(sender) || strchr(sender, ':') != NULL;
}

/*
 * Adds the sender unless it is there; returns false if there are too many, or it
 * is a Messaging Service: Twilio's list cannot be asked for its messages.
 */
static bool
add_sender(List **senders, const char *name)
{
	ListCell *lc;

	if (is_messaging_service(name))
		return false;
	foreach (lc, *senders)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	*senders = lappend(*senders, unconstify(char *, name));
	return list_length(*senders) <= MAX_NUMBERS;
}

static bool
add_senders_of(List **senders, const ReplyGroup *group)
{
	const GroupConfig *config = group->group;
	ListCell		  *lc;

	for (int i = 0; i < config->num_senders; i++)
	{
		if (!add_sender(senders, config->senders[i]))
			return false;
	}
	foreach (lc, group->past_senders)
	{
		if (!add_sender(senders, lfirst(lc)))
			return false;
	}
	return true;
}

/*
 * Returns the groups' senders (char *), past ones included, each once, palloc'd;
 * NIL if they cannot be asked for one by one.
 */
static List *
few_senders(const Sweep *sweep)
{
	List	 *senders = NIL;
	ListCell *lc;

	foreach (lc, sweep->groups)
	{
		if (!add_senders_of(&senders, lfirst(lc)))
			return NIL;
	}
	return senders;
}

static void
ask_for_messages_to_numbers(Sweep *sweep, List *senders)
{
	ListCell *lc;

	foreach (lc, senders)
	{
		if (is_number(lfirst(lc)))
			ask_for_messages_to(sweep->reader, lfirst(lc), sweep->replies_since);
	}
}

/*
 * Tells whether the list is long enough to be asked for by sender, so that its
 * parts are read at the same time.  Not in a run's last sweep, which must see
 * messages from senders that the groups no longer have, too.
 */
static bool
is_to_be_split(const Sweep *sweep, List *senders)
{
	for (int i = 0; i < sweep->num_runs; i++)
	{
		if (sweep->runs[i].is_last && sweep->runs[i].open > 0)
			return false;
	}
	return list_length(senders) > 1 && sweep->open > SPLIT_PAGES * PAGE_ROWS;
}

/* Asks for the messages from each sender, and notes how many there must be at least. */
static void
ask_by_sender(Sweep *sweep, List *senders)
{
	ListCell *lc;

	sweep->known = sweep->expected = 0;
	for (int i = 0; i < sweep->num_runs; i++)
	{
		const DueRun *run = &sweep->runs[i];

		if (run->open > 0 && run->since <= run->began_at)
			sweep->expected += run->sent;
	}
	foreach (lc, senders)
		ask_for_messages_from(sweep->reader, lfirst(lc), sweep->since);
	sweep->is_split = true;
}

/*
 * Asks for replies, and for the list of the account if "for_receipts".  If that
 * goes back as far, it has the replies, too.
 */
static void
ask_for_lists(Sweep *sweep, bool for_receipts)
{
	List	   *senders = few_senders(sweep);
	bool		few = senders != NIL;
	bool		split = for_receipts && is_to_be_split(sweep, senders);
	TimestampTz since = sweep->replies_since;

	sweep->reader->inbound_since = since - LIST_TIME_SLACK * USECS_PER_SEC;
	if (few && (!for_receipts || split || since < sweep->since))
		ask_for_messages_to_numbers(sweep, senders);
	if (split)
		ask_by_sender(sweep, senders);
	else if (for_receipts)
		ask_for_list(sweep->reader, few ? sweep->since : Min(since, sweep->since));
	else if (!few)
		ask_for_list(sweep->reader, since);
}

static void
read_list(Sweep *sweep)
{
	forget_questions(sweep->reader);
	ask_for_lists(sweep, true);
	enter(sweep, SWEEP_READING);
}

/* Chooses how to ask, once all runs of the sweep are known. */
static void
end_gathering(Sweep *sweep)
{
	if (sweep->open > few_messages(sweep))
	{
		read_list(sweep);
		return;
	}
	ask_for_lists(sweep, false);
	enter(sweep, sweep->open > 0 ? SWEEP_SEARCHING : SWEEP_READING);
}

static void
begin_gathered(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (sweep->phase == SWEEP_GATHERING)
			end_gathering(sweep);
	}
}

/* Looks at the queue, one group at a time. */
static void
look_for_sweeps(TimestampTz now)
{
	bool	   found = false;
	ErrorData *error;

	if (next_look > now)
		return;
	error = try_transaction(look_at_queue, &found);
	if (error == NULL)
		look_failures = 0;
	else if (look_failures++ == 0)
		ereport(LOG,
				(errmsg("sendcampaign: could not look for messages to ask Twilio about, trying"
						" again: %s",
						error_text(error))));
	if (error == NULL && found)
		return; /* there may be more */
	begin_gathered();
	next_look = TimestampTzPlusMilliseconds(now, error == NULL					? LOOK_INTERVAL_MS
												 : look_failures < MAX_FAILURES ? ERROR_DELAY_MS
																				: GIVE_UP_MS);
}

/* Looks for open messages among some of a run's messages; returns how many it has looked at. */
static int
search_run(Sweep *sweep)
{
	const DueRun *run = &sweep->runs[sweep->next_run];
	OpenMessages  open = {0};

	if (run->open > 0)
		open = receipts_find_open(run->id, sweep->after, STEP_ROWS);
	for (int i = 0; i < open.num_sids; i++)
		ask_for_message(sweep->reader, open.sids[i]);
	sweep->found += open.num_sids;
	sweep->after = open.after;
	if (open.num_rows < STEP_ROWS)
		next_run(sweep);
	return open.num_rows;
}

/* If there are more of them than the counts say, the list is read after all. */
static void
search_some(void *arg)
{
	Sweep *sweep = arg;
	int	   rows = 0;

	for (int i = 0; i < STEP_RUNS && rows < STEP_ROWS && sweep->next_run < sweep->num_runs; i++)
		rows += search_run(sweep);
	if (sweep->found > few_messages(sweep))
		read_list(sweep);
	else if (sweep->next_run == sweep->num_runs)
		enter(sweep, SWEEP_READING);
}

/* A group that is not due, but may share a sender with one that is. */
typedef struct OtherGroup
{
	const ReceiptScope *scope;
	MemoryContext		context; /* for the configuration */
	GroupConfig		   *config;	 /* NULL: it has no messages in that account any more */
} OtherGroup;

static void
read_other_group(void *arg)
{
	OtherGroup	 *other = arg;
	AppTables	 *tables = tables_open(other->scope->schema);
	MemoryContext old = MemoryContextSwitchTo(other->context);
	GroupConfig	 *config = read_group_by_id(tables, other->scope->group_id);

	MemoryContextSwitchTo(old);
	tables_close(tables);
	if (config && strcmp(config->account_sid, other->scope->account) == 0)
		other->config = config;
}

static bool
is_swept(const Sweep *sweep, const ReceiptScope *scope)
{
	ListCell *lc;

	foreach (lc, sweep->groups)
	{
		const ReceiptScope *swept = &((const ReplyGroup *) lfirst(lc))->scope;

		if (swept->group_id == scope->group_id && strcmp(swept->schema, scope->schema) == 0)
			return true;
	}
	return false;
}

static void
add_other_group(Sweep *sweep, const ReceiptScope *scope)
{
	OtherGroup	  other = {.scope = scope, .context = sweep->context};
	ErrorData	 *error = attempt(read_other_group, &other);
	ReplyGroup	 *group;
	MemoryContext old;

	if (error && error_may_pass(error->sqlerrcode))
		ReThrowError(error);
	if (error)
		ereport(LOG,
				(errmsg("sendcampaign: could not read group %lld in schema \"%s\" for replies: %s",
						(long long) scope->group_id, scope->schema, error_text(error))));
	if (other.config == NULL)
		return;
	old = MemoryContextSwitchTo(sweep->context);
	group = palloc0(sizeof(ReplyGroup));
	group->scope = *scope;
	group->scope.account = sweep->account;
	group->scope.schema = pstrdup(scope->schema);
	group->group = other.config;
	sweep->others = lappend(sweep->others, group);
	MemoryContextSwitchTo(old);
}

/*
 * Returns the groups that replies may be for.  That one is not due does not
 * mean that nobody answers what it has sent from the same number.
 */
static List *
groups_of_replies(Sweep *sweep)
{
	ListCell *lc;

	if (!sweep->others_read)
	{
		foreach (lc, scopes_of_role(worker.role, sweep->account))
		{
			if (!is_swept(sweep, lfirst(lc)))
				add_other_group(sweep, lfirst(lc));
		}
		sweep->others_read = true;
	}
	return list_concat_copy(sweep->groups, sweep->others);
}

/* What the account's list says is true of all messages of the role in that account. */
static ReceiptScope
scope_of(const Sweep *sweep)
{
	return (ReceiptScope){.role = worker.role, .account = sweep->account};
}

static void
keep_announcements(Sweep *sweep, List *announcements)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->context);
	ListCell	 *lc;

	foreach (lc, announcements)
		sweep->announcements = lappend(sweep->announcements, pstrdup(lfirst(lc)));
	MemoryContextSwitchTo(old);
}

static void
store_receipts(Sweep *sweep, const Receipt *receipts, int count)
{
	ReceiptScope   scope = scope_of(sweep);
	StoredReceipts stored = receipts_store(&scope, receipts, count);

	sweep->known += stored.num_known;
	keep_announcements(sweep, stored.announcements);
}

/* Returns how many rows of the chain's page are still to be stored. */
static int
rows_left(const Chain *chain)
{
	return chain->num_inbound + chain->num_receipts - chain->num_stored;
}

/* Stores the next rows of a page, replies first. */
static void
store_rows(void *arg)
{
	Sweep *sweep = arg;
	Chain *chain = chain_with_page(sweep->reader);
	int	   first = chain->num_stored;
	int	   count = Min(sweep->portion, rows_left(chain));
	int	   replies = Max(0, Min(count, chain->num_inbound - first));

	if (replies > 0)
		keep_announcements(sweep,
						   replies_take(groups_of_replies(sweep), chain->inbound + first, replies));
	if (count > replies)
		store_receipts(sweep, chain->receipts + Max(0, first - chain->num_inbound),
					   count - replies);
	sweep->stored = chain;
	sweep->num_stored = count;
}

/* Reports that came by callback before their messages were recorded. */
static void
take_early(Sweep *sweep)
{
	ReceiptScope scope = scope_of(sweep);

	if (sweep->account)
		keep_announcements(sweep, receipts_take_early(&scope).announcements);
}

/*
 * If Twilio cannot be reached just then, as when a server has been started that
 * was down for days, its last sweep is repeated.
 */
static bool
may_close(const Sweep *sweep, const DueRun *run)
{
	return run->is_last &&
		   (run->is_over || sweep->reader == NULL || sweep->reader->problem == NULL);
}

static void
close_some(void *arg)
{
	Sweep *sweep = arg;
	List  *announcements = NIL;

	if (sweep->next_run == 0)
		take_early(sweep);
	for (int i = 0; i < STEP_RUNS && sweep->next_run < sweep->num_runs; i++)
	{
		const DueRun *run = &sweep->runs[sweep->next_run];

		if (may_close(sweep, run) &&
			receipts_close(run->id, sweep->began_at, &sweep->after, STEP_ROWS, &announcements))
			break;
		next_run(sweep);
	}
	keep_announcements(sweep, announcements);
	if (sweep->next_run == sweep->num_runs)
		enter(sweep, SWEEP_TELLING);
}

/* What is noted for a run that somebody has locked is added another time. */
static void
add_noted(void *arg)
{
	Sweep		 *sweep = arg;
	const DueRun *run = &sweep->runs[sweep->next_run];
	char		 *announcement = runs_add_noted_receipts(run->id);

	if (announcement)
		keep_announcements(sweep, list_make1(announcement));
}

/* What callbacks have brought since the last sweep is still to be told, too. */
static void
tell_some(void *arg)
{
	Sweep *sweep = arg;

	for (int i = 0; i < STEP_JOBS && sweep->next_run < sweep->num_runs; i++, next_run(sweep))
	{
		(void) attempt(add_noted, sweep);
		tell_deliveries(sweep->runs[sweep->next_run].id);
	}
	if (sweep->next_run == sweep->num_runs)
		enter(sweep, SWEEP_PLANNING);
}

static void
forget_run(Sweep *sweep, int64 id)
{
	for (int i = 0; i < sweep->num_runs; i++)
	{
		if (sweep->runs[i].id == id)
			sweep->runs[i] = sweep->runs[--sweep->num_runs];
	}
}

/* Runs that somebody has locked are tried again for a while. */
static void
plan_next(void *arg)
{
	Sweep	   *sweep = arg;
	SweepResult result = sweep->reader == NULL			  ? SWEEP_NOT_READ
						 : sweep->reader->problem == NULL ? SWEEP_READ
														  : SWEEP_FAILED;
	List	   *planned = runs_plan_sweep(ids_of_sweeps(sweep), sweep->began_at, result);
	ListCell   *lc;

	foreach (lc, planned)
		forget_run(sweep, *(int64 *) lfirst(lc));
	if (sweep->num_runs == 0 || ++sweep->plans >= MAX_PLANS)
		enter(sweep, SWEEP_OVER);
	else
		sweep->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_INTERVAL_MS);
}

typedef void (*StepFunction)(void *sweep);

/* Returns what the sweep has to do in the database now, or NULL. */
static StepFunction
next_step(const Sweep *sweep, TimestampTz now)
{
	if (sweep->due > now)
		return NULL;
	switch (sweep->phase)
	{
		case SWEEP_SEARCHING:
			return search_some;
		case SWEEP_READING:
			return chain_with_page(sweep->reader) ? store_rows : NULL;
		case SWEEP_CLOSING:
			return close_some;
		case SWEEP_TELLING:
			return tell_some;
		case SWEEP_PLANNING:
			return plan_next;
		case SWEEP_GATHERING:
		case SWEEP_OVER:
			break;
	}
	return NULL;
}

/* What take_step() needs. */
typedef struct Step
{
	Sweep		*sweep;
	StepFunction function;
} Step;

/* In an extension that was created again, other runs have the same ids. */
static void
take_step(void *arg)
{
	Step *step = arg;

	if (own_lock_extension() != step->sweep->extension)
	{
		enter(step->sweep, SWEEP_OVER);
		return;
	}
	do_not_wait_for_disk();
	step->function(step->sweep);
}

/* Goes on to the next rows of the page, or to another page. */
static void
rows_are_done(Sweep *sweep, Chain *chain, int count)
{
	chain->num_stored += count;
	sweep->stored = NULL;
	sweep->failures = 0;
	if (sweep->portion < WHOLE_PAGE / PORTION_RATIO)
		sweep->portion *= PORTION_RATIO;
	else
		sweep->portion = WHOLE_PAGE;
	if (rows_left(chain) > 0)
		return;
	forget_page(chain);
	debug_point(DEBUG_SWEPT);
}

static void
step_succeeded(Sweep *sweep, TimestampTz began)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	sweep->failures = 0;
	foreach (lc, sweep->announcements)
		announce_later(lfirst(lc));
	list_free_deep(sweep->announcements);
	sweep->announcements = NIL;
	if (worker.num_runs > 0) /* sending comes first */
		sweep->due = Max(sweep->due, now + Min(REST * (now - began), MAX_REST_US));
	if (sweep->stored)
		rows_are_done(sweep, sweep->stored, sweep->num_stored);
}

/* What is left out is still open, or is read again; the next sweep asks for it. */
static void
store_less(Sweep *sweep)
{
	Chain *chain = chain_with_page(sweep->reader);

	if (sweep->portion > 1)
		sweep->portion = Max(1, Min(sweep->portion, rows_left(chain)) / PORTION_RATIO);
	else if (sweep->failures >= ROW_FAILURES && sweep->num_left_out++ < MAX_LEFT_OUT)
		rows_are_done(sweep, chain, 1);
}

/* Restores what the sweep was before. */
static void
step_failed(Sweep *sweep, const Sweep *before, const ErrorData *error)
{
	int failures = before->failures + 1;

	*sweep = *before;
	sweep->announcements = NIL;
	sweep->failures = failures;
	sweep->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											 100 + backoff_delay(Min(failures, 4)));
	if (failures == 1)
		ereport(LOG,
				(errmsg("sendcampaign: could not store what became of messages, trying again: %s",
						error_text(error))));
	if (sweep->phase == SWEEP_TELLING)
		next_run(sweep); /* a job is no reason to ask again */
	if (sweep->phase == SWEEP_READING)
		store_less(sweep);
	if (sweep->failures < MAX_FAILURES)
		return;
	if (sweep->phase == SWEEP_TELLING)
	{
		enter(sweep, SWEEP_PLANNING);
		return;
	}
	enter(sweep, SWEEP_OVER);
	look_failures = MAX_FAILURES;
	next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GIVE_UP_MS);
}

/*
 * If a tenth of the messages was not found, a group has had other senders, or
 * Twilio hides numbers: then the whole list is read.
 */
static bool
ask_for_the_rest(Sweep *sweep)
{
	if (!sweep->is_split || sweep->known >= sweep->expected - sweep->expected / 10)
		return false;
	sweep->is_split = false;
	ask_for_list(sweep->reader, sweep->since);
	return true;
}

/* Ends the reading once all has been read, or nothing more is asked. */
static void
end_reading(Sweep *sweep)
{
	const char *problem = sweep->reader->problem;

	if (sweep->reader->under_way > 0 || chain_with_page(sweep->reader) ||
		(problem == NULL && !receipt_reader_is_through(sweep->reader)))
		return;
	if (problem == NULL && ask_for_the_rest(sweep))
		return;
	if (problem)
		ereport(LOG,
				(errmsg("sendcampaign: account %s: Twilio does not say what became of messages: %s",
						sweep->reader->account->name, problem)));
	enter(sweep, SWEEP_CLOSING);
}

static void
advance(Sweep *sweep, TimestampTz now)
{
	Step	   step = {sweep, next_step(sweep, now)};
	Sweep	   before = *sweep;
	ErrorData *error;

	if (step.function == NULL)
		return;
	error = try_transaction(take_step, &step);
	if (error)
		step_failed(sweep, &before, error);
	else
		step_succeeded(sweep, now);
}

static void
free_if_over(Sweep *sweep)
{
	if (sweep->phase != SWEEP_OVER || (sweep->reader && sweep->reader->under_way > 0))
		return;
	dlist_delete(&sweep->node);
	MemoryContextDelete(sweep->context);
}

void
sweep(TimestampTz now)
{
	static MemoryContext context = NULL;
	MemoryContext		 old;
	dlist_mutable_iter	 iter;

	if (worker.leaving)
		return;
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "sendcampaign sweep errors",
										ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	if (sendcampaign_enabled)
		look_for_sweeps(now);
	dlist_foreach_modify (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (!sendcampaign_enabled) /* no process waits for that; its runs are still due */
			enter(sweep, SWEEP_OVER);
		advance(sweep, now);
		if (sweep->phase == SWEEP_READING)
			end_reading(sweep);
		free_if_over(sweep);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

void
ask_for_receipts(TimestampTz now, bool spare)
{
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (sweep->phase == SWEEP_READING)
			receipt_reader_ask(sweep->reader, now, spare);
	}
}

bool
sweep_has_work(TimestampTz now)
{
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		Sweep *sweep = dlist_container(Sweep, node, iter.cur);

		if (next_step(sweep, now) || (sweep->phase == SWEEP_GATHERING && next_look <= now))
			return true;
	}
	return false;
}

bool
sweeps_are_under_way(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &sweeps)
	{
		if (dlist_container(Sweep, node, iter.cur)->phase != SWEEP_OVER)
			return true;
	}
	return false;
}

bool
sweeps_are_waiting(void)
{
	return look_failures < MAX_FAILURES && sweeps_are_due(worker.role);
}
