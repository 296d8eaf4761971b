/*-------------------------------------------------------------------------
 *
 * lookup.c
 *	  Resolves doubt: looks up in Twilio's list what Twilio accepted.
 *
 * A lookup reads all pages of the list of messages to one phone number, and
 * keeps those that can be the one in doubt: from the same sender, not created
 * before the claim by Twilio's clock, and with the same tracking link, which
 * no other message has; or, if there is no link, with the same text.  See
 * witness.c for what else may be it.
 *
 *   one such message      it was sent, under that SID
 *   none                  see below
 *   several, no answer    it stays in doubt, for a person to settle
 *
 * The lookup is made only when the request can no longer be under way.  "None"
 * is a proof only if, before the lookup began, the list has shown a message
 * that left after the doubtful one's request was over (freshness.c): then the
 * message is sent again.  Otherwise the message waits, and is looked up again
 * after growing pauses, and at once when such a message has been shown.  It
 * stays in doubt
 *
 *   - when sendcampaign.lookup_timeout has passed, or the run is cancelled
 *   - if the list shows messages to its phone number without text or number,
 *     or its text with another link
 *   - with sendcampaign.resend_lost = off
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "campaign/render.h"
#include "catalog/pg_type.h"
#include "database/attempt.h"
#include "database/own_tables.h"
#include "settings.h"
#include "twilio/listing.h"
#include "twilio/request.h"
#include "utils/memutils.h"
#include "worker/freshness.h"
#include "worker/run_attempt.h"
#include "worker/lookup.h"
#include "worker/message.h"
#include "worker/twin.h"
#include "worker/witness.h"

#define MAX_PAGES	   20
#define MAX_PAGE_BYTES (16 * 1024 * 1024)
#define MIN_TRIES	   5 /* failed lookups, however long they take */
#define MAX_CANDIDATES 16

/* Pauses between lookups of a message that waits for a later one, in ms: the first. */
#define FIRST_PAUSE 1000

/*
 * How much clocks may differ, in seconds: ours, that of the header Date, and
 * the one from which the list's dates are.
 */
#define TIME_SLACK (15 * 60)

/* Both clocks are truncated to seconds, and ours may have been set meanwhile. */
#define CLOCK_SLACK 2

#define OF_ANOTHER_RUN                                                                             \
	"Twilio's list has a message that may be another run's, whose outcome is not known yet"

#define FOUND_WHEN_CANCELLED                                                                       \
	"Twilio's list has a message that may be this one, and the run was cancelled before that was known"

#define LOADED                                                                                     \
	"Twilio's list has a message whose SID is also that of a message loaded into the tables"

#define NOT_PROVEN "Twilio's list shows neither this message nor any sent later"

typedef struct Candidate
{
	char	   *sid;
	int			segments;
	const char *why; /* why nobody can tell whether it is the message; NULL: it is */
} Candidate;

typedef struct Lookup
{
	MemoryContext context; /* a child of the claim's */
	int			  tries;
	int			  pages;
	char		 *first_url;
	char		 *url;		  /* of the page under way */
	bool		  is_proof;	  /* true if the list was known to be fresh when this began */
	bool		  waiting;	  /* true if it waits for a later message to be shown */
	bool		  has_twin;	  /* true if it waits for the outcome of another message */
	int			  pause;	  /* until the next lookup in these cases, in ms */
	TimestampTz	  give_up_at; /* when to give up in these cases, or after errors; or 0 */
	pg_time_t	  claimed;	  /* by the clock of Twilio's answers; 0: not known */
	pg_time_t	  since;	  /* messages with older dates in the list are not the one */
	Message		 *message;
	bool		  too_many; /* true if there are more candidates than fit */
	int			  num_candidates;
	Candidate	  candidates[MAX_CANDIDATES];
} Lookup;

