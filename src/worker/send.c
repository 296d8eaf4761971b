/*-------------------------------------------------------------------------
 *
 * send.c
 *	  Hands messages to HTTP and takes the answers.
 *
 * No transaction is open here, and nothing here touches the database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "campaign/segments.h"
#include "database/attempt.h"
#include "settings.h"
#include "twilio/classify.h"
#include "twilio/request.h"
#include "utils/memutils.h"
#include "worker/failure_limit.h"
#include "worker/freshness.h"
#include "worker/run_attempt.h"
#include "worker/lookup.h"
#include "worker/message.h"
#include "worker/read_back.h"
#include "worker/send.h"

/* More than any answer to a new message has. */
#define MAX_ANSWER_BYTES (64 * 1024)

/* So many refusals for the text, with nothing sent, stop the run. */
#define MAX_TEXT_FAILURES 20

/* URL and form of the request being made; and memory for one answer. */
static StringInfoData url;
static StringInfoData form;
static MemoryContext  answer_context;

static int64 pace_now; /* monotonic time of this round */
static bool	 growing;  /* more may be sent in a moment */

static int
compare_due(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(Message, agenda_node, a)->due;
	TimestampTz y = pairingheap_const_container(Message, agenda_node, b)->due;

	return x < y ? 1 : x > y ? -1 : 0;
}

void
send_init(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	dlist_init(&worker.runs);
	worker.agenda = pairingheap_allocate(compare_due, NULL);
	initStringInfo(&url);
	initStringInfo(&form);
	answer_context = AllocSetContextCreate(TopMemoryContext, "sendcampaign answer",
										   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
}

/* What the message takes of its sender's rate. */
static int
message_segments(const Message *message)
{
	SegmentCount count;

	if (message->queue->sender->rate <= 0)
		return 0;
	count_segments(message->text, &count);
	return Max(1, count.segments);
}

static bool
start_message(Message *message)
{
	Account *account = message->claim->run->account;

	resetStringInfo(&url);
	resetStringInfo(&form);
	append_messages_url(&url, account->sid);
	append_create_form(&form, message->queue->sender->name, message->phone, message->text);
	if (!account_start(account, url.data, &form, MAX_ANSWER_BYTES, message))
		return false;
	sender_used(message->queue->sender, message_segments(message), pace_now);
	message_sending(message, account);
	return true;
}

/* The next message of a sender that may send it; NULL for none. */
static Message *
next_message(Run *run, TimestampTz now)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->queues)
	{
		SendQueue *queue = dlist_container(SendQueue, node, iter.cur);
		Message	  *message;

		if (dlist_is_empty(&queue->ready) || queue->sender->paused_until > now)
			continue;
		message = dlist_head_element(Message, node, &queue->ready);
		if (sender_due(queue->sender, message_segments(message)) > pace_now)
			continue;
		/* the others are first next time */
		if (dlist_has_next(&run->queues, &queue->node))
		{
			dlist_delete(&queue->node);
			dlist_push_tail(&run->queues, &queue->node);
		}
		return message;
	}
	return NULL;
}

/* Starts the look-up of one message in doubt, if it may. */
static bool
look_up_one(Run *run)
{
	if (dlist_is_empty(&run->lookups) || run->read_back || run->not_answered || run->paused)
		return false;
	return start_lookup(dlist_head_element(Message, node, &run->lookups));
}

/*
 * Where some of the run's messages are in doubt, its last one waits until all
 * of them have arrived or never will: then it is the later message that a
 * look-up which does not find them needs.
 */
static bool
is_held_back(const Run *run)
{
	return run->num_doubtful > 0 && run->num_ready == 1 && run->doubt_until > pace_now &&
		   (run->exhausted || run->next_at != 0);
}

/* Starts one message of the run, if it may. */
static bool
send_one(Run *run, TimestampTz now)
{
	Message *message = run->num_ready > 0 && run_may_send(run) ? next_message(run, now) : NULL;

	if (message == NULL || is_held_back(run))
		return false;
	if (strcmp(message->claim->account_sid, run->account->sid) != 0)
	{
		/* claimed for an account that the group no longer has */
		message_done(message, OUTCOME_RELEASED);
		return true;
	}
	if (message->until != 0 && message->until <= now)
	{
		/* it was claimed by day, or in time, and waited for too long */
		message_done(message, OUTCOME_RELEASED);
		return true;
	}
	return start_message(message);
}

