/*-------------------------------------------------------------------------
 *
 * lookup.c
 *	  Resolves doubt: asks Twilio's own message list what it took.
 *
 * A look-up reads the list of the messages to one phone, all its pages, and
 * keeps those that can be the one in doubt: from the same sender, not
 * created before the claim by Twilio's clock, and with the same tracking
 * link, which no other message has; or, where there is no link, with the
 * same text.
 *
 *   one such message      it was sent, under that SID
 *   none                  it was not sent: send it
 *   several, no answer    it stays in doubt, for a person to settle
 *
 * It is made only when the request can no longer be under way, so one
 * look-up is enough for a message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "catalog/pg_type.h"
#include "listing.h"
#include "lookup.h"
#include "mb/pg_wchar.h"
#include "own.h"
#include "request.h"
#include "settings.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define MAX_PAGES	   20
#define MAX_PAGE_BYTES (16 * 1024 * 1024)
#define MAX_TRIES	   5
#define MAX_CANDIDATES 16

/* Both clocks are cut to the second, and ours may have been set meanwhile. */
#define CLOCK_SLACK 2

typedef struct Candidate
{
	char *sid;
	int	  segments;
	bool  certain; /* it cannot be another recipient's */
} Candidate;

typedef struct Lookup
{
	MemoryContext context; /* a child of the claim's */
	int			  tries;
	int			  pages;
	char		 *url;			/* of the page under way */
	pg_time_t	  since;		/* by Twilio's clock */
	bool		  other_sender; /* the list has this text from another sender */
	Message		 *message;
	int			  num_candidates;
	Candidate	  candidates[MAX_CANDIDATES];
} Lookup;

void
doubt(Message *message, const char *reason)
{
	message->error_message = message_strdup(message, reason);
	message_wait(message, MESSAGE_IN_DOUBT,
				 TimestampTzPlusMilliseconds(message->sent_at, to_ms(sendcampaign_request_timeout +
																	 sendcampaign_lookup_delay)));
}

static Lookup *
new_lookup(Message *message)
{
	MemoryContext  context = AllocSetContextCreate(message->claim->context, "sendcampaign look-up",
												   ALLOCSET_SMALL_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(context);
	Lookup		  *lookup = palloc0(sizeof(Lookup));
	StringInfoData url;

	lookup->context = context;
	lookup->message = message;
	initStringInfo(&url);
	append_messages_url(&url, message->claim->account_sid);
	append_list_query(&url, message->phone);
	lookup->url = url.data;
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

/* Nobody can tell: shown as such, for a person to settle. */
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

bool
start_lookup(Message *message)
{
	Account *account = message->claim->run->account;
	Lookup	*lookup = message->lookup;

	if (strcmp(account->sid, message->claim->account_sid) != 0)
	{
		leave_in_doubt(message, "it went to an account that the group no longer has");
		return true;
	}
	if (lookup == NULL)
		lookup = message->lookup = new_lookup(message);
	if (!account_start(account, lookup->url, NULL, MAX_PAGE_BYTES, message))
		return false;
	dlist_delete(&message->node);
	message->claim->run->num_agenda--;
	message->state = MESSAGE_LOOKING_UP;
	message->account = account;
	message->claim->run->in_flight++;
	return true;
}

/*
 * The link names campaign and recipient, whatever Twilio made of the sender;
 * without one, the sender has to be the same.
 */
static bool
is_candidate(Lookup *lookup, const ListedMessage *listed, bool *certain)
{
	const Message *message = lookup->message;
	LinkMatch	   match;

	*certain = true;

	if (listed->sid == NULL || listed->to == NULL || listed->body == NULL ||
		(listed->created > 0 && listed->created < lookup->since))
		return false;
	if (message->link)
	{
		match = link_match(message->claim->run->campaign.link_form, listed->body,
						   message->list_user_id);
		*certain = match == LINK_FOUND;
		return match != LINK_MISSING;
	}
	if (strcmp(listed->to, message->phone) != 0 || strcmp(listed->body, message->text) != 0)
		return false;
	if (is_from_sender(listed, message->queue->sender->name))
		return true;
	lookup->other_sender = true;
	return false;
}

static void
look_at(void *arg, const ListedMessage *listed)
{
	Lookup *lookup = arg;
	bool	certain;

	if (lookup->num_candidates == MAX_CANDIDATES || !is_candidate(lookup, listed, &certain))
		return;
	for (int i = 0; i < lookup->num_candidates; i++)
	{
		/* pages move on while they are read */
		if (strcmp(lookup->candidates[i].sid, listed->sid) == 0)
			return;
	}
	lookup->candidates[lookup->num_candidates].sid = MemoryContextStrdup(lookup->context,
																		 listed->sid);
	lookup->candidates[lookup->num_candidates].certain = certain;
	lookup->candidates[lookup->num_candidates++].segments = listed->segments;
}

/* The time of the claim by Twilio's clock. */
static void
set_since(Lookup *lookup, const HttpResponse *response)
{
	Claim *claim = lookup->message->claim;

	if (claim->twilio_time > 0)
		lookup->since = claim->twilio_time - CLOCK_SLACK;
	else if (response->server_time > 0)
		lookup->since = response->server_time - CLOCK_SLACK -
						(time(NULL) - timestamptz_to_time_t(claim->claimed_at));
}

static void
look_up_again(Message *message, int delay)
{
	message_wait(message, MESSAGE_IN_DOUBT,
				 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay));
}

/* With the run's own credentials it fails, and the doubt stays claimed. */
static void
lookup_refused(Message *message, int delay)
{
	Run *run = message->claim->run;

	if (run->account == message->account)
	{
		run_stop(run, "Twilio refuses the account: 20003 authentication failed in a look-up");
		run->not_answered = true;
	}
	look_up_again(message, delay);
}

/* Try again later, or give up. */
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
	else if (hopeless || ++lookup->tries >= MAX_TRIES)
		leave_in_doubt(message, psprintf("its look-up failed: %s", why));
	else
		look_up_again(message, delay);
}

