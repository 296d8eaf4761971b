/*-------------------------------------------------------------------------
 *
 * next.c
 *	  What a run needs next: the decisions, but not the actions.
 *
 * The functions look at a run in memory, and change nothing.  tick.c does what
 * they decide.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "worker/batch.h"
#include "worker/locked_work.h"
#include "worker/lookup.h"
#include "worker/next.h"
#include "worker/read_back.h"

/* If senders have a rate, a claim is what they send in this many seconds. */
#define CLAIM_SECONDS 2

/* A claim that lasts for less, in ms, is made together with the next ones. */
#define SHORT_CLAIM_MS 40

/* Outcomes are recorded as soon as there are this many. */
#define RECORD_COUNT 1000

int
run_claim_size(const Run *run)
{
	const GroupConfig *group = run->campaign.group;
	double			   sent_meanwhile = group->rate * group->num_senders * CLAIM_SECONDS;

	return group->rate > 0 ? (int) Max(1, Min(BATCH_SIZE, sent_meanwhile)) : BATCH_SIZE;
}

/* Returns the number of ready messages with which none need to be claimed. */
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
 * Tells whether memory has room for another claim, so that this many are ready.
 * Messages that wait for a paused sender do not count, so that the others have
 * work; but only up to a limit, or messages would be claimed forever.
 */
static bool
has_room_for_claim(Run *run, TimestampTz now, int wanted)
{
	int enough = enough_ready(run);
	int blocked = run->num_ready > 0 ? run_num_blocked(run, now) : 0;

	return run->num_ready - blocked < wanted &&
		   run->open - run->num_done - run->num_agenda - blocked < 4 * enough + 2 * BATCH_SIZE &&
		   run->open < 4 * max_concurrency_here() + 16 * BATCH_SIZE;
}

/* Tells whether a batch may be taken, to be claimed or skipped, if the run needs one. */
static bool
may_take_batch(const Run *run, TimestampTz now)
{
	return !worker.leaving && sendcampaign_enabled && !run->exhausted &&
		   run->written == RUN_NO_PHASE && run->read_back == NULL &&
		   may_try_work(run, &run->claiming, now);
}

static bool
wants_ready(Run *run, TimestampTz now, int wanted)
{
	if (!may_take_batch(run, now))
		return false;
	if (run_is_cancelled(run))
		return true;
	return run_may_send(run) && run->next_at <= now &&
		   (run->account == NULL || run->account->paused_until <= now || run->num_ready == 0) &&
		   has_room_for_claim(run, now, wanted);
}

bool
wants_claim(Run *run, TimestampTz now)
{
	return wants_ready(run, now, enough_ready(run));
}

/* Tells whether the last claims have lasted for a moment only. */
static bool
claims_are_short(const Run *run, TimestampTz now)
{
	return run->account && run->campaign.group->rate <= 0 && run->claimed_at != 0 &&
		   !TimestampDifferenceExceeds(run->claimed_at, now, SHORT_CLAIM_MS * run->num_claimed);
}

bool
wants_claim_as_well(Run *run, TimestampTz now, int claims)
{
	int more = claims > 0 && claims_are_short(run, now) ? (CLAIMS_AT_ONCE - 1) * BATCH_SIZE : 0;

	return claims < CLAIMS_AT_ONCE && wants_ready(run, now, enough_ready(run) + more);
}

bool
run_wants_record(const Run *run)
{
	if (run->num_done >= RECORD_COUNT || (run->num_done > 0 && run->num_done == run->open))
		return true;
	if (run->num_ready > 0 && !run_may_send(run))
		return true; /* these must be put back */
	return run->phase == RUN_FAILING || (run_rules(run)->ticks && run->exhausted && run->open == 0);
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

/* Tells whether the outcomes of all claimed messages are in the tables, or in this transaction. */
static bool
all_is_recorded(Run *run)
{
	return run->open == count_list(&run->recorded) + count_list(&run->recorded_skips);
}

/* Returns what becomes of a run that would still send. */
static RunEnding
ending_of_sending(Run *run)
{
	if (run->exhausted && all_is_recorded(run))
		return RUN_COMPLETES;
	if (run->phase == RUN_HALTED && !run->exhausted)
		return RUN_IS_HALTED;
	if (run->next_at > GetCurrentTimestamp() && all_is_recorded(run))
		return RUN_SLEEPS;
	return RUN_GOES_ON;
}

RunEnding
run_ending(Run *run)
{
	bool unreadable = why_not_read_back(run) != NULL;

	if (worker.leaving)
		return RUN_GOES_ON;
	switch (run_next_phase(run))
	{
		case RUN_SENDING:
		case RUN_HALTED:
			return unreadable ? RUN_CANNOT_READ_BACK : ending_of_sending(run);
		case RUN_FAILING:
			return unreadable ? RUN_CANNOT_READ_BACK : RUN_FAILS;
		case RUN_CANCELLED:
			return run->read_back == NULL && run->exhausted && all_is_recorded(run)
					   ? RUN_IS_CANCELLED
					   : RUN_GOES_ON;
		default:
			return RUN_GOES_ON;
	}
}

/* Tells whether messages are still to be put back, or wait for locked list users. */
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

bool
run_is_through(Run *run)
{
	RunLeaving leaving = run_rules(run)->leaving;

	if (run->in_flight > 0 || read_back_is_under_way(run))
		return false; /* answers are still to come */
	if (leaving != LEAVES && run->num_done > 0)
		return false;
	switch (leaving)
	{
		case STAYS:
			return false;
		case LEAVES_IF_OFF:
			return !sendcampaign_enabled && run->open == 0;
		case LEAVES_IF_PUT_AWAY:
			return !has_to_put_away(run);
		case LEAVES_IF_SETTLED:
			return run->open == 0 || run->account == NULL || run->read_back || run->not_answered ||
				   only_others_are_waited_for(run);
		case LEAVES_IF_RECORDED:
		case LEAVES:
			return true;
	}
	return false;
}