void
doubt(Message *message, const char *reason)
{
	int64 now = monotonic_time();

	/* it may have left with another timeout */
	message->gone_at = Max(now, message->left_at + to_us(sendcampaign_request_timeout)) +
					   to_us(sendcampaign_lookup_delay);
	message->error_message = message_strdup(message, reason);
	message_wait(message, MESSAGE_IN_DOUBT, GetCurrentTimestamp() + (message->gone_at - now));
}

void
suspect(Message *message)
{
	message->suspect = true;
	message->gone_at = 0;
	message->error_message = message_strdup(message, "commits that may have recorded it were lost");
	message_wait(message, MESSAGE_IN_DOUBT, GetCurrentTimestamp());
}

static Lookup *
new_lookup(Message *message, const Account *account)
{
	MemoryContext  context = AllocSetContextCreate(message->claim->context, "sendcampaign lookup",
												   ALLOCSET_SMALL_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(context);
	Lookup		  *lookup = palloc0(sizeof(Lookup));
	StringInfoData url;

	lookup->context = context;
	lookup->message = message;
	initStringInfo(&url);
	append_messages_url(&url, account->host, account->sid);
	append_list_query(&url, message->queue->sender->name, message->phone);
	lookup->url = lookup->first_url = url.data;
	MemoryContextSwitchTo(old);
	return lookup;
}

static void
forget_lookup(Message *message)
{
	if (message->lookup)
		MemoryContextDelete(message->lookup->context);
	message->lookup = NULL;
}

/* Leaves it in doubt, visibly, for a person to settle. */
static void
leave_in_doubt(Message *message, const char *why)
{
	message->error_message = message_strdup(
		message, psprintf("%s; %s",
						  message->error_message ? message->error_message
												 : "the worker ended before Twilio's answer",
						  why));
	forget_lookup(message);
	message_done(message, OUTCOME_IN_DOUBT);
}

void
give_up_lookups(Run *run, const char *why)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		for (int i = 0; i < claim->num_messages; i++)
		{
			Message *message = &claim->messages[i];

			if (message->state == MESSAGE_IN_DOUBT || message->state == MESSAGE_LOOKUP_READY)
				leave_in_doubt(message, why);
		}
	}
}

static bool
may_be_found(const Message *message)
{
	return (message->state == MESSAGE_IN_DOUBT || message->state == MESSAGE_LOOKUP_READY) &&
		   message->lookup && (message->lookup->has_twin || message->lookup->num_candidates > 0);
}

bool
may_be_released(const Message *message)
{
	return message_is_unsent(message) && !may_be_found(message);
}

void
give_up_found(Run *run)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		for (int i = 0; i < claim->num_messages; i++)
		{
			Message *message = &claim->messages[i];

			if (message->suspect && may_be_found(message))
				leave_in_doubt(message, FOUND_WHEN_CANCELLED);
		}
	}
}

bool
start_lookup(Message *message)
{
	Account *account = message->claim->run->account;
	Lookup	*lookup = message->lookup;

	if (strcmp(account->name, message->claim->account) != 0)
	{
		leave_in_doubt(message, "it was sent to an account that the group no longer has");
		return true;
	}
	if (lookup == NULL)
		lookup = message->lookup = new_lookup(message, account);
	if (!account_start(account, lookup->url, NULL, MAX_PAGE_BYTES, message))
		return false;
	if (lookup->pages == 0)
		lookup->is_proof = list_is_fresh(account, listed_by(message), message->gone_at);
	lookup->waiting = lookup->has_twin = false;
	message_looking_up(message, account);
	return true;
}

