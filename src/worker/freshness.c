/*-------------------------------------------------------------------------
 *
 * freshness.c
 *	  The control question: is Twilio's list up to date?
 *
 * Twilio does not promise read-after-write: a message that it accepted may be
 * missing from its list for a while, and an account may be set up so that the
 * list shows messages without their text or number.  Then "not found" would
 * prove nothing.  So another message is asked for in the same way, by its
 * phone number: one of the same account whose SID we know, and that left after
 * the last moment when the doubtful one can have arrived.  If the list shows
 * it, with its text, then it shows everything that Twilio accepted before; a
 * lookup that begins after that answer can be believed.
 *
 * Some accounts redact a message once it has been sent.  One that is still
 * queued does not reveal that, so a control message counts only if some
 * message of the account has been seen with its text after it was sent.
 *
 * While nothing is in doubt, nothing is asked, and only one message per
 * account is remembered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/link.h"
#include "campaign/render.h"
#include "campaign/smart_encoding.h"
#include "settings.h"
#include "twilio/listing.h"
#include "twilio/request.h"
#include "utils/memutils.h"
#include "worker/freshness.h"

#define MAX_PAGES	   20
#define MAX_PAGE_BYTES (16 * 1024 * 1024)

/* Pauses between questions for the same message, which grow, in ms. */
#define FIRST_PAUSE 500
#define MAX_PAUSE	30000

/* A message that Twilio has accepted; without a SID: none. */
typedef struct Known
{
	StringInfoData sid;
	StringInfoData to; /* its number, with the channel that precedes it */
	StringInfoData text;
	StringInfoData link;	/* empty if it has none */
	bool		   content; /* true if Twilio makes its text from a template */
	bool		   has_media;
	int64		   left_at; /* monotonic us */
} Known;

/* The question for messages that are listed by one kind of thing. */
typedef struct Control
{
	CallKind		  kind; /* CALL_CONTROL; first, as the tag of a request */
	Account			 *account;
	struct Freshness *freshness;
	ListedBy		  by;
	Known			  newest;	/* last one accepted, while something was in doubt */
	Known			  asked;	/* asked for until the list shows it */
	int64			  wanted;	/* one that left after this is wanted; 0: none */
	int64			  fresh_to; /* the list shows everything that left before this */

	/* the question */
	Known		  *question; /* &asked, or the account's veteran */
	TimestampTz	   since;	 /* when it was first asked */
	TimestampTz	   due;
	bool		   under_way;
	int			   tries;
	int			   pages;
	StringInfoData url; /* of the page under way */

	/* what the page under way shows */
	bool		found;
	bool		sent;
	const char *why; /* why it cannot be read; or NULL */
} Control;

typedef struct Freshness
{
	Control controls[NUM_LISTED_BY];
	Known	veteran;  /* the first message accepted: most likely sent by now */
	bool	readable; /* true if one was seen with its text after it was sent */
} Freshness;

static void
init_known(Known *known)
{
	initStringInfo(&known->sid);
	initStringInfo(&known->to);
	initStringInfo(&known->text);
	initStringInfo(&known->link);
}

static Freshness *
freshness_of(Account *account)
{
	MemoryContext old;
	Freshness	 *freshness;

	if (account->freshness)
		return account->freshness;
	old = MemoryContextSwitchTo(TopMemoryContext);
	freshness = palloc0(sizeof(Freshness));
	init_known(&freshness->veteran);
	for (int i = 0; i < lengthof(freshness->controls); i++)
	{
		Control *control = &freshness->controls[i];

		control->kind = CALL_CONTROL;
		control->account = account;
		control->freshness = freshness;
		control->by = i;
		init_known(&control->newest);
		init_known(&control->asked);
		initStringInfo(&control->url);
	}
	account->freshness = freshness;
	MemoryContextSwitchTo(old);
	return freshness;
}

static void
set_string(StringInfo to, const char *from)
{
	resetStringInfo(to);
	if (from)
		appendStringInfoString(to, from);
}

