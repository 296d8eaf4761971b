/*-------------------------------------------------------------------------
 *
 * next.c
 *	  What a run needs next: the decisions, and nothing that is done about them.
 *
 * Each function looks at a run in memory and changes nothing.  What they decide
 * is done in tick.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "worker/batch.h"
#include "worker/lookup.h"
#include "worker/next.h"
#include "worker/read_back.h"

/* Where senders have a rate, a claim is what they send in so many seconds. */
#define CLAIM_SECONDS 2

/* Outcomes are recorded when they are so many. */
#define RECORD_COUNT 1000

/* How many messages are to be claimed at once: few for a slow sender. */
int
run_claim_size(const Run *run)
{
	const GroupConfig *group = run->campaign.group;
	double			   sent_meanwhile = group->rate * group->num_senders * CLAIM_SECONDS;

	return group->rate > 0 ? (int) Max(1, Min(BATCH_SIZE, sent_meanwhile)) : BATCH_SIZE;
}

/* With so many messages ready, none need be claimed. */
static int
enough_ready(const Run *run)
{
	if (run->account == NULL)
		return 1;
	if (run->campaign.group->rate > 0)
		return (run_claim_size(run) + 1) / 2;
	return Max(run->account->window, BATCH_SIZE / 2);
}

/*
 * What waits for a sender who pauses is not ready; but so much of it is not
 * to keep others claiming for ever.
 */
static bool
has_room_for_claim(Run *run, TimestampTz now)
{
	int enough = enough_ready(run);
	int blocked = run->num_ready > 0 ? run_num_blocked(run, now) : 0;

	return run->num_ready - blocked < enough &&
		   run->open - run->num_done - run->num_agenda - blocked < 4 * enough + 2 * BATCH_SIZE &&
		   run->open < 4 * sendcampaign_max_concurrency + 16 * BATCH_SIZE;
}

static bool
wants_skipping(const Run *run, TimestampTz now)
{
	return !worker.leaving && sendcampaign_enabled && !run->exhausted && !run->finished &&
		   !run->superseded && run->read_back == NULL && run->claiming.until <= now;
}

bool
wants_claim(Run *run, TimestampTz now)
{
	if (run->cancelled)
		return wants_skipping(run, now);
	return !worker.leaving && sendcampaign_enabled && !run->exhausted && !run->finished &&
		   run_may_send(run) && run->read_back == NULL && run->claiming.until <= now &&
		   run->next_at <= now &&
		   (run->account == NULL || run->account->paused_until <= now || run->num_ready == 0) &&
		   has_room_for_claim(run, now);
}

bool
run_wants_record(const Run *run)
{
	if (run->num_done >= RECORD_COUNT || (run->num_done > 0 && run->num_done == run->open))
		return true;
	if (run->num_ready > 0 && !run_may_send(run))
		return true; /* to be given back */
	if (run->stop_reason && !run->stop_recorded && !run->cancelled)
		return true;
	return run->exhausted && run->open == 0 && (run->stop_reason == NULL || run->cancelled);
}

static int
count_list(dlist_head *list)
{
	dlist_iter iter;
	int		   count = 0;

	dlist_foreach (iter, list)
		count++;
	return count;
}

/* Are the outcomes of all of its messages in the tables, or in this transaction? */
static bool
all_is_recorded(Run *run)
{
	return run->open == count_list(&run->recorded) + count_list(&run->recorded_skips);
}

RunEnding
run_ending(Run *run)
{
	if (run->finished || run->superseded || worker.leaving)
		return RUN_GOES_ON;
	if (run->cancelled)
		return run->read_back == NULL && run->exhausted && all_is_recorded(run) ? RUN_IS_CANCELLED
																				: RUN_GOES_ON;
	if (why_not_read_back(run))
		return RUN_CANNOT_READ_BACK;
	if (run->stop_reason)
		return run->stop_recorded ? RUN_GOES_ON : RUN_FAILS;
	if (run->paused)
		return RUN_GOES_ON;
	if (run->exhausted && all_is_recorded(run))
		return RUN_COMPLETES;
	if (run->halted && !run->exhausted)
		return RUN_IS_HALTED;
	if (run->next_at > GetCurrentTimestamp() && all_is_recorded(run))
		return RUN_SLEEPS;
	return RUN_GOES_ON;
}

/* Is there a message to be given back, or an outcome of a locked list user? */
static bool
has_to_put_away(Run *run)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		for (int i = 0; i < claim->num_messages; i++)
		{
			const Message *message = &claim->messages[i];

			if (may_be_released(message) || message->state == MESSAGE_LOCKED)
				return true;
		}
	}
	return false;
}

/*
 * Is there nothing left to do for this run, here and now?  What stays in
 * doubt then is claimed still, for when it goes on.
 */
bool
run_is_through(Run *run)
{
	if (run->in_flight > 0 || read_back_is_under_way(run))
		return false; /* answers are still to come */
	if (run->finished || run->asleep || run->forgotten || run->unrecordable)
		return true;
	if (run->num_done > 0)
		return false;
	if (run->superseded)
		return true;
	if (run->stop_durable)
		return run->open == 0 || run->account == NULL || run->read_back || run->not_answered ||
			   only_others_are_waited_for(run);
	if (run->paused)
		return run->stop_reason == NULL && !has_to_put_away(run);
	return !sendcampaign_enabled && run->open == 0 && (run->stop_reason == NULL || run->cancelled);
}
