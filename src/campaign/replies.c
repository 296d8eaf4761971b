/*-------------------------------------------------------------------------
 *
 * replies.c
 *	  Takes inbound messages, wherever they were reported.
 *
 * What somebody has written is data: it is stored, bounded and in the
 * database's encoding, and compared with stop words.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/opted_out.h"
#include "campaign/phone.h"
#include "campaign/render.h"
#include "campaign/replies.h"
#include "campaign/stop_words.h"
#include "database/reply_table.h"
#include "twilio/request.h"

/* In characters: the longest message there is, one of WhatsApp. */
#define MAX_BODY 4096

char *
phone_of_number(const char *number)
{
	return normalize_phone(number_of_address(number));
}

static bool
is_to_sender(const Inbound *message, const char *sender)
{
	return strcmp(sender, message->to) == 0 ||
		   (message->service && strcmp(sender, message->service) == 0);
}

bool
is_to_group(const Inbound *message, const GroupConfig *group)
{
	for (int i = 0; i < group->num_senders; i++)
	{
		if (is_to_sender(message, group->senders[i]))
			return true;
	}
	return false;
}

static bool
is_to_past_sender(const Inbound *message, List *past_senders)
{
	ListCell *cell;

	foreach (cell, past_senders)
	{
		if (is_to_sender(message, lfirst(cell)))
			return true;
	}
	return false;
}

/* Tells whether the message may be for the group. */
static bool
may_be_for(const ReplyGroup *to, const Inbound *message)
{
	return to->any_sender || is_to_group(message, to->group) ||
		   is_to_past_sender(message, to->past_senders);
}

/* Tells whether the group sends to the phone number from the sender that the message came to. */
static bool
sends_from(const ReplyGroup *to, const char *phone, const Inbound *message)
{
	const GroupConfig *group = to->group;

	return group->num_senders > 0 && is_to_sender(message, sender_of_phone(group, phone));
}

/* Messages to some of the groups of one role, which are taken together. */
typedef struct Taking
{
	Oid				role;
	List		   *groups; /* of ReplyGroup */
	int				count;
	Reply		   *replies;  /* in order of time */
	const Inbound **messages; /* the same */
} Taking;

/* Fills the reply; returns false if it cannot be one. */
static bool
make_reply(const Inbound *message, Reply *reply)
{
	*reply = (Reply){.sid = message->sid,
					 .phone = phone_of_number(message->from),
					 .sender = storable_text(message->to, MAX_PHONE),
					 .body = storable_text(message->body ? message->body : "", MAX_BODY),
					 .at = message->at};
	return reply->phone != NULL && sid_is_valid(reply->sid);
}

static bool
is_for_one_of(const Inbound *message, List *groups)
{
	ListCell *cell;

	foreach (cell, groups)
	{
		if (may_be_for(lfirst(cell), message))
			return true;
	}
	return false;
}

