/*
 * url.c
 *		Dates, URLs and what is escaped in them: from a header, a setting, a
 *		list, or the application's tables.
 */
#include "fuzz.h"

#include <curl/curl.h>

#include "../../src/twilio/http.h"
#include "../../src/twilio/http_date.h"
#include "../../src/twilio/request.h"
#include "../../src/settings.h"

char *sendcampaign_api_url = "https://api.twilio.com/";

static void
check_escape(const char *text)
{
	StringInfoData escaped;
	char		  *back;
	int			   length;

	initStringInfo(&escaped);
	http_append_escaped(&escaped, text);
	promise(strpbrk(escaped.data, "/?#&=+ \r\n") == NULL);
	back = curl_easy_unescape(NULL, escaped.data, escaped.len, &length);
	promise(length == strlen(text) && memcmp(back, text, length) == 0);
	curl_free(back);
}

static void
check_safe(const char *url)
{
	static const char *const schemes[] = {"https:", "http:"};
	bool					 known = false;

	if (!http_url_is_safe(url))
		return;
	for (int i = 0; i < lengthof(schemes); i++)
		known |= pg_strncasecmp(url, schemes[i], strlen(schemes[i])) == 0;
	promise(known);
}

/* Whatever the names are, the host is Twilio's. */
static void
check_region(const char *name)
{
	char		  *host = regional_host(name, name);
	StringInfoData url;
	CURLU		  *parts;
	char		  *found = NULL;

	if (host == NULL)
		return;
	initStringInfo(&url);
	append_messages_url(&url, host, "AC1");
	parts = curl_url();
	promise(curl_url_set(parts, CURLUPART_URL, url.data, 0) == CURLUE_OK);
	promise(curl_url_get(parts, CURLUPART_HOST, &found, 0) == CURLUE_OK);
	promise(strcmp(found, host) == 0 && strncmp(host, "api.", 4) == 0);
	promise(strcmp(host + strlen(host) - 11, ".twilio.com") == 0);
	curl_free(found);
	curl_url_cleanup(parts);
}

void
fuzz_one(const char *data, size_t size)
{
	StringInfoData buf;

	promise(http_parse_date(data) >= 0);
	check_safe(data);
	check_escape(data);
	check_region(data);
	initStringInfo(&buf);
	append_messages_url(&buf, NULL, data);
	promise(strncmp(buf.data, "https://api.twilio.com/2010-04-01/Accounts/", 43) == 0);
	promise(strcmp(buf.data + buf.len - 14, "/Messages.json") == 0);
	initStringInfo(&buf);
	append_create_form(&buf, &(MessageRequest){.sender = data,
											   .phone = "+15550000001",
											   .text = data,
											   .media_urls = (char *[]){(char *) data},
											   .num_media = 1,
											   .validity = 60});
	promise(strchr(buf.data, '\n') == NULL);
}
