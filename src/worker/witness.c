/*-------------------------------------------------------------------------
 *
 * witness.c
 *	  By what Twilio's list shows a message, and whether it shows this one.
 *
 * The list shows what recipients get, not what was asked for.  Smart Encoding
 * replaces characters, the text of a content template is put together by
 * Twilio, and where media cannot be delivered, a text with a link to them may
 * be sent instead.  A message that may be shown like that is not missing: if
 * the list has something that it can be, nobody can tell.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/link.h"
#include "campaign/smart_encoding.h"
#include "worker/witness.h"

#define CHARACTERS_REPLACED                                                                        \
	"Twilio's list has a text that is its own if Twilio has replaced characters in it"

#define OF_TEMPLATE                                                                                \
	"Twilio's list has a message to its number, and does not show from which content template"

#define MEDIA_REPLACED                                                                             \
	"Twilio's list has a text that is its own if Twilio has replaced its media by a link"

ListedBy
listed_by(const Message *message)
{
	if (message->content)
		return LISTED_BY_NUMBER;
	if (message->link)
		return LISTED_BY_LINK;
	return message->text[0] ? LISTED_BY_TEXT : LISTED_BY_NUMBER;
}

/* Compares its date, by the clock of Twilio's answers; false if that is missing. */
static bool
is_before_claim(const ListedMessage *listed, pg_time_t claimed)
{
	return listed->created > 0 && listed->created < claimed;
}

/* Tells whether the list may hide the message: of media, a text may be missing. */
static bool
may_be_hidden(const Message *message, const ListedMessage *listed)
{
	bool is_bare = listed->body == NULL || listed->body[0] == '\0';

	return is_redacted(listed) || (is_bare && message->has_media && message->text[0]);
}

/* Tells whether the list may show its text with another link. */
static bool
has_other_link(const Message *message, const ListedMessage *listed)
{
	ListedMessage shown = *listed;

	if (message->link == NULL || listed->to == NULL || listed->body == NULL)
		return false;
	shown.body = smart_text(listed->body);
	return is_link_rewritten(&shown, smart_text(message->text), smart_text(message->link));
}

static bool
begins_with(const char *body, const char *text)
{
	return strncmp(body, text, strlen(text)) == 0;
}

bool
is_shown_without_media(const char *text, const char *body)
{
	return begins_with(body, text) || begins_with(body, smart_text(text));
}

/*
 * Compares texts that have no link.  Returns false if they are different;
 * otherwise sets *why if the list cannot tell.
 */
static bool
is_same_text(const Message *message, const ListedMessage *listed, pg_time_t claimed,
			 const char **why)
{
	const char *sender = message->queue->sender->name;
	const char *body = listed->body ? listed->body : "";
	SmartMatch	match = smart_match(message->text, body);

	if (!is_to(listed, sender, message->phone) || (listed->body == NULL && !message->has_media))
		return false;
	if (message->has_media && (listed->media == 0 || match == SMART_DIFFERENT))
	{
		*why = MEDIA_REPLACED;
		return is_shown_without_media(message->text, body);
	}
	if (match == SMART_DIFFERENT)
		return false;
	if (match == SMART_POSSIBLE)
	{
		*why = CHARACTERS_REPLACED;
		return true;
	}
	if (!is_from_sender(listed, sender))
		*why = "Twilio's list has its text from another sender";
	else if (is_before_claim(listed, claimed))
		*why = "Twilio's list has a message with its text, dated before it was claimed";
	return true;
}

/*
 * The link identifies campaign and recipient, whatever Twilio made of the
 * sender; without a link, the sender must be the same.  What the list shows
 * differently from how it was sent may be the message, too, unless another
 * message has its SID.  Nor does a link identify the run: that of an earlier
 * run may have been forgotten.
 */
bool
can_be_listed_as(const Message *message, const ListedMessage *listed, pg_time_t claimed,
				 const char **why)
{
	LinkMatch match = LINK_MISSING;

	*why = NULL;
	if (message->link && listed->body)
		match = link_match(message->claim->run->campaign.listed_form, smart_text(listed->body),
						   message->list_user_id);
	if (match == LINK_AMBIGUOUS)
		*why = "Twilio's list has a message with both its link and another recipient's link";
	else if (match == LINK_MISSING && may_be_hidden(message, listed))
		*why = REDACTED;
	else if (match == LINK_MISSING && message->content)
		*why = OF_TEMPLATE;
	else if (match == LINK_MISSING && has_other_link(message, listed))
		*why = LINKS_REWRITTEN;
	else if (match != LINK_MISSING && is_before_claim(listed, claimed))
		*why = "Twilio's list has a message with its link, dated before it was claimed";
	if (match != LINK_MISSING || *why != NULL)
		return true;
	return message->link == NULL && is_same_text(message, listed, claimed, why);
}