static void
remember_as(Known *known, const Message *message)
{
	set_string(&known->sid, message->sid);
	set_string(&known->to, address_of(message->queue->sender->name, message->phone));
	set_string(&known->text, message->text);
	set_string(&known->link, message->link);
	known->content = message->content;
	known->has_media = message->has_media;
	known->left_at = message->left_at;
}

static void
copy_known(Known *to, const Known *from)
{
	set_string(&to->sid, from->sid.data);
	set_string(&to->to, from->to.data);
	set_string(&to->text, from->text.data);
	set_string(&to->link, from->link.data);
	to->content = from->content;
	to->has_media = from->has_media;
	to->left_at = from->left_at;
}

/* Asks for the newest message, if it is one that is wanted. */
static void
choose_message(Control *control)
{
	const Known *newest = &control->newest;

	if (control->asked.sid.len > 0 || control->wanted == 0 || newest->sid.len == 0 ||
		newest->left_at < control->wanted)
		return;
	copy_known(&control->asked, newest);
	control->question = &control->asked;
	control->wanted = 0;
	control->tries = control->pages = 0;
	control->since = control->due = GetCurrentTimestamp();
}

/* Tells whether the message shows what the list has to show of messages listed by that. */
static bool
is_suitable(ListedBy by, const Message *message)
{
	switch (by)
	{
		case LISTED_BY_TEXT:
			return !message->content && message->text[0] && is_comparable(message->text);
		case LISTED_BY_LINK:
			return !message->content && message->link;
		default:
			return true;
	}
}

void
remember_accepted(const Message *message)
{
	Freshness *freshness = freshness_of(message->account);

	if (freshness->veteran.sid.len == 0)
		remember_as(&freshness->veteran, message);
	if (worker.num_doubtful == 0)
		return;
	for (int i = 0; i < lengthof(freshness->controls); i++)
	{
		Control *control = &freshness->controls[i];

		if (!is_suitable(control->by, message))
			continue;
		remember_as(&control->newest, message);
		choose_message(control);
	}
}

/* What shows the texts of messages, or their links, shows their numbers as well. */
bool
list_is_fresh(const Account *account, ListedBy by, int64 moment)
{
	bool fresh = moment == 0;

	for (int i = 0; account->freshness && i < NUM_LISTED_BY; i++)
	{
		if (by == LISTED_BY_NUMBER || by == i)
			fresh |= account->freshness->controls[i].fresh_to >= moment;
	}
	return fresh;
}

void
want_freshness(Account *account, ListedBy by, int64 moment)
{
	Control *control = &freshness_of(account)->controls[by];

	control->wanted = control->wanted ? Min(control->wanted, moment) : moment;
	choose_message(control);
}

/*
 * Gives up a message that the list has not shown for as long as any lookup
 * waits, and will not; another one is asked for.
 */
static void
give_up_message(Control *control)
{
	resetStringInfo(&control->asked.sid);
	control->wanted = Max(control->wanted, 1);
	choose_message(control);
}

static void
ask_control_question(Control *control, TimestampTz now)
{
	Account *account = control->account;

	if (control->asked.sid.len == 0 || control->under_way || control->due > now)
		return;
	if (control->pages == 0 &&
		TimestampDifferenceExceeds(control->since, now, to_ms(lookup_timeout())))
		give_up_message(control);
	if (control->asked.sid.len == 0 || !account_has_room(account, now))
		return;
	if (control->pages == 0)
	{
		resetStringInfo(&control->url);
		append_messages_url(&control->url, account->host, account->sid);
		append_list_query(&control->url, "", control->question->to.data);
	}
	control->under_way = account_start(account, control->url.data, NULL, MAX_PAGE_BYTES, control);
}

void
ask_control_questions(TimestampTz now)
{
	dlist_iter iter;

	if (worker.num_doubtful == 0)
		return;
	dlist_foreach (iter, &all_accounts)
	{
		Account *account = dlist_container(Account, node, iter.cur);

		for (int i = 0; account->freshness && i < lengthof(account->freshness->controls); i++)
			ask_control_question(&account->freshness->controls[i], now);
	}
}