static void
look_at(void *arg, const ListedMessage *listed)
{
	Lookup	   *lookup = arg;
	Candidate  *candidate;
	const char *why;

	if (listed->sid == NULL || listed->inbound ||
		(listed->created > 0 && listed->created < lookup->since) ||
		!can_be_listed_as(lookup->message, listed, lookup->claimed, &why))
		return;
	for (int i = 0; i < lookup->num_candidates; i++)
	{
		/* pages shift while they are read */
		if (strcmp(lookup->candidates[i].sid, listed->sid) == 0)
			return;
	}
	lookup->too_many |= lookup->num_candidates == MAX_CANDIDATES;
	if (lookup->too_many)
		return;
	candidate = &lookup->candidates[lookup->num_candidates++];
	candidate->sid = MemoryContextStrdup(lookup->context, listed->sid);
	candidate->segments = listed->segments;
	candidate->why = why;
}

/* Sets the time of the claim, by Twilio's clock. */
static void
set_since(Lookup *lookup, const HttpResponse *response)
{
	Claim *claim = lookup->message->claim;

	if (may_be_of_lost_past(lookup->message))
		lookup->since = run_start(claim->run) - TIME_SLACK +
						(response->server_time > 0 ? response->server_time - time(NULL) : 0);
	else if (claim->twilio_time > 0)
		lookup->claimed = claim->twilio_time - CLOCK_SLACK;
	else if (response->server_time > 0)
		lookup->claimed = response->server_time - CLOCK_SLACK -
						  (time(NULL) - timestamptz_to_time_t(claim->claimed_at));
	if (lookup->claimed > 0)
		lookup->since = lookup->claimed - TIME_SLACK;
}

static void
look_up_again(Message *message, int delay)
{
	message_wait(message, MESSAGE_IN_DOUBT,
				 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay));
}

/* If these are the run's own credentials, the run fails, and the doubt stays claimed. */
static void
lookup_refused(Message *message, int delay)
{
	Run *run = message->claim->run;

	if (run->account == message->account)
	{
		run_stop(run, reason_text("Twilio refuses the account: 20003 authentication failed",
								  "It was asked for its list of messages.", MEND_ACCOUNT_HINT));
		run->not_answered = true;
	}
	look_up_again(message, delay);
}

/* Tells whether the message has been looked up for as long as it may be. */
static bool
time_is_up(Message *message)
{
	Lookup	   *lookup = message->lookup;
	TimestampTz now = GetCurrentTimestamp();

	if (lookup->give_up_at == 0)
		lookup->give_up_at = now + to_us(lookup_timeout());
	return now >= lookup->give_up_at || run_is_cancelled(message->claim->run);
}

/* Tries again later, or gives up. */
static void
lookup_failed(Message *message, const HttpResponse *response, const char *why)
{
	Lookup *lookup = message->lookup;
	int		delay = backoff_delay(lookup->tries);
	bool hopeless = response->status >= 400 && response->status < 500 && response->status != 429 &&
					response->status != 408;

	if (response->retry_after > 0)
		delay = Max(delay, response->retry_after * 1000);
	if (worker.leaving)
		look_up_again(message, delay); /* it stays claimed, for the next worker */
	else if (response->status == 401)
		lookup_refused(message, delay);
	else if (response->result == HTTP_NOT_SENT)
	{
		account_unreachable(message->account, why);
		look_up_again(message, delay);
	}
	else if (hopeless || (time_is_up(message) && lookup->tries + 1 >= MIN_TRIES))
		leave_in_doubt(message, psprintf("its lookup failed: %s", why));
	else
	{
		lookup->tries++;
		look_up_again(message, delay);
	}
}

/* Looks it up again, from the first page. */
static void
start_over(Message *message, TimestampTz due)
{
	Lookup *lookup = message->lookup;

	lookup->url = lookup->first_url;
	lookup->pages = lookup->tries = lookup->num_candidates = 0;
	lookup->too_many = false;
	message_wait(message, MESSAGE_IN_DOUBT, due);
}

/* Looks it up again after a growing pause; returns false if it is left in doubt. */
static bool
keep_looking(Message *message, const char *why)
{
	Lookup	   *lookup = message->lookup;
	TimestampTz due;

	if (time_is_up(message))
	{
		leave_in_doubt(message, why);
		return false;
	}
	lookup->pause = lookup->pause ? 2 * lookup->pause : FIRST_PAUSE;
	due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), lookup->pause);
	start_over(message, Min(due, lookup->give_up_at));
	return true;
}

