/*-------------------------------------------------------------------------
 *
 * run.c
 *	  What a worker holds in memory: accounts, runs, claims, messages.
 *
 * How many requests may be in flight follows what the account shows it can
 * take.  The window grows by two with each good answer, but not by all of that
 * at once, until Twilio first says "too many" (429); it shrinks by one for each
 * such answer, which brings it to the limit.  From then on it tries one more after some
 * windows full of good answers: two at first, twice as many each time that this
 * meets the limit again, so that few requests do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "http.h"
#include "run.h"
#include "settings.h"
#include "utils/memutils.h"

#define FIRST_WINDOW   10
#define FIRST_GROWTH   20 /* without any answer yet */
#define FIRST_PATIENCE 2  /* windows full of good answers */
#define MAX_PATIENCE   64 /* some seconds */

/*
 * A first window full of answers comes all at once.  Growing a little at a
 * time, most of what would be too many is still to be sent when it shows.
 */
#define GROWTH_INTERVAL 1000 /* us */
#define MAX_GROWTH		4
#define BACKOFF_BASE_MS 1000
#define BACKOFF_MAX_MS	60000

Worker worker;

Account *
account_get(const char *sid, const char *user, const char *secret)
{
	dlist_iter	  iter;
	Account		 *account;
	MemoryContext old;

	dlist_foreach (iter, &worker.accounts)
	{
		account = dlist_container(Account, node, iter.cur);
		if (strcmp(account->sid, sid) == 0 && strcmp(account->user, user) == 0 &&
			strcmp(account->secret, secret) == 0)
			return account;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	account = palloc0(sizeof(Account));
	account->sid = pstrdup(sid);
	account->user = pstrdup(user);
	account->secret = pstrdup(secret);
	account->window = Min(FIRST_WINDOW, sendcampaign_max_concurrency);
	account->growing_fast = true;
	account->growth = Min(FIRST_GROWTH, sendcampaign_max_concurrency - account->window);
	account->patience = FIRST_PATIENCE;
	dlist_push_tail(&worker.accounts, &account->node);
	MemoryContextSwitchTo(old);
	return account;
}

bool
account_start(Account *account, const char *url, const StringInfoData *form, int max_response,
			  void *tag)
{
	HttpRequest request = {
		.url = url,
		.user = account->user,
		.password = account->secret,
		.body = form ? form->data : NULL,
		.body_length = form ? form->len : 0,
		.timeout = to_ms(sendcampaign_request_timeout),
		.connect_timeout = to_ms(sendcampaign_connect_timeout),
		.max_response = max_response,
		.ca_file = sendcampaign_ca_file,
		.tag = tag,
	};

	if (!http_start(&request))
		return false;
	account->in_flight++;
	return true;
}

/* Has what was tried last gone well for long enough to try one more? */
static void
grow_slowly(Account *account)
{
	account->answers++;
	if (account->probing && account->answers >= account->window)
	{
		account->probing = false;
		account->patience = FIRST_PATIENCE;
	}
	if (account->answers < account->patience * account->window)
		return;
	account->answers = 0;
	account->probing = true;
	account->window++;
}

void
account_answered(Account *account)
{
	account->failures = 0;
	account->paused_until = 0;
	if (account->trouble)
		pfree(account->trouble);
	account->trouble = NULL;
	if (account->window >= sendcampaign_max_concurrency)
		return;
	if (account->growing_fast)
		account->growth = Min(account->growth + 2, sendcampaign_max_concurrency - account->window);
	else
		grow_slowly(account);
}

void
account_overloaded(Account *account)
{
	if (account->probing)
		account->patience = Min(2 * account->patience, MAX_PATIENCE);
	account->probing = false;
	account->growing_fast = false;
	account->growth = 0;
	account->answers = 0;
	account->window = Max(1, Min(account->window, account->in_flight + 1) - 1);
}

void
account_unreachable(Account *account, const char *reason)
{
	TimestampTz now = GetCurrentTimestamp();

	/* requests that were under way together count as one failure */
	if (account->paused_until > now)
		return;
	account->window = 1;
	account->growth = 0;
	account->growing_fast = true;
	account->paused_until = TimestampTzPlusMilliseconds(now,
														200 + backoff_delay(account->failures++));
	if (account->trouble && strcmp(account->trouble, reason) == 0)
		return;
	if (account->trouble)
		pfree(account->trouble);
	account->trouble = MemoryContextStrdup(TopMemoryContext, reason);
}

void
accounts_try_now(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &worker.accounts)
		dlist_container(Account, node, iter.cur)->paused_until = 0;
}