static void
ask_later(Control *control, int least)
{
	int pause = control->tries < 6 ? FIRST_PAUSE << control->tries : MAX_PAUSE;

	control->tries++;
	control->pages = 0;
	control->question = &control->asked;
	control->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Max(pause, least));
}

/* Returns what is wrong with how the list shows the message, or NULL. */
static const char *
what_is_wrong(const Control *control, const ListedMessage *listed)
{
	const Known *known = control->question;

	if (is_redacted(listed))
		return REDACTED;
	if (listed->to == NULL || strcmp(listed->to, known->to.data) != 0)
		return "Twilio's list shows a message that differs from what was sent";
	if (known->content || known->text.len == 0)
		return NULL;
	if (listed->body == NULL || listed->body[0] == '\0')
		return REDACTED; /* media are shown without their text */
	if (known->link.len > 0 && !has_link(smart_text(listed->body), smart_text(known->link.data)))
		return LINKS_REWRITTEN;
	if (control->by == LISTED_BY_TEXT && is_comparable(known->text.data) &&
		smart_match(known->text.data, listed->body) == SMART_DIFFERENT &&
		!(known->has_media && is_shown_without_media(known->text.data, listed->body)))
		return "Twilio's list shows a text that differs from what was sent";
	return NULL;
}

static void
look_for_message(void *arg, const ListedMessage *listed)
{
	Control *control = arg;

	if (listed->sid == NULL || strcmp(listed->sid, control->question->sid.data) != 0)
		return;
	control->found = true;
	control->sent = listed->sent > 0;
	control->why = what_is_wrong(control, listed);
}

/* Continues with the list's next page; returns false if there is none. */
static bool
read_next_page(Control *control, const char *next_page)
{
	if (next_page == NULL || ++control->pages >= MAX_PAGES)
		return false;
	resetStringInfo(&control->url);
	if (!append_next_page_url(&control->url, control->account->host, next_page))
		return false;
	control->due = GetCurrentTimestamp();
	return true;
}

/* The list shows the message as it was sent. */
static ControlResult
message_is_shown(Control *control)
{
	Freshness *freshness = control->freshness;
	bool	   is_veteran = control->question != &control->asked;

	freshness->readable |= control->sent;
	control->pages = 0;
	if (freshness->readable && !is_veteran)
	{
		control->fresh_to = Max(control->fresh_to, control->asked.left_at);
		resetStringInfo(&control->asked.sid);
		return CONTROL_FRESH;
	}
	if (freshness->readable)
	{
		control->question = &control->asked;
		control->due = GetCurrentTimestamp();
	}
	else if (!is_veteran && strcmp(freshness->veteran.sid.data, control->asked.sid.data) != 0)
	{
		control->question = &freshness->veteran;
		control->due = GetCurrentTimestamp();
	}
	else
		ask_later(control, 0);
	return CONTROL_PENDING;
}

ControlResult
take_control_answer(Control *control, const HttpResponse *response, const char **why)
{
	const char *problem;
	char	   *next_page;

	control->under_way = false;
	account_finished(control->account);
	control->found = control->sent = false;
	control->why = NULL;
	problem = read_listing(response, look_for_message, control, &next_page);
	if (problem)
	{
		if (response->result == HTTP_NOT_SENT)
			account_unreachable(control->account, problem);
		ask_later(control, response->retry_after > 0 ? response->retry_after * 1000 : 0);
		return CONTROL_PENDING;
	}
	account_answered(control->account);
	if (!control->found)
	{
		if (!read_next_page(control, next_page))
			ask_later(control, 0);
		return CONTROL_PENDING;
	}
	if (control->why == NULL)
		return message_is_shown(control);
	control->freshness->readable = false;
	resetStringInfo(&control->asked.sid);
	*why = control->why;
	return CONTROL_UNREADABLE;
}

Account *
account_of_control(const Control *control)
{
	return control->account;
}