/*
 * Can a text be compared with Twilio's?  In a database that is not in UTF-8,
 * other than ASCII may have been converted on the way.
 */
static bool
is_comparable(const Message *message)
{
	if (message->link || GetDatabaseEncoding() == PG_UTF8)
		return true;
	for (const char *c = message->text; *c; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			return false;
	}
	return true;
}

static void
not_found(Message *message)
{
	Run *run = message->claim->run;

	if (!is_comparable(message))
	{
		leave_in_doubt(message, "its text cannot be compared with Twilio's list");
		return;
	}
	if (message->lookup->other_sender)
	{
		leave_in_doubt(message, "Twilio's list has its text from another sender");
		return;
	}
	forget_lookup(message);
	if (message->attempts >= sendcampaign_max_attempts)
	{
		message->error_message = message_strdup(
			message, psprintf("given up after %d attempts: %s", message->attempts,
							  message->error_message ? message->error_message : ""));
		message_done(message, OUTCOME_FAILED);
	}
	else if (message->claim->recovered || !run_may_send(run) || worker.leaving)
		message_done(message, OUTCOME_RELEASED); /* rendered anew */
	else
		message_ready(message);
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
	if (next_page == NULL && lookup->num_candidates == 0)
		not_found(message);
	else if (next_page == NULL)
		message_done(message, OUTCOME_FOUND);
	else if (++lookup->pages >= MAX_PAGES || !append_next_page_url(&url, next_page))
		leave_in_doubt(message, "its look-up does not end");
	else
	{
		lookup->url = MemoryContextStrdup(lookup->context, url.data);
		look_up_again(message, 0);
	}
}

/* Which of these SIDs have messages in the tables already? */
static void
drop_known_candidates(Lookup *lookup)
{
	Oid		 types[] = {TEXTARRAYOID, INT8OID, INT8OID};
	Datum	 sids[MAX_CANDIDATES];
	Datum	 values[3];
	Message *message = lookup->message;

	for (int i = 0; i < lookup->num_candidates; i++)
		sids[i] = CStringGetTextDatum(lookup->candidates[i].sid);
	values[0] = make_array(sids, NULL, lookup->num_candidates, TEXTOID);
	values[1] = Int64GetDatum(message->claim->run->campaign.id);
	values[2] = Int64GetDatum(message->list_user_id);

	/* a text with a link can only be known for this campaign and list user */
	if (message->link)
		(void) own_query(
			"SELECT m.sid FROM sendcampaign.run_data r JOIN sendcampaign.message_data m"
			" ON m.run_id = r.id AND m.list_user_id = $3"
			" WHERE r.campaign_id = $2 AND m.sid = ANY ($1)",
			3, types, values, NULL);
	else
		(void) own_query("SELECT m.sid FROM sendcampaign.message_data m WHERE m.sid = ANY ($1)", 1,
						 types, values, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		char *known = spi_string(row, 1);

		for (int i = 0; i < lookup->num_candidates; i++)
		{
			if (strcmp(lookup->candidates[i].sid, known) == 0)
				lookup->candidates[i] = lookup->candidates[--lookup->num_candidates];
		}
	}
}