/* One request of the run, its sends and look-ups in turn; false for none. */
static bool
start_one(Run *run, TimestampTz now)
{
	/* a run that is just being taken up may be let go again */
	if (run->account == NULL || run->tentative || !account_has_room(run->account, now))
		return false;
	run->lookup_turn = !run->lookup_turn;
	if (run->lookup_turn)
		return look_up_one(run) || send_one(run, now);
	return send_one(run, now) || look_up_one(run);
}

void
send_ready(void)
{
	TimestampTz	  now = GetCurrentTimestamp();
	bool		  sent = true;
	dlist_iter	  iter;
	MemoryContext old;

	growing = false;
	if (worker.leaving || !sendcampaign_enabled)
		return;
	old = MemoryContextSwitchTo(answer_context);
	pace_now = monotonic_time();
	growing = accounts_grow();
	dlist_foreach (iter, &worker.runs)
		read_back_more(dlist_container(Run, node, iter.cur), now);
	ask_control_questions(now);
	while (sent)
	{
		sent = false;
		dlist_foreach (iter, &worker.runs)
			sent |= start_one(dlist_container(Run, node, iter.cur), now);
	}
	/* the one served first now is served last next time */
	if (worker.num_runs > 1)
		dlist_push_tail(&worker.runs, dlist_pop_head_node(&worker.runs));
	MemoryContextReset(answer_context);
	MemoryContextSwitchTo(old);
}

static void
describe_error(Message *message, const Verdict *verdict)
{
	message->error_code = verdict->error_code;
	message->error_message = message_strdup(message, verdict->error_message);
}

static void
sent(Message *message, const Verdict *verdict)
{
	message->sid = message_strdup(message, verdict->sid);
	message->segments = verdict->segments;
	message->error_code = 0;
	message->error_message = NULL;
	message->claim->run->any_sent = true;
	count_verdict(message->claim->run, false);
	message->queue->sender->back_pressure = 0;
	if (worker.num_doubtful > 0 || message->account->freshness == NULL)
		remember_accepted(message);
	message_done(message, OUTCOME_SENT);
}

static void
failed(Message *message, const Verdict *verdict)
{
	Run *run = message->claim->run;

	describe_error(message, verdict);
	message_done(message, OUTCOME_FAILED);
	count_verdict(run, true);
	if (verdict->kind == VERDICT_TEXT_FAILED && !run->any_sent &&
		!template_is_personal(run->campaign.template) && ++run->text_failures >= MAX_TEXT_FAILURES)
		run_stop(run, reason_text(psprintf("Twilio refuses the text: %d %s", verdict->error_code,
										   verdict->error_message),
								  psprintf("It was refused for the first %d recipients.",
										   MAX_TEXT_FAILURES),
								  "Change the campaign's message, and " SEND_AGAIN "."));
}

static bool
is_back_pressure(int code)
{
	return code == 21611 || code == 21730 || code == 30001;
}

/* Twilio did not take it, and says that it may later. */
static void
try_later(Message *message, const Verdict *verdict)
{
	Sender	   *sender = message->queue->sender;
	TimestampTz now = GetCurrentTimestamp();
	int			delay = backoff_delay(message->attempts - 1);

	if (verdict->retry_after > 0)
		delay = verdict->retry_after * 1000 + delay / 4;
	if (is_back_pressure(verdict->error_code))
		sender->paused_until = TimestampTzPlusMilliseconds(
			now, Max(delay, backoff_delay(sender->back_pressure++)));
	else if (verdict->error_code == 20429 || verdict->error_code == 429)
		account_overloaded(message->account);
	if (message->attempts < sendcampaign_max_attempts)
	{
		message_wait(message, MESSAGE_WAITING, TimestampTzPlusMilliseconds(now, delay));
		return;
	}
	message->error_code = verdict->error_code;
	message->error_message = message_strdup(
		message,
		psprintf("given up after %d attempts: %s", message->attempts, verdict->error_message));
	message_done(message, OUTCOME_FAILED);
	count_verdict(message->claim->run, false); /* no fault of the list's */
}

/* It never left, so this does not count as an attempt. */
static void
not_reached(Message *message, const Verdict *verdict)
{
	account_unreachable(message->account, verdict->error_message);
	message->attempts--;
	message_ready(message);
}

static void
refused_for_all(Message *message, const Verdict *verdict)
{
	Run *run = message->claim->run;

	/* credentials that have been replaced meanwhile say nothing of the new */
	if (run->account != message->account)
	{
		message_ready(message);
		return;
	}
	run_stop(run, reason_text(psprintf("Twilio refuses the account or sender: %d %s",
									   verdict->error_code, verdict->error_message),
							  NULL, MEND_ACCOUNT_HINT));
	message_done(message, OUTCOME_RELEASED);
}

