/*-------------------------------------------------------------------------
 *
 * message.c
 *	  A worker's messages and their states, and the claims that hold them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "worker/message.h"

char *
message_strdup(Message *message, const char *string)
{
	return string ? MemoryContextStrdup(message->claim->context, string) : NULL;
}

void
message_set_text(Message *message, const char *text, const char *link)
{
	const CampaignText *sent = &message->claim->run->campaign.text;

	message->text = message_strdup(message, text);
	message->link = message_strdup(message, link);
	message->content = sent->content_sid != NULL;
	message->has_media = sent->num_media > 0;
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
message_looking_up(Message *message, Account *account)
{
	leave_state(message);
	message->state = MESSAGE_LOOKING_UP;
	message->account = account;
	message->claim->run->in_flight++;
}

void
message_answered(Message *message)
{
	account_finished(message->account);
	message->claim->run->in_flight--;
}

void
message_recorded(Message *message, dlist_head *list)
{
	leave_state(message);
	message->state = MESSAGE_RECORDED;
	dlist_push_tail(list, &message->node);
}

void
message_drop(Message *message)
{
	leave_state(message);
	set_doubtful(message, false);
	message->state = MESSAGE_RECORDED; /* in no list */
}

Claim *
create_claim(Run *run, int count)
{
	MemoryContext context = AllocSetContextCreate(run->context, "sendcampaign claim",
												  ALLOCSET_DEFAULT_SIZES);
	Claim		 *claim = MemoryContextAllocZero(context, sizeof(Claim));

	claim->context = context;
	claim->run = run;
	claim->number = ++run->last_claim;
	claim->tentative = true;
	claim->claimed_at = GetCurrentTimestamp();
	claim->open = count;
	claim->num_messages = count;
	claim->messages = MemoryContextAllocZero(context, Max(count, 1) * sizeof(Message));
	for (int i = 0; i < count; i++)
	{
		claim->messages[i].claim = claim;
		claim->messages[i].state = MESSAGE_RECORDED; /* in no list yet */
	}
	dlist_push_tail(&run->claims, &claim->node);
	run->open += count;
	return claim;
}

void
free_claim(Claim *claim)
{
	dlist_delete(&claim->node);
	MemoryContextDelete(claim->context);
}

void
drop_claim(Claim *claim)
{
	Run *run = claim->run;

	for (int i = 0; i < claim->num_messages; i++)
	{
		Message *message = &claim->messages[i];

		Assert(message->state != MESSAGE_SENDING && message->state != MESSAGE_LOOKING_UP);
		if (message->state != MESSAGE_RECORDED)
			message_drop(message);
		run->open--;
	}
	free_claim(claim);
}

void
message_set_sender(Message *message, char *const *names, int count)
{
	const char *name = names[choose_sender(names, count, message->phone)];

	message->queue = run_queue(message->claim->run, message->claim->account, name);
}
