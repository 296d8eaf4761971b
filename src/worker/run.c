/*-------------------------------------------------------------------------
 *
 * run.c
 *	  The runs that a worker holds in memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/spi.h"
#include "utils/memutils.h"
#include "worker/run.h"

Worker worker;

/* Returns the sender's rate: if runs disagree about it, the lowest one. */
static double
lowest_rate(const Sender *sender)
{
	dlist_iter r;
	dlist_iter q;
	double	   lowest = 0;

	dlist_foreach (r, &worker.runs)
	{
		Run	  *run = dlist_container(Run, node, r.cur);
		double rate = run->campaign.group ? run->campaign.group->rate : 0;

		dlist_foreach (q, &run->queues)
		{
			if (dlist_container(SendQueue, node, q.cur)->sender == sender && rate > 0 &&
				(lowest == 0 || rate < lowest))
				lowest = rate;
		}
	}
	return lowest;
}

void
run_use_group(Run *run, GroupConfig *group, MemoryContext context)
{
	MemoryContext old;
	dlist_iter	  iter;

	if (run->group_context)
		MemoryContextDelete(run->group_context);
	run->group_context = context;
	run->campaign.group = group;
	old = MemoryContextSwitchTo(run->context);
	campaign_sign_links(&run->campaign, run->schema, group->sign_links);
	MemoryContextSwitchTo(old);
	run->account = account_get(group);
	/* without a rate, queues are created for the senders that are used */
	for (int i = 0; group->rate > 0 && i < group->num_senders; i++)
		(void) run_queue(run, group->account, group->senders[i]);
	dlist_foreach (iter, &run->queues)
	{
		Sender *sender = dlist_container(SendQueue, node, iter.cur)->sender;

		if (group->rate > 0 || sender->rate > 0)
			sender_set_rate(sender, lowest_rate(sender));
	}
}

int
run_num_blocked(Run *run, TimestampTz now)
{
	dlist_iter iter;
	int		   count = 0;

	dlist_foreach (iter, &run->queues)
	{
		SendQueue *queue = dlist_container(SendQueue, node, iter.cur);

		if (queue->sender->paused_until > now)
			count += queue->num_ready;
	}
	return count;
}

SendQueue *
run_queue(Run *run, const char *account, const char *name)
{
	Sender	  *sender = sender_get(account, name);
	dlist_iter iter;
	SendQueue *queue;

	dlist_foreach (iter, &run->queues)
	{
		queue = dlist_container(SendQueue, node, iter.cur);
		if (queue->sender == sender)
			return queue;
	}
	queue = MemoryContextAllocZero(run->context, sizeof(SendQueue));
	queue->sender = sender;
	dlist_init(&queue->ready);
	dlist_push_tail(&run->queues, &queue->node);
	/* whoever has set a rate may have gone */
	if (sender->rate > 0)
		sender_set_rate(sender, lowest_rate(sender));
	return queue;
}

void
run_count_doubt(Run *run, int change)
{
	run->num_doubtful += change;
	worker.num_doubtful += change;
}

void
run_begin(Run *run, bool cancelled)
{
	run->phase = cancelled ? RUN_CANCELLED : RUN_SENDING;
}

void
run_stop(Run *run, const char *reason)
{
	if (run->stop_reason == NULL)
		run->stop_reason = MemoryContextStrdup(run->context, reason);
	if (run->phase == RUN_SENDING || run->phase == RUN_HALTED || run->phase == RUN_PAUSED)
		run->phase = RUN_FAILING;
}

void
run_halt(Run *run)
{
	if (run->phase == RUN_SENDING)
		run->phase = RUN_HALTED;
}

/*
 * While the open transaction has written a phase, it has the row locked, and
 * nobody else can have changed the state.  A run that is cancelled after it
 * could not be taken up is adopted anew, as its claims may not be in memory.
 */
bool
run_follow(Run *run, RunState state)
{
	RunPhase before = run->phase;

	if (run->written != RUN_NO_PHASE)
		return false;
	run->phase = phase_after(before, state);
	if (run->phase == RUN_CANCELLED && !run->taken_up)
		run->phase = RUN_SUPERSEDED;
	if (run->phase == RUN_SENDING && run->stop_reason)
		run->phase = RUN_FAILING;
	return run->phase != before;
}

void
run_wrote(Run *run, RunPhase phase)
{
	run->written = phase;
}

void
run_committed(Run *run)
{
	run->phase = run_next_phase(run);
	run->written = RUN_NO_PHASE;
}

void
run_rolled_back(Run *run)
{
	run->written = RUN_NO_PHASE;
}

/* Copies first, as the value may be the old string. */
void
replace_string(MemoryContext context, char **place, const char *value)
{
	char *old = *place;

	*place = value ? MemoryContextStrdup(context, value) : NULL;
	if (old)
		pfree(old);
}

void
run_announce(Run *run, const char *announcement)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	run->announcements = lappend(run->announcements, pstrdup(announcement));
	MemoryContextSwitchTo(old);
}

void
run_set_trouble(Run *run, const char *reason)
{
	replace_string(run->context, &run->notice.trouble, reason);
}

Datum
ids_of_runs(void)
{
	Datum	  *ids = palloc(Max(worker.num_runs, 1) * sizeof(Datum));
	int		   count = 0;
	dlist_iter iter;

	dlist_foreach (iter, &worker.runs)
		ids[count++] = Int64GetDatum(dlist_container(Run, node, iter.cur)->id);
	return make_array(ids, NULL, count, INT8OID);
}
