/*-------------------------------------------------------------------------
 *
 * listing.c
 *	  Reads a page of Twilio's list of messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "json.h"
#include "listing.h"
#include "request.h"

/* Items are members of the array in the outermost object. */
#define ITEM_DEPTH 3

typedef struct Page
{
	ListedMessageFunction function;
	void				 *arg;
	ListedMessage		  item;
	bool				  is_list; /* has the member messages */
	bool				  bad_sid; /* one that cannot be Twilio's */
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
		return "answer is no list of messages";
	*next_page = page.next_page;
	return NULL;
}

bool
is_from_sender(const ListedMessage *message, const char *sender)
{
	const char *from = is_messaging_service(sender) ? message->messaging_service_sid
													: message->from;

	return from && strcmp(from, sender) == 0;
}