static void
account_grow(Account *account, int64 now)
{
	int64 steps = (now - account->grown_at) / GROWTH_INTERVAL;
	int	  growth = (int) Min(Min(steps, MAX_GROWTH), account->growth);

	if (growth == 0)
		return;
	account->window = Min(account->window + growth, sendcampaign_max_concurrency);
	account->growth -= growth;
	account->grown_at = now;
}

bool
accounts_grow(void)
{
	dlist_iter iter;
	bool	   more = false;

	dlist_foreach (iter, &worker.accounts)
	{
		Account *account = dlist_container(Account, node, iter.cur);

		if (account->growth > 0)
			account_grow(account, monotonic_time());
		more |= account->growth > 0;
	}
	return more;
}

bool
account_has_room(const Account *account, TimestampTz now)
{
	return account->in_flight < Min(account->window, sendcampaign_max_concurrency) &&
		   account->paused_until <= now;
}

/* Where runs disagree on a sender's rate, the lowest holds. */
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
	if (run->group_context)
		MemoryContextDelete(run->group_context);
	run->group_context = context;
	run->campaign.group = group;
	run->account = account_get(group->account_sid, group->user, group->secret);
	for (int i = 0; i < group->num_senders; i++)
	{
		Sender *sender = run_queue(run, group->account_sid, group->senders[i])->sender;

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
run_queue(Run *run, const char *account_sid, const char *name)
{
	Sender	  *sender = sender_get(account_sid, name);
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
	return queue;
}

char *
message_strdup(Message *message, const char *string)
{
	return string ? MemoryContextStrdup(message->claim->context, string) : NULL;
}

void
run_count_doubt(Run *run, int change)
{
	run->num_doubtful += change;
	worker.num_doubtful += change;
}

static void
set_doubtful(Message *message, bool doubtful)
{
	Run *run = message->claim->run;

	if (doubtful)
		run->doubt_until = Max(run->doubt_until, message->gone_at);
	if (message->doubtful != doubtful)
		run_count_doubt(run, doubtful ? 1 : -1);
	message->doubtful = doubtful;
}

static void
leave_state(Message *message)
{
	Run *run = message->claim->run;

	switch (message->state)
	{
		case MESSAGE_READY:
			dlist_delete(&message->node);
			message->queue->num_ready--;
			run->num_ready--;
			break;
		case MESSAGE_WAITING:
		case MESSAGE_IN_DOUBT:
		case MESSAGE_LOCKED:
			pairingheap_remove(worker.agenda, &message->agenda_node);
			run->num_agenda--;
			break;
		case MESSAGE_LOOKUP_READY:
			dlist_delete(&message->node);
			run->num_agenda--;
			break;
		case MESSAGE_DONE:
			dlist_delete(&message->node);
			run->num_done--;
			break;
		default:
			break;
	}
}

void
message_done(Message *message, Outcome outcome)
{
	Run *run = message->claim->run;

	leave_state(message);
	message->state = MESSAGE_DONE;
	message->outcome = outcome;
	if (outcome != OUTCOME_FOUND)
		set_doubtful(message, false);
	dlist_push_tail(&run->done, &message->node);
	run->num_done++;
}

void
message_wait(Message *message, MessageState state, TimestampTz due)
{
	leave_state(message);
	message->state = state;
	message->due = due;
	if (state == MESSAGE_IN_DOUBT)
		set_doubtful(message, true);
	pairingheap_add(worker.agenda, &message->agenda_node);
	message->claim->run->num_agenda++;
}

void
message_lookup_ready(Message *message)
{
	Run *run = message->claim->run;

	leave_state(message);
	message->state = MESSAGE_LOOKUP_READY;
	dlist_push_tail(&run->lookups, &message->node);
	run->num_agenda++;
}

void
message_ready(Message *message)
{
	Run *run = message->claim->run;

	leave_state(message);
	message->state = MESSAGE_READY;
	message->outcome = OUTCOME_NONE;
	message->suspect = false;
	set_doubtful(message, false);
	dlist_push_tail(&message->queue->ready, &message->node);
	message->queue->num_ready++;
	run->num_ready++;
}

void
message_sending(Message *message, Account *account)
{
	leave_state(message);
	message->state = MESSAGE_SENDING;
	message->account = account;
	message->attempts++;
	message->left_at = monotonic_time();
	message->claim->run->in_flight++;
}

void
run_stop(Run *run, const char *reason)
{
	if (run->stop_reason == NULL)
		run->stop_reason = MemoryContextStrdup(run->context, reason);
}

int
backoff_delay(int failures)
{
	int most = BACKOFF_MAX_MS;

	if (failures < 6)
		most = Min(most, BACKOFF_BASE_MS << failures);
	return (int) (pg_prng_double(&pg_global_prng_state) * most);
}