/* The list may lag; a message that was sent later shows whether it still does. */
static void
wait_for_later_message(Message *message)
{
	if (!keep_looking(message, NOT_PROVEN))
		return;
	message->lookup->waiting = true;
	want_freshness(message->claim->run->account, listed_by(message), message->gone_at);
}

/* What was found may be another run's message, as will be known once that has its outcome. */
static void
wait_for_twin(Message *message)
{
	if (keep_looking(message, OF_ANOTHER_RUN))
		message->lookup->has_twin = true;
}

/* Twilio did not accept it: sends it again, or gives it back. */
static void
send_again(Message *message)
{
	Run *run = message->claim->run;

	forget_lookup(message);
	if (message->suspect && run_is_cancelled(run))
	{
		message->error_message = message_strdup(message, "cancelled");
		message_done(message, OUTCOME_SKIPPED);
	}
	else if (message->attempts >= sendcampaign_max_attempts)
	{
		message->error_message = message_strdup(
			message,
			psprintf(ngettext("given up after %d attempt: %s", "given up after %d attempts: %s",
							  message->attempts),
					 message->attempts, message->error_message ? message->error_message : ""));
		message_done(message, OUTCOME_FAILED);
	}
	else if (message->claim->recovered || !run_may_send(run) || worker.leaving)
		message_done(message, OUTCOME_RELEASED); /* to be rendered again */
	else
		message_ready(message);
}

static void
not_found(Message *message)
{
	Lookup *lookup = message->lookup;

	if (listed_by(message) == LISTED_BY_TEXT && !is_comparable(message->text))
		leave_in_doubt(message, "its text cannot be compared with Twilio's list");
	else if (!lookup->is_proof)
		wait_for_later_message(message);
	else if (!sendcampaign_resend_lost && !message->suspect)
		leave_in_doubt(message,
					   "Twilio's list does not have it, and sendcampaign.resend_lost is off");
	else
		send_again(message);
}

/* Tells whether it waits for a later message of its account to be shown. */
static bool
is_waiting(const Message *message)
{
	return message->state == MESSAGE_IN_DOUBT && message->lookup && message->lookup->waiting;
}

/* Looks it up again if the list has shown a later message than before. */
static void
look_up_waiting(Message *message)
{
	Account *account = message->claim->run->account;

	if (list_is_fresh(account, listed_by(message), message->gone_at))
		message_lookup_ready(message);
	else
		want_freshness(account, listed_by(message), message->gone_at);
}

/* Applies the answer to a control question to a run's messages that wait for it. */
static void
follow_for_run(Run *run, ControlResult result, const char *why)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		for (int i = 0; i < claim->num_messages; i++)
		{
			if (!is_waiting(&claim->messages[i]))
				continue;
			if (result == CONTROL_FRESH)
				look_up_waiting(&claim->messages[i]);
			else
				leave_in_doubt(&claim->messages[i], why);
		}
	}
}

void
follow_control_answer(struct Control *control, const HttpResponse *response)
{
	const char	 *why = NULL;
	ControlResult result = take_control_answer(control, response, &why);
	dlist_iter	  iter;

	if (result == CONTROL_PENDING)
		return;
	dlist_foreach (iter, &worker.runs)
	{
		Run *run = dlist_container(Run, node, iter.cur);

		if (run->account == account_of_control(control))
			follow_for_run(run, result, why);
	}
}

/* Tells whether it waits for the outcome of another run's message. */
static bool
waits_for_twin(const Message *message)
{
	return message->state == MESSAGE_IN_DOUBT && message->lookup && message->lookup->has_twin;
}