static void
apply_verdict(Message *message, const Verdict *verdict)
{
	if (verdict->kind != VERDICT_UNREACHABLE && verdict->kind != VERDICT_RETRY &&
		verdict->kind != VERDICT_DOUBT)
		account_answered(message->account);
	switch (verdict->kind)
	{
		case VERDICT_SENT:
			sent(message, verdict);
			break;
		case VERDICT_FAILED:
		case VERDICT_TEXT_FAILED:
			failed(message, verdict);
			break;
		case VERDICT_RETRY:
			try_later(message, verdict);
			break;
		case VERDICT_UNREACHABLE:
			not_reached(message, verdict);
			break;
		case VERDICT_DOUBT:
			if (verdict->error_code == 0)
				account_overloaded(message->account); /* no answer in time */
			describe_error(message, verdict);
			doubt(message, verdict->error_message);
			break;
		case VERDICT_STOP:
			refused_for_all(message, verdict);
			break;
	}
}

static void
take_answer(const HttpResponse *response)
{
	Message *message = response->tag;
	Verdict	 verdict;

	if (*(CallKind *) response->tag == CALL_READ_BACK)
	{
		take_read_back_answer(response->tag, response);
		return;
	}
	if (*(CallKind *) response->tag == CALL_CONTROL)
	{
		follow_control_answer(response->tag, response);
		return;
	}
	message_answered(message);
	if (response->server_time > 0)
	{
		worker.twilio_offset = response->server_time - time(NULL);
		worker.twilio_offset_known = true;
	}
	if (message->state == MESSAGE_LOOKING_UP)
	{
		take_lookup_answer(message, response);
		return;
	}
	classify(response, &verdict);
	apply_verdict(message, &verdict);
}

int
take_answers(void)
{
	HttpResponse  response;
	int			  count = 0;
	MemoryContext old = MemoryContextSwitchTo(answer_context);

	while (http_next(&response))
	{
		take_answer(&response);
		MemoryContextReset(answer_context);
		count++;
	}
	MemoryContextSwitchTo(old);
	return count;
}

/* Null where nothing is due. */
static Message *
first_due(TimestampTz now)
{
	Message *message;

	if (pairingheap_is_empty(worker.agenda))
		return NULL;
	message = pairingheap_container(Message, agenda_node, pairingheap_first(worker.agenda));
	return message->due <= now ? message : NULL;
}

void
follow_agenda(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Message	   *message;

	while ((message = first_due(now)) != NULL)
	{
		if (message->state == MESSAGE_WAITING)
			message_ready(message);
		else if (message->state == MESSAGE_LOCKED)
			message_done(message, message->outcome);
		else
			message_lookup_ready(message);
	}
}

/* The earlier one of next and time, where time is still to come. */
static TimestampTz
earlier(TimestampTz next, TimestampTz time, TimestampTz now)
{
	if (time <= now)
		return next;
	return next == 0 ? time : Min(next, time);
}

/* When one of the run's senders may send its next message; 0 for now or never. */
static TimestampTz
next_message_time(Run *run, TimestampTz now)
{
	TimestampTz next = 0;
	dlist_iter	iter;

	dlist_foreach (iter, &run->queues)
	{
		SendQueue *queue = dlist_container(SendQueue, node, iter.cur);
		Message	  *message;
		int64	   wait;

		if (dlist_is_empty(&queue->ready))
			continue;
		message = dlist_head_element(Message, node, &queue->ready);
		wait = sender_due(queue->sender, message_segments(message)) - monotonic_time();
		next = earlier(next, Max(queue->sender->paused_until, now + Max(0, wait)), now);
	}
	return next;
}

TimestampTz
next_send_time(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = 0;
	dlist_iter	iter;

	if (growing)
		return TimestampTzPlusMilliseconds(now, 1);
	if (!pairingheap_is_empty(worker.agenda))
		next = pairingheap_container(Message, agenda_node, pairingheap_first(worker.agenda))->due;
	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (run->num_ready == 0 && run->read_back == NULL && dlist_is_empty(&run->lookups))
			continue;
		next = earlier(next, next_message_time(run, now), now);
		if (run->account)
			next = earlier(next, run->account->paused_until, now);
	}
	return next;
}

void
release_unsent(Run *run)
{
	dlist_iter iter;

	if (run->cancelled)
		give_up_found(run);
	dlist_foreach (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		for (int i = 0; i < claim->num_messages; i++)
		{
			Message *message = &claim->messages[i];

			if (may_be_released(message))
				message_done(message, OUTCOME_RELEASED);
		}
	}
}