/* What another message says of one that has the same phone and text. */
typedef enum Twin
{
	TWIN_NONE,
	TWIN_UNDER_WAY, /* what is found may be its, as will be seen */
	TWIN_IN_DOUBT	/* nobody can tell whose it is */
} Twin;

static Twin
twin_by_state(const Message *other)
{
	switch (other->state)
	{
		case MESSAGE_SENDING:
			return TWIN_UNDER_WAY;
		case MESSAGE_IN_DOUBT:
		case MESSAGE_LOOKUP_READY:
		case MESSAGE_LOOKING_UP:
			return TWIN_IN_DOUBT;
		case MESSAGE_DONE:
			return other->outcome == OUTCOME_SENT ? TWIN_UNDER_WAY
				   : other->outcome == OUTCOME_FOUND || other->outcome == OUTCOME_IN_DOUBT
					   ? TWIN_IN_DOUBT
					   : TWIN_NONE;
		default:
			return TWIN_NONE;
	}
}

static Twin
find_twin_in_claim(const Claim *claim, const Message *message)
{
	Twin twin = TWIN_NONE;

	for (int i = 0; i < claim->num_messages; i++)
	{
		const Message *other = &claim->messages[i];

		if (other != message && other->phone && other->text &&
			strcmp(other->phone, message->phone) == 0 && strcmp(other->text, message->text) == 0)
			twin = Max(twin, twin_by_state(other));
	}
	return twin;
}

static Twin
find_twin(const Message *message)
{
	Twin	   twin = TWIN_NONE;
	dlist_iter run;
	dlist_iter claim;

	dlist_foreach (run, &worker.runs)
	{
		dlist_foreach (claim, &dlist_container(Run, node, run.cur)->claims)
			twin = Max(twin, find_twin_in_claim(dlist_container(Claim, node, claim.cur), message));
	}
	return twin;
}

/*
 * Has another message with this text to this phone been left in doubt?  With a
 * link, that is one to the same recipient: a test has the same link.
 */
static bool
has_twin_in_tables(const Message *message)
{
	const Campaign *campaign = &message->claim->run->campaign;
	Oid				types[] = {INT8OID, INT8OID, TEXTOID, TEXTOID, BOOLOID, INT8OID};
	Datum			values[] = {
				  Int64GetDatum(message->claim->run->id), Int64GetDatum(message->list_user_id),
				  CStringGetTextDatum(message->phone),	  CStringGetTextDatum(campaign->message),
				  BoolGetDatum(message->link != NULL),	  Int64GetDatum(campaign->id)};

	return own_query(
			   "SELECT FROM sendcampaign.run_data r JOIN sendcampaign.message_data m ON m.run_id = r.id"
			   " WHERE r.in_doubt > 0 AND r.message = $4 AND m.phone = $3"
			   " AND m.status = 'in_doubt' AND (r.id, m.list_user_id) <> ($1, $2)"
			   " AND (NOT $5 OR (r.campaign_id = $6 AND m.list_user_id = $2))",
			   6, types, values, NULL) > 0;
}

static void
settle_lookup(Message *message)
{
	Lookup *lookup = message->lookup;
	Twin	twin = find_twin(message);

	drop_known_candidates(lookup);
	if (lookup->num_candidates == 0)
		not_found(message);
	else if (twin == TWIN_UNDER_WAY)
		return; /* see again when that one is recorded */
	else if (lookup->num_candidates > 1 || twin == TWIN_IN_DOUBT || has_twin_in_tables(message))
		leave_in_doubt(message, "Twilio's list has several messages that it can be");
	else if (!lookup->candidates[0].certain)
		leave_in_doubt(message,
					   "Twilio's list has a message with its link and another recipient's");
	else
	{
		message->sid = message_strdup(message, lookup->candidates[0].sid);
		message->segments = lookup->candidates[0].segments;
		message->error_code = 0;
		message->error_message = NULL;
		forget_lookup(message);
		message_done(message, OUTCOME_SENT);
	}
}

void
settle_lookups(Run *run)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &run->done)
	{
		Message *message = dlist_container(Message, node, iter.cur);

		if (message->outcome == OUTCOME_FOUND)
			settle_lookup(message);
	}
}
