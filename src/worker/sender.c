/*-------------------------------------------------------------------------
 *
 * sender.c
 *	  When a sender may send the next message.
 *
 * A rate of n segments per second is kept by n slots.  A segment takes the
 * slot that was used longest ago, and that slot is free again a little more
 * than a second later: so no second sees more than n, wherever it begins.
 * Besides, messages are spaced evenly; time that was lost while the worker did
 * something else is made up for, as far as the slots allow.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/memutils.h"
#include "worker/sender.h"

#define US_PER_S 1000000.0

/*
 * Requests take different times to arrive, so that some arrive closer together
 * than they left: slots rest for 1 % longer than the rate requires.
 */
#define REST 1.01

/* At most this much lost time is made up for, in us. */
#define MAKE_UP_FOR 100000

/* With more slots, the rate would not be kept any better. */
#define MAX_SLOTS 4096

static dlist_head senders = DLIST_STATIC_INIT(senders);

int64
monotonic_time(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

Sender *
sender_get(const char *account, const char *name)
{
	dlist_iter	  iter;
	Sender		 *sender;
	MemoryContext old;

	dlist_foreach (iter, &senders)
	{
		sender = dlist_container(Sender, node, iter.cur);
		if (strcmp(sender->account, account) == 0 && strcmp(sender->name, name) == 0)
			return sender;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	sender = palloc0(sizeof(Sender));
	sender->account = pstrdup(account);
	sender->name = pstrdup(name);
	dlist_push_tail(&senders, &sender->node);
	MemoryContextSwitchTo(old);
	return sender;
}

void
sender_set_rate(Sender *sender, double rate)
{
	if (rate == sender->rate)
		return;
	if (sender->slots)
		pfree(sender->slots);
	sender->slots = NULL;
	sender->rate = rate;
	if (rate <= 0)
		return;
	sender->num_slots = (int) Max(1, Min(MAX_SLOTS, rate));
	sender->slots = MemoryContextAllocZero(TopMemoryContext, sender->num_slots * sizeof(int64));
	sender->next_slot = 0;
	/* nobody knows when an earlier worker, or this one at another rate, last sent */
	sender->due = monotonic_time() + (int64) (US_PER_S / rate);
}

int64
sender_due(const Sender *sender, int segments)
{
	int last;

	if (sender->rate <= 0)
		return 0;
	/* slots become free in turn */
	last = (sender->next_slot + Min(segments, sender->num_slots) - 1) % sender->num_slots;
	return Max(sender->due, sender->slots[last]);
}

void
sender_used(Sender *sender, int segments, int64 now)
{
	int64 rest;

	if (sender->rate <= 0)
		return;
	rest = (int64) (sender->num_slots / sender->rate * REST * US_PER_S);
	for (int i = 0; i < segments; i++)
	{
		int64 *slot = &sender->slots[sender->next_slot];

		*slot = Max(*slot, now) + rest;
		sender->next_slot = (sender->next_slot + 1) % sender->num_slots;
	}
	sender->due = Max(sender->due, now - MAKE_UP_FOR) +
				  (int64) (segments / sender->rate * US_PER_S);
}