static int
compare_times(const void *a, const void *b)
{
	const Inbound *x = *(const Inbound *const *) a;
	const Inbound *y = *(const Inbound *const *) b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* Adds those of the messages that may be for one of the groups. */
static void
add_messages(Taking *taking, const Inbound *messages, int count)
{
	int num_messages = 0;

	taking->messages = palloc(Max(count, 1) * sizeof(Inbound *));
	taking->replies = palloc(Max(count, 1) * sizeof(Reply));
	for (int i = 0; i < count; i++)
	{
		if (is_for_one_of(&messages[i], taking->groups))
			taking->messages[num_messages++] = &messages[i];
	}
	qsort(taking->messages, num_messages, sizeof(Inbound *), compare_times);
	for (int i = 0; i < num_messages; i++)
	{
		taking->messages[taking->count] = taking->messages[i];
		if (make_reply(taking->messages[i], &taking->replies[taking->count]))
			taking->count++;
	}
}

/* By the group's own words. */
static const char *
word_for(const ReplyGroup *to, const Inbound *message)
{
	return stop_word(&to->group->stop_words, message->body ? message->body : "");
}

static ReplyGroup *
find_group(List *groups, const char *schema, int64 group_id)
{
	ListCell *cell;

	foreach (cell, groups)
	{
		ReplyGroup *to = lfirst(cell);

		if (to->scope.group_id == group_id && strcmp(to->scope.schema, schema) == 0)
			return to;
	}
	return NULL;
}

/*
 * Tells whether the reply rather answers message a than b: one that went before
 * it, one from the sender that it came to, the latest one.
 */
static bool
is_better(const AnsweredMessage *a, bool a_from, const AnsweredMessage *b, bool b_from)
{
	if (a->is_before != b->is_before)
		return a->is_before;
	if (a_from != b_from)
		return a_from;
	return a->at != b->at ? a->at > b->at : a->run_id > b->run_id;
}

/* The reply is for that group. */
static void
assign(Taking *taking, int n, const ReplyGroup *to)
{
	taking->replies[n].schema = to->scope.schema;
	taking->replies[n].group_id = to->scope.group_id;
	taking->replies[n].word = word_for(to, taking->messages[n]);
}

/* Finds the message that each reply answers, and so its group. */
static void
find_answered(Taking *taking)
{
	const ReplyGroup	  *first = linitial(taking->groups);
	int					   count;
	const AnsweredMessage *found = replies_find_answered(taking->role, first->scope.account,
														 taking->replies, taking->count, &count);
	const AnsweredMessage *best = NULL;
	bool				   best_from = false;

	for (int i = 0; i < count; i++)
	{
		const AnsweredMessage *answered = &found[i];
		Reply				  *reply = &taking->replies[answered->reply];
		const Inbound		  *message = taking->messages[answered->reply];
		ReplyGroup *to = find_group(taking->groups, answered->schema, answered->group_id);
		bool		from;

		if (to == NULL || !may_be_for(to, message))
			continue;
		from = sends_from(to, reply->phone, message);
		if (best && best->reply == answered->reply && !is_better(answered, from, best, best_from))
			continue;
		best = answered;
		best_from = from;
		assign(taking, answered->reply, to);
		reply->run_id = answered->run_id;
		reply->list_user_id = answered->list_user_id;
	}
}

static bool
is_unassigned(const Reply *reply)
{
	return !reply->is_known && reply->schema == NULL;
}

/* Finds the group with that sender that has begun a run last. */
static void
assign_stranger(Taking *taking, int n, List *senders)
{
	ListCell *cell;

	foreach (cell, senders)
	{
		const SendingGroup *sending = lfirst(cell);
		const ReplyGroup   *to = find_group(taking->groups, sending->schema, sending->group_id);

		if (to && may_be_for(to, taking->messages[n]) && sending->since <= taking->replies[n].at)
		{
			assign(taking, n, to);
			return;
		}
	}
}

/* What answers nothing, but is not from before the group's first run, is for one group, too. */
static void
assign_strangers(Taking *taking)
{
	const ReplyGroup *first = linitial(taking->groups);
	List			 *senders = NIL;

	for (int i = 0; i < taking->count; i++)
	{
		if (!is_unassigned(&taking->replies[i]))
			continue;
		if (senders == NIL)
			senders = replies_find_groups(taking->role, first->scope.account);
		assign_stranger(taking, i, senders);
	}
}

/* Adds what the reply means for each group with that sender. */
static List *
add_words(List *words, const Taking *taking, int n)
{
	const Inbound *message = taking->messages[n];
	ListCell	  *cell;

	foreach (cell, taking->groups)
	{
		const ReplyGroup *to = lfirst(cell);
		const char		 *word = word_for(to, message);
		GroupWord		 *of_group;

		if (word == NULL)
			word = taking->replies[n].word;
		if (word == NULL || !may_be_for(to, message))
			continue;
		of_group = palloc(sizeof(GroupWord));
		*of_group = (GroupWord){&taking->replies[n], to->scope, word};
		words = lappend(words, of_group);
	}
	return words;
}

static bool
is_stored(const Reply *reply)
{
	return reply->is_new || (reply->is_known && !reply->is_erased);
}

/* Tells whether the word counts for its group for the first time. */
static bool
counts_now(const GroupWord *word)
{
	const Reply *reply = word->reply;

	return word->is_new || (reply->is_new && word->scope.group_id == reply->group_id &&
							strcmp(word->scope.schema, reply->schema) == 0);
}

/*
 * The sender is blocked for that phone number from now on, or no longer, and so
 * for all groups that have it.
 */
static void
follow_words(const Taking *taking)
{
	List	 *words = NIL;
	ListCell *cell;

	for (int i = 0; i < taking->count; i++)
	{
		if (is_stored(&taking->replies[i]))
			words = add_words(words, taking, i);
	}
	if (words == NIL)
		return;
	replies_store_words(taking->role, words);
	foreach (cell, words)
	{
		const GroupWord *word = lfirst(cell);

		if (counts_now(word))
			opt_out_or_in_by_reply(&word->scope, word->reply, word->word);
	}
}

/*
 * Somebody else may have stored a reply at the same time, for fewer groups: it is
 * known by now.
 */
static void
find_stored_meanwhile(const Taking *taking)
{
	for (int i = 0; i < taking->count; i++)
	{
		const Reply *reply = &taking->replies[i];

		if (!reply->is_known && !reply->is_new && reply->schema)
		{
			replies_find_known(taking->role, taking->replies, taking->count);
			return;
		}
	}
}

static List *
take_of_role(Oid role, List *groups, const Inbound *messages, int count)
{
	Taking taking = {.role = role, .groups = groups};
	List  *lines;

	add_messages(&taking, messages, count);
	if (taking.count == 0)
		return NIL;
	replies_find_known(role, taking.replies, taking.count);
	find_answered(&taking);
	assign_strangers(&taking);
	lines = replies_store(role, taking.replies, taking.count);
	find_stored_meanwhile(&taking);
	follow_words(&taking);
	return lines;
}

List *
replies_take(List *groups, const Inbound *messages, int count)
{
	List	 *lines = NIL;
	List	 *roles = NIL;
	ListCell *cell;

	foreach (cell, groups)
		roles = list_append_unique_oid(roles, ((ReplyGroup *) lfirst(cell))->scope.role);
	foreach (cell, roles)
	{
		List	 *of_role = NIL;
		ListCell *group;

		foreach (group, groups)
		{
			if (((ReplyGroup *) lfirst(group))->scope.role == lfirst_oid(cell))
				of_role = lappend(of_role, lfirst(group));
		}
		lines = list_concat(lines, take_of_role(lfirst_oid(cell), of_role, messages, count));
	}
	return lines;
}
