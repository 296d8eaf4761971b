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

/* Twilio's longest edge has 12 characters, and its longest region 3. */
#define MAX_NAME_LENGTH 32

/* Credentials go to that host: a name must not be able to end it, or to begin another. */
static bool
is_host_label(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return length > 0 && length <= MAX_NAME_LENGTH && name[length] == '\0' && name[0] != '-' &&
		   name[length - 1] != '-';
}

char *
regional_host(const char *edge, const char *region)
{
	if (!is_host_label(edge) || !is_host_label(region))
		return NULL;
	return psprintf("api.%s.%s.twilio.com", edge, region);
}

/* Returns what all URLs begin with, without the slashes at its end; not NUL-terminated. */
static const char *
base_url(const char *host, int *length)
{
	const char *url = host ? psprintf("https://%s", host) : sendcampaign_api_url;

	*length = strlen(url);
	while (*length > 0 && url[*length - 1] == '/')
		(*length)--;
	return url;
}

static void
append_account_url(StringInfo buf, const char *host, const char *account_sid)
{
	int			length;
	const char *base = base_url(host, &length);

	appendBinaryStringInfo(buf, base, length);
	appendStringInfoString(buf, "/2010-04-01/Accounts/");
	http_append_escaped(buf, account_sid);
}

void
append_messages_url(StringInfo buf, const char *host, const char *account_sid)
{
	append_account_url(buf, host, account_sid);
	appendStringInfoString(buf, "/Messages.json");
}

void
append_message_url(StringInfo buf, const char *host, const char *account_sid, const char *sid)
{
	append_account_url(buf, host, account_sid);
	appendStringInfoString(buf, "/Messages/");
	http_append_escaped(buf, sid);
	appendStringInfoString(buf, ".json");
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

bool
is_whatsapp(const char *sender)
{
	return strncmp(sender, WHATSAPP, strlen(WHATSAPP)) == 0;
}

bool
is_through_whatsapp(const char *from, const char *to)
{
	return (from && is_whatsapp(from)) || (to && is_whatsapp(to));
}

const char *
address_of(const char *sender, const char *phone)
{
	return is_whatsapp(sender) ? psprintf(WHATSAPP "%s", phone) : phone;
}

const char *
number_of_address(const char *address)
{
	return is_whatsapp(address) ? address + strlen(WHATSAPP) : address;
}

/* Appends the text, or what Twilio makes it from.  An empty one is left out, as are no variables. */
static void
append_content(StringInfo form, const MessageRequest *message)
{
	if (message->content_sid)
	{
		http_append_form(form, "ContentSid", message->content_sid);
		if (strcmp(message->text, "{}") != 0)
			http_append_form(form, "ContentVariables", message->text);
	}
	else if (message->text[0] || message->num_media == 0)
		http_append_form(form, "Body", message->text);
	for (int i = 0; i < message->num_media; i++)
		http_append_form(form, "MediaUrl", message->media_urls[i]);
}

void
append_create_form(StringInfo form, const MessageRequest *message)
{
	char validity[12];

	http_append_form(form, "To", address_of(message->sender, message->phone));
	http_append_form(form, is_messaging_service(message->sender) ? "MessagingServiceSid" : "From",
					 message->sender);
	append_content(form, message);
	if (message->smart_encoded && !is_whatsapp(message->sender))
		http_append_form(form, "SmartEncoded", "true");
	if (message->validity > 0)
	{
		snprintf(validity, sizeof(validity), "%d", message->validity);
		http_append_form(form, "ValidityPeriod", validity);
	}
	if (message->status_callback)
		http_append_form(form, "StatusCallback", message->status_callback);
}

void
append_list_query(StringInfo url, const char *sender, const char *phone)
{
	appendStringInfoString(url, "?PageSize=" PAGE_SIZE "&To=");
	http_append_escaped(url, address_of(sender, phone));
}

void
append_sender_query(StringInfo url, const char *sender)
{
	appendStringInfoString(url, "?PageSize=" PAGE_SIZE "&From=");
	http_append_escaped(url, sender);
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
api_url_is_twilios(void)
{
	static const char twilios[] = "https://api.twilio.com";
	int				  length;
	const char		 *base = base_url(NULL, &length);

	return origin_length(base) == length && short_origin_length(base) == strlen(twilios) &&
		   pg_strncasecmp(base, twilios, strlen(twilios)) == 0;
}

bool
append_next_page_url(StringInfo buf, const char *host, const char *next_page_uri)
{
	const char *path = next_page_uri;
	int			base_length;
	const char *base = base_url(host, &base_length);
	int			length = short_origin_length(base);

	/* credentials go to no other server: what precedes the path must be ours */
	if (path[0] != '/' && short_origin_length(path) == length &&
		pg_strncasecmp(path, base, length) == 0)
		path += origin_length(path);
	/* "//host/..." would name another host */
	if (path[0] != '/' || path[1] == '/')
		return false;
	appendBinaryStringInfo(buf, base, origin_length(base));
	appendStringInfoString(buf, path);
	return true;
}