bool
only_others_are_waited_for(Run *run)
{
	dlist_iter iter;

	dlist_foreach (iter, &run->claims)
	{
		Claim *claim = dlist_container(Claim, node, iter.cur);

		for (int i = 0; i < claim->num_messages; i++)
		{
			const Message *message = &claim->messages[i];

			if (message->state != MESSAGE_RECORDED && !is_waiting(message) &&
				!waits_for_twin(message))
				return false;
		}
	}
	return true;
}

void
take_lookup_answer(Message *message, const HttpResponse *response)
{
	Lookup		  *lookup = message->lookup;
	char		  *next_page;
	const char	  *problem;
	StringInfoData url;

	if (lookup->pages == 0)
		set_since(lookup, response);
	problem = read_listing(response, look_at, lookup, &next_page);
	if (problem)
	{
		lookup_failed(message, response, problem);
		return;
	}
	account_answered(message->account);
	initStringInfo(&url);
	if (lookup->too_many)
		leave_in_doubt(message, "Twilio's list has too many messages that may be this one");
	else if (next_page == NULL && lookup->num_candidates == 0)
		not_found(message);
	else if (next_page == NULL)
		message_done(message, OUTCOME_FOUND);
	else if (++lookup->pages >= MAX_PAGES ||
			 !append_next_page_url(&url, message->account->host, next_page))
		leave_in_doubt(message, "its lookup returned too many pages");
	else
	{
		lookup->url = MemoryContextStrdup(lookup->context, url.data);
		look_up_again(message, 0);
	}
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Tells whether any message of the account can be one of the candidates. */
static bool
can_be_any_message(const Message *message)
{
	for (int i = 0; message->link && i < message->lookup->num_candidates; i++)
	{
		if (message->lookup->candidates[i].why)
			return true;
	}
	return message->link == NULL;
}

/* SIDs of messages in the tables, sorted. */
typedef struct KnownSid
{
	char *sid;	  /* first, for compare_strings() */
	bool  loaded; /* true if only loaded rows have it */
} KnownSid;

typedef struct KnownSids
{
	KnownSid *sids;
	int		  count;
} KnownSids;

/*
 * SQL: the SIDs of messages and, as "first", those of messages that were not
 * delivered, in place of which others have been sent.
 */
#define SELECT_KNOWN(messages, firsts)                                                             \
	"SELECT k.sid, bool_and(k.loaded) FROM ("                                                      \
	"SELECT m.sid, m.xmin <> m.written_in AS loaded " messages                                     \
	" UNION ALL SELECT d.first_sid, d.xmin <> d.written_in " firsts ") k GROUP BY k.sid"

static KnownSids
known_sids(uint64 count)
{
	KnownSids known = {palloc(Max(count, 1) * sizeof(KnownSid)), (int) count};

	for (int i = 0; i < known.count; i++)
		known.sids[i] = (KnownSid){spi_string(i, 1), spi_bool(i, 2)};
	qsort(known.sids, known.count, sizeof(KnownSid), compare_strings);
	return known;
}

/* A text with a link can only be one of this campaign and list user. */
static KnownSids
known_with_link(const Lookup *lookup)
{
	const Message *message = lookup->message;
	Oid			   types[] = {INT8OID, INT8OID};
	Datum		   values[] = {Int64GetDatum(message->claim->run->campaign.id),
							   Int64GetDatum(message->list_user_id)};

	return known_sids(
		own_query(SELECT_KNOWN("FROM sendcampaign.run_data r JOIN sendcampaign.message_data m"
							   " ON m.run_id = r.id AND m.list_user_id = $2"
							   " WHERE r.campaign_id = $1 AND m.sid IS NOT NULL",
							   "FROM sendcampaign.run_data r JOIN sendcampaign.receipt_data d"
							   " ON d.run_id = r.id AND d.list_user_id = $2"
							   " WHERE r.campaign_id = $1 AND d.first_sid IS NOT NULL"),
				  2, types, values, NULL));
}

/*
 * Without a link, any message may have one of the SIDs.  One query serves all
 * lookups that are settled.
 */
static KnownSids
known_of_any_message(Run *run)
{
	List	  *sids = NIL;
	ListCell  *cell;
	char	 **strings;
	Oid		   type = TEXTARRAYOID;
	Datum	   value;
	dlist_iter iter;

	dlist_foreach (iter, &run->done)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (message->outcome != OUTCOME_FOUND || !can_be_any_message(message))
			continue;
		for (int i = 0; i < message->lookup->num_candidates; i++)
			sids = lappend(sids, message->lookup->candidates[i].sid);
	}
	if (sids == NIL)
		return (KnownSids){NULL, 0};
	strings = palloc(list_length(sids) * sizeof(char *));
	foreach (cell, sids)
		strings[foreach_current_index(cell)] = lfirst(cell);
	value = make_text_array(strings, list_length(sids));
	return known_sids(
		own_query(SELECT_KNOWN("FROM sendcampaign.message_data m WHERE m.sid = ANY ($1)",
							   "FROM sendcampaign.receipt_data d WHERE d.first_sid = ANY ($1)"),
				  1, &type, &value, NULL));
}

