/*-------------------------------------------------------------------------
 *
 * listing.c
 *	  Reads a page of Twilio's list of messages, or one message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "twilio/http_date.h"
#include "twilio/json.h"
#include "twilio/listing.h"
#include "twilio/request.h"

/* Items are elements of an array in the outermost object, or that object itself. */
#define ITEM_DEPTH	 3
#define SINGLE_DEPTH 1

/* No code or count of Twilio's has more digits. */
#define MAX_DIGITS 9

/* A date as text, and its time. */
typedef struct KnownDate
{
	char	  date[40];
	pg_time_t time;
} KnownDate;

typedef struct Page
{
	ListedMessageFunction function;
	void				 *arg;
	int					  item_depth;
	ListedMessage		  item;
	bool				  is_list; /* true if it has the member "messages" */
	bool				  has_sid; /* true if an item has a SID */
	bool				  bad_sid; /* true if it has a SID that cannot be Twilio's */
	char				 *next_page;
	KnownDate			  updated; /* the last ones that were read */
	KnownDate			  created;
	KnownDate			  sent;
} Page;

/* Many messages in a row have the same date, and reading one takes time. */
static pg_time_t
parse_date(KnownDate *known, const char *value)
{
	pg_time_t time;

	if (strcmp(known->date, value) == 0)
		return known->time;
	time = http_parse_date(value);
	if (strlen(value) < sizeof(known->date))
	{
		strlcpy(known->date, value, sizeof(known->date));
		known->time = time;
	}
	return time;
}

/* Returns 0 if it is no such number. */
static int
parse_number(const char *value)
{
	size_t length = strspn(value, "0123456789");

	return value[length] == '\0' && length <= MAX_DIGITS ? atoi(value) : 0;
}

/* Returns false if it is none of these. */
static bool
receipt_member(Page *page, const char *key, const char *value)
{
	ListedMessage *item = &page->item;

	if (strcmp(key, "status") == 0)
		item->status = value;
	else if (strcmp(key, "error_code") == 0)
		item->error_code = parse_number(value);
	else if (strcmp(key, "price") == 0)
		item->price = value;
	else if (strcmp(key, "price_unit") == 0)
		item->price_unit = value;
	else if (strcmp(key, "date_updated") == 0)
		item->updated = parse_date(&page->updated, value);
	else
		return false;
	return true;
}

static void
item_member(Page *page, const char *key, const char *value)
{
	ListedMessage *item = &page->item;

	if (receipt_member(page, key, value))
		return;
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
		item->created = parse_date(&page->created, value);
	else if (strcmp(key, "num_segments") == 0)
		item->segments = parse_number(value);
	else if (strcmp(key, "num_media") == 0)
		item->media = parse_number(value);
	else if (strcmp(key, "date_sent") == 0)
		item->sent = parse_date(&page->sent, value);
	else if (strcmp(key, "direction") == 0)
		item->inbound = strcmp(value, "inbound") == 0;
}

static void
page_member(void *arg, int depth, const char *key, const char *value)
{
	Page *page = arg;

	if (depth == page->item_depth && value)
	{
		item_member(page, key, value);
		if (strcmp(key, "sid") != 0)
			return;
		page->has_sid = true;
		page->bad_sid |= !sid_is_valid(value);
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

	if (depth != page->item_depth)
		return;
	page->function(page->arg, &page->item);
	memset(&page->item, 0, sizeof(page->item));
}

/* Returns what is wrong with the answer, or NULL if it is well-formed. */
static const char *
scan_page(const HttpResponse *response, Page *page, bool *is_json)
{
	*is_json = false;
	if (response->result != HTTP_ANSWERED)
		return response->error;
	if (response->status != 200)
		return psprintf("HTTP status %ld", response->status);
	if (response->truncated)
		return "answer too long";
	*is_json = json_scan(response->body, response->body_length, page_member, page_object_end,
						 page) &&
			   !page->bad_sid;
	return NULL;
}

const char *
read_listing(const HttpResponse *response, ListedMessageFunction function, void *arg,
			 char **next_page)
{
	Page		page = {function, arg, ITEM_DEPTH};
	bool		is_json;
	const char *problem = scan_page(response, &page, &is_json);

	if (problem)
		return problem;
	if (!is_json || !page.is_list)
		return "answer is not a list of messages";
	*next_page = page.next_page;
	return NULL;
}

const char *
read_message(const HttpResponse *response, ListedMessageFunction function, void *arg)
{
	Page		page = {function, arg, SINGLE_DEPTH};
	bool		is_json;
	const char *problem = scan_page(response, &page, &is_json);

	if (problem)
		return problem;
	return is_json && page.has_sid ? NULL : "answer is not a message";
}

/* Tells whether the last four digits are hidden, as in "+1555010XXXX". */
static bool
is_masked(const char *number)
{
	size_t length;

	if (number == NULL)
		return false;
	number = number_of_address(number);
	length = strlen(number);
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
is_to(const ListedMessage *message, const char *sender, const char *phone)
{
	return message->to && is_whatsapp(message->to) == is_whatsapp(sender) &&
		   strcmp(number_of_address(message->to), phone) == 0;
}

bool
is_from_sender(const ListedMessage *message, const char *sender)
{
	const char *from = is_messaging_service(sender) ? message->messaging_service_sid
													: message->from;

	return from && strcmp(from, sender) == 0;
}
