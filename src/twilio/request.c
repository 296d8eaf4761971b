/*-------------------------------------------------------------------------
 *
 * request.c
 *	  The URL and the form of each request to Twilio.
 *
 * Knows Twilio's names, but nothing of SQL or of how requests are transferred.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "twilio/http.h"
#include "twilio/request.h"

/* Twilio's largest page. */
#define PAGE_SIZE "1000"

/* Twilio's have 34. */
#define MAX_SID_LENGTH 64

void
append_messages_url(StringInfo buf, const char *account)
{
	int length = strlen(sendcampaign_api_url);

	while (length > 0 && sendcampaign_api_url[length - 1] == '/')
		length--;
	appendBinaryStringInfo(buf, sendcampaign_api_url, length);
	appendStringInfoString(buf, "/2010-04-01/Accounts/");
	http_append_escaped(buf, account);
	appendStringInfoString(buf, "/Messages.json");
}

bool
is_messaging_service(const char *sender)
{
	return strncmp(sender, "MG", 2) == 0 && strlen(sender) == 34;
}

bool
sid_is_valid(const char *sid)
{
	size_t length = strspn(sid, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

	return length > 0 && length <= MAX_SID_LENGTH && sid[length] == '\0';
}

void
append_create_form(StringInfo form, const char *sender, const char *phone, const char *text)
{
	http_append_form(form, "To", phone);
	http_append_form(form, is_messaging_service(sender) ? "MessagingServiceSid" : "From", sender);
	http_append_form(form, "Body", text);
}

void
append_list_query(StringInfo url, const char *phone)
{
	appendStringInfoString(url, "?PageSize=" PAGE_SIZE "&To=");
	http_append_escaped(url, phone);
}

void
append_read_back_query(StringInfo url)
{
	appendStringInfoString(url, "?PageSize=" PAGE_SIZE);
}

/* Returns the length of scheme, host and port at the beginning of a URL. */
static int
origin_length(const char *url)
{
	const char *host = strstr(url, "://");

	return host ? host + 3 - url + strcspn(host + 3, "/?#") : 0;
}

/* The same, without the port if it is the scheme's default. */
static int
short_origin_length(const char *url)
{
	int			length = origin_length(url);
	const char *port = pg_strncasecmp(url, "https:", 6) == 0 ? ":443" : ":80";
	int			port_length = strlen(port);

	if (length > port_length && strncmp(url + length - port_length, port, port_length) == 0)
		return length - port_length;
	return length;
}

bool
append_next_page_url(StringInfo buf, const char *next_page_uri)
{
	const char *path = next_page_uri;
	int			length = short_origin_length(sendcampaign_api_url);

	/* credentials go to no other server: what precedes the path must be ours */
	if (path[0] != '/' && short_origin_length(path) == length &&
		pg_strncasecmp(path, sendcampaign_api_url, length) == 0)
		path += origin_length(path);
	/* "//host/..." would name another host */
	if (path[0] != '/' || path[1] == '/')
		return false;
	appendBinaryStringInfo(buf, sendcampaign_api_url, origin_length(sendcampaign_api_url));
	appendStringInfoString(buf, path);
	return true;
}