/*
 * Drops candidates that belong to other messages.  That a loaded row has a SID
 * does not prove whose it is: otherwise whoever may load rows could cause
 * people to be sent to again.
 */
static void
drop_known_candidates(Lookup *lookup, KnownSids known)
{
	int kept = 0;

	for (int i = 0; i < lookup->num_candidates; i++)
	{
		Candidate		candidate = lookup->candidates[i];
		const KnownSid *sid = known.count == 0 ? NULL
											   : bsearch(&candidate.sid, known.sids, known.count,
														 sizeof(KnownSid), compare_strings);

		if (sid && !sid->loaded)
			continue;
		if (sid)
			candidate.why = LOADED;
		lookup->candidates[kept++] = candidate;
	}
	lookup->num_candidates = kept;
}

/* Returns the one that it certainly is; NULL if there is none or several. */
static const Candidate *
the_candidate(const Lookup *lookup, int *num_certain)
{
	const Candidate *found = NULL;

	*num_certain = 0;
	for (int i = 0; i < lookup->num_candidates; i++)
	{
		if (lookup->candidates[i].why)
			continue;
		found = &lookup->candidates[i];
		(*num_certain)++;
	}
	return *num_certain == 1 ? found : NULL;
}

static void
settle_lookup(Message *message, const Elsewhere *elsewhere, KnownSids of_any_message)
{
	Lookup			*lookup = message->lookup;
	Twin			 twin = find_twin(message);
	const Candidate *found;
	int				 num_certain;

	drop_known_candidates(lookup, of_any_message);
	if (message->link)
		drop_known_candidates(lookup, known_with_link(lookup));
	found = the_candidate(lookup, &num_certain);
	if (lookup->num_candidates == 0)
		not_found(message);
	else if (twin == TWIN_UNDER_WAY)
		return; /* looked at again when that one is recorded */
	else if (has_twin_elsewhere(message, elsewhere))
		wait_for_twin(message);
	else if (num_certain == 0)
		leave_in_doubt(message, lookup->candidates[0].why);
	else if (found == NULL || twin == TWIN_IN_DOUBT || has_twin_in_tables(message, elsewhere))
		leave_in_doubt(message, "Twilio's list has several messages that may be this one");
	else
	{
		message->sid = message_strdup(message, found->sid);
		message->segments = found->segments;
		message->error_code = 0;
		message->error_message = NULL;
		forget_lookup(message);
		message_done(message, OUTCOME_SENT);
	}
}

void
settle_lookups(Run *run)
{
	Elsewhere		   elsewhere = read_elsewhere(run); /* before what is known */
	KnownSids		   known = known_of_any_message(run);
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &run->done)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (message->outcome == OUTCOME_FOUND)
			settle_lookup(message, &elsewhere, known);
	}
}
