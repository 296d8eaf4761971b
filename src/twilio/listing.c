/*-------------------------------------------------------------------------
 *
 * listing.c
 *	  Reads a page of Twilio's list of messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "twilio/http_date.h"
#include "twilio/json.h"
#include "twilio/listing.h"
#include "twilio/request.h"

/* Items are elements of an array in the outermost object. */
#define ITEM_DEPTH 3

typedef struct Page
{
	ListedMessageFunction function;
	void				 *arg;
	ListedMessage		  item;
	bool				  is_list; /* true if it has the member "messages" */
	bool				  bad_sid; /* true if it has a SID that cannot be Twilio's */
	char				 *next_page;
} Page;

static void
item_member(ListedMessage *item, const char *key, const char *value)
{
	if (strcmp(key, "sid") == 0)
		item->sid = value;
	else if (strcmp(key, "to") == 0)
		item->to = value;
	else if (strcmp(key, "from") == 0)
		item->from = value;
	else if (strcmp(key, "messaging_service_sid") == 0)
		item->messaging_service_sid = value;
	else if (strcmp(key, "body") == 0)
		item->body = value;
	else if (strcmp(key, "date_created") == 0)
		item->created = http_parse_date(value);
	else if (strcmp(key, "num_segments") == 0)
		item->segments = atoi(value);
	else if (strcmp(key, "num_media") == 0)
		item->media = atoi(value);
	else if (strcmp(key, "date_sent") == 0)
		item->sent = http_parse_date(value);
	else if (strcmp(key, "direction") == 0)
		item->inbound = strcmp(value, "inbound") == 0;
}

static void
page_member(void *arg, int depth, const char *key, const char *value)
{
	Page *page = arg;

	if (depth == ITEM_DEPTH && value)
	{
		item_member(&page->item, key, value);
		if (strcmp(key, "sid") == 0 && !sid_is_valid(value))
			page->bad_sid = true;
	}
	else if (depth == 1 && strcmp(key, "messages") == 0)
		page->is_list = value == json_array;
	else if (depth == 1 && strcmp(key, "next_page_uri") == 0)
		page->next_page = value ? pstrdup(value) : NULL;
}

static void
page_object_end(void *arg, int depth)
{
	Page *page = arg;

	if (depth != ITEM_DEPTH)
		return;
	page->function(page->arg, &page->item);
	memset(&page->item, 0, sizeof(page->item));
}

const char *
read_listing(const HttpResponse *response, ListedMessageFunction function, void *arg,
			 char **next_page)
{
	Page page = {function, arg};

	if (response->result != HTTP_ANSWERED)
		return response->error;
	if (response->status != 200)
		return psprintf("HTTP status %ld", response->status);
	if (response->truncated)
		return "answer too long";
	if (!json_scan(response->body, response->body_length, page_member, page_object_end, &page) ||
		!page.is_list || page.bad_sid)
		return "answer is not a list of messages";
	*next_page = page.next_page;
	return NULL;
}

/* Tells whether the last four digits are hidden, as in "+1555010XXXX". */
static bool
is_masked(const char *number)
{
	size_t length = number ? strlen(number) : 0;

	return length > 4 && (number[0] == '+' || isdigit((unsigned char) number[0])) &&
		   strcmp(number + length - 4, "XXXX") == 0;
}

bool
is_redacted(const ListedMessage *message)
{
	return !message->inbound &&
		   (is_masked(message->to) || is_masked(message->from) ||
			((message->body == NULL || message->body[0] == '\0') && message->media == 0));
}

bool
is_link_rewritten(const ListedMessage *message, const char *text, const char *link)
{
	const char *found = strstr(text, link);
	size_t		before = found ? found - text : 0;
	size_t		after = found ? strlen(found) - strlen(link) : 0;
	const char *body = message->body;
	size_t		length = body ? strlen(body) : 0;

	if (found == NULL || length < before + after || strncmp(body, text, before) != 0 ||
		strcmp(body + length - after, text + strlen(text) - after) != 0)
		return false;

	/* another recipient's link is unchanged */
	return strstr(body, pnstrdup(link, strcspn(link, "?"))) == NULL;
}

bool
is_from_sender(const ListedMessage *message, const char *sender)
{
	const char *from = is_messaging_service(sender) ? message->messaging_service_sid
													: message->from;

	return from && strcmp(from, sender) == 0;
}
