/*-------------------------------------------------------------------------
 *
 * send.c
 *	  Passes messages to HTTP and takes the answers.
 *
 * Nothing here uses the database, so that no lock is held while we wait for
 * Twilio.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "campaign/recipient.h"
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
#include "worker/receipt_reader.h"
#include "worker/send.h"
#include "worker/sweep.h"

/* More than any answer to a new message needs. */
#define MAX_ANSWER_BYTES (64 * 1024)

/* The run fails if Twilio refuses the text this often before it has accepted any message. */
#define MAX_TEXT_FAILURES 20

/* The URL and the form of the request being made, and memory for one answer. */
static StringInfoData url;
static StringInfoData form;
static MemoryContext  answer_context;

static int64 pace_now; /* monotonic time of this round, us */
static bool	 growing;  /* true if more may be sent in a moment */

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

/* Returns how much of its sender's rate the message uses; 0 if there is no limit. */
static int
message_segments(const Message *message)
{
	SegmentCount count;

	if (message->queue->sender->rate <= 0)
		return 0;
	(void) campaign_count_segments(&message->claim->run->campaign, message->queue->sender->name,
								   message->text, &count);
	return Max(1, count.segments);
}

/* Returns for how long the message may wait at Twilio from now on, in seconds; 0: no limit. */
static int
validity_of(const Message *message)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = Min(message->until, now + MAX_VALIDITY * USECS_PER_SEC);

	return message->until == 0 ? 0 : (int) Max(1, (until - now) / USECS_PER_SEC);
}

static bool
start_message(Message *message)
{
	Account		  *account = message->claim->run->account;
	Campaign	  *campaign = &message->claim->run->campaign;
	MessageRequest request = {.sender = message->queue->sender->name,
							  .phone = message->phone,
							  .text = message->text,
							  .content_sid = campaign->text.content_sid,
							  .media_urls = campaign->media_urls,
							  .num_media = campaign->text.num_media,
							  .smart_encoded = campaign->group->smart_encoded,
							  .validity = validity_of(message),
							  .status_callback = campaign->group->status_callback};

	/* what is not on disk as claimed must not be sent */
	Assert(!message->claim->tentative);
	resetStringInfo(&url);
	resetStringInfo(&form);
	append_messages_url(&url, account->host, account->sid);
	append_create_form(&form, &request);
	if (!account_start(account, url.data, &form, MAX_ANSWER_BYTES, message))
		return false;
	sender_used(message->queue->sender, message_segments(message), pace_now);
	message_sending(message, account);
	return true;
}

/* Returns the next message that its sender may send now, or NULL. */
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
		/* next time, the other senders come first */
		if (dlist_has_next(&run->queues, &queue->node))
		{
			dlist_delete(&queue->node);
			dlist_push_tail(&run->queues, &queue->node);
		}
		return message;
	}
	return NULL;
}

/* Starts the lookup of one message in doubt, if allowed; returns false if none was started. */
static bool
look_up_one(Run *run)
{
	if (dlist_is_empty(&run->lookups) || run->read_back || run->not_answered ||
		!run_rules(run)->looks_up)
		return false;
	return start_lookup(dlist_head_element(Message, node, &run->lookups));
}

/*
 * While messages of the run are in doubt, its last message waits until their
 * requests have arrived or never will.  Then it is the later message that must
 * be shown before a lookup can prove that they were not accepted.
 */
static bool
is_held_back(const Run *run)
{
	return run->num_doubtful > 0 && run->num_ready == 1 && run->doubt_until > pace_now &&
		   (run->exhausted || run->next_at != 0);
}

/* Sends one message of the run, or releases it; returns false if there is none to be sent now. */
static bool
send_one(Run *run, TimestampTz now)
{
	Message *message = run->num_ready > 0 && run_may_send(run) ? next_message(run, now) : NULL;

	if (message == NULL || is_held_back(run))
		return false;
	if (strcmp(message->claim->account, run->account->name) != 0)
	{
		/* it was claimed for an account that the group no longer has */
		message_done(message, OUTCOME_RELEASED);
		return true;
	}
	if (is_too_late(message->until, now))
	{
		/* it has waited for too long: quiet hours, for example, have begun */
		message_done(message, OUTCOME_RELEASED);
		return true;
	}
	return start_message(message);
}

/* Where its credentials would go is not known to be Twilio's: neither messages nor lookups go there. */
static void
stop_diverted(Run *run)
{
	run_stop(run, reason_text(REGION_ELSEWHERE, NULL, REGION_ELSEWHERE_HINT));
	run->not_answered = true;
}

/* Starts one request of the run, taking turns between messages and lookups; false if none. */
static bool
start_one(Run *run, TimestampTz now)
{
	/* the adoption of a tentative run may be rolled back */
	if (run->account == NULL || run->tentative)
		return false;
	if (account_is_diverted(run->account))
		stop_diverted(run);
	if (!account_has_room(run->account, now))
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
	ask_for_receipts(now, false);
	while (sent)
	{
		sent = false;
		dlist_foreach (iter, &worker.runs)
			sent |= start_one(dlist_container(Run, node, iter.cur), now);
	}
	ask_for_receipts(now, true);
	/* the run that came first comes last next time */
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
								  "Change the campaign's message and call send_campaign() with the"
								  " same campaign and job."));
}

static bool
is_back_pressure(int code)
{
	return code == 21611 || code == 21730 || code == 30001 || code == 63018;
}

/* Puts off a message that Twilio has not accepted but may accept later. */
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
		message, psprintf(ngettext("given up after %d attempt: %s",
								   "given up after %d attempts: %s", message->attempts),
						  message->attempts, verdict->error_message));
	message_done(message, OUTCOME_FAILED);
	count_verdict(message->claim->run, false); /* the list is not to blame */
}

/* The message never left, so this does not count as an attempt. */
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

	/* the credentials have been replaced meanwhile: the new ones may be good */
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
				account_overloaded(message->account); /* there was no answer in time */
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
	if (*(CallKind *) response->tag == CALL_SWEEP)
	{
		take_receipt_answer(response->tag, response);
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

/* Returns the first message in the agenda if it is due, or NULL. */
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

/* Returns the earlier one of next (0: none) and time, which is ignored unless in the future. */
static TimestampTz
earlier(TimestampTz next, TimestampTz time, TimestampTz now)
{
	if (time <= now)
		return next;
	return next == 0 ? time : Min(next, time);
}

/* Returns when one of the run's senders may next send a message; 0 if now or never. */
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

	if (run_is_cancelled(run))
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
