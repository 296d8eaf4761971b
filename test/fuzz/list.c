/*
 * list.c
 *		A page of Twilio's list of messages, and the URL of the next one.
 */
#include "fuzz.h"

#include <curl/curl.h>

#include "../../src/twilio/listing.h"
#include "../../src/twilio/request.h"
#include "../../src/settings.h"

char *sendcampaign_api_url = "https://api.twilio.com";

static void
note(void *arg, const ListedMessage *message)
{
	appendStringInfo(arg, "%s|%s|%s|%s|%s|%lld|%d\n", message->sid ? message->sid : "-",
					 message->to ? message->to : "-", message->from ? message->from : "-",
					 message->messaging_service_sid ? message->messaging_service_sid : "-",
					 message->body ? message->body : "-", (long long) message->created,
					 message->segments);
	promise(message->created >= 0);
	(void) is_from_sender(message, "+15005550006");
	(void) is_from_sender(message, "MG00000000000000000000000000000001");
}

static const char *
read_page(const char *body, int length, char **next_page, StringInfo items)
{
	HttpResponse response = {.result = HTTP_ANSWERED,
							 .status = 200,
							 .body = body,
							 .body_length = length,
							 .retry_after = -1,
							 .error = ""};

	initStringInfo(items);
	*next_page = NULL;
	return read_listing(&response, note, items, next_page);
}

/* Credentials go there: it must never name another host. */
static void
check_next_page(const char *next_page, const char *regional, const char *expected)
{
	StringInfoData url;
	CURLU		  *parts = curl_url();
	char		  *host = NULL;

	initStringInfo(&url);
	if (append_next_page_url(&url, regional, next_page) &&
		curl_url_set(parts, CURLUPART_URL, url.data, 0) == CURLUE_OK &&
		curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK)
		promise(strcmp(host, expected) == 0);
	curl_free(host);
	curl_url_cleanup(parts);
}

void
fuzz_one(const char *data, size_t size)
{
	StringInfoData items;
	StringInfoData of_pretty;
	char		  *next_page;
	char		  *next_of_pretty;
	int			   length;
	char		  *pretty = fuzz_pretty(data, size, &length);
	const char	  *problem = read_page(data, size, &next_page, &items);
	const char	  *also = read_page(pretty, length, &next_of_pretty, &of_pretty);

	promise((problem == NULL) == (also == NULL));
	if (problem)
		return;
	promise(strcmp(items.data, of_pretty.data) == 0);
	promise((next_page == NULL) == (next_of_pretty == NULL));
	if (next_page)
	{
		promise(strcmp(next_page, next_of_pretty) == 0);
		check_next_page(next_page, NULL, "api.twilio.com");
		check_next_page(next_page, "api.dublin.ie1.twilio.com", "api.dublin.ie1.twilio.com");
	}
}
