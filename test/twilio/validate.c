/*
 * validate.c
 *		Checks the parameters of a create request.  The magic numbers of
 *		Twilio's test credentials work with all credentials.
 */
#include "request.h"
#include "clock.h"
#include "content.h"
#include "messages.h"

#include <string.h>

#define BODY_MAX	 1600
#define VALIDITY_MAX 36000

typedef struct magic_number
{
	const char *number;
	int			code; /* 0: accepted */
} magic_number;

static const char magic_prefix[] = "+15005550";

static const magic_number magic_from[] = {{"+15005550001", 21212},
										  {"+15005550006", 0},
										  {"+15005550007", 21606},
										  {"+15005550008", 21611},
										  {NULL, 21606}};

static const magic_number magic_to[] = {{"+15005550001", 21211}, {"+15005550002", 21612},
										{"+15005550003", 21408}, {"+15005550004", 21610},
										{"+15005550009", 21614}, {NULL, 0}};

static int
magic_code(const magic_number *table, text number)
{
	while (table->number != NULL && !text_is(number, table->number))
		table++;
	return table->code;
}

static bool
is_magic(text number)
{
	return text_starts(number, magic_prefix) && number.len == 12;
}

static const char whatsapp[] = "whatsapp:";

/* Returns the number without the channel that may precede it. */
static text
number_of(text address)
{
	size_t len = sizeof(whatsapp) - 1;

	if (!text_starts(address, whatsapp))
		return address;
	return (text){address.data + len, address.len - len};
}

static bool
is_e164(text number)
{
	if (number.len < 8 || number.len > 16 || number.data[0] != '+' || number.data[1] == '0')
		return false;
	for (size_t i = 1; i < number.len; i++)
	{
		if (number.data[i] < '0' || number.data[i] > '9')
			return false;
	}
	return true;
}

static int
check_to(text to)
{
	if (to.len == 0)
		return 21604;
	to = number_of(to);
	if (!is_e164(to))
		return 21211;
	return is_magic(to) ? magic_code(magic_to, to) : 0;
}

static int
check_from(text from)
{
	if (from.len > SENDER_MAX)
		return 21212;
	if (is_magic(number_of(from)))
		return magic_code(magic_from, number_of(from));
	return sender_known(from) ? 0 : 21606;
}

static int
check_service(text service)
{
	if (service.len > SENDER_MAX || !text_starts(service, "MG") || !sender_known(service))
		return 21701;
	return 0;
}

static int
check_sender(text from, text service)
{
	if (from.len == 0 && service.len == 0)
		return 21603;
	if (service.len > 0)
	{
		int code = check_service(service);

		if (code != 0)
			return code;
	}
	return from.len > 0 ? check_from(from) : 0;
}

static int
check_body(const form *params)
{
	text body = form_get(params, "Body");

	if (body.len == 0 && form_get(params, "MediaUrl").len == 0 &&
		form_get(params, "ContentSid").len == 0)
		return 21602;
	if (body.len > BODY_MAX && utf8_length(body) > BODY_MAX)
		return 21617;
	return 0;
}

/* A sender and a recipient have the same channel. */
static int
check_channel(text from, text to)
{
	if (from.len > 0 && text_starts(from, whatsapp) != text_starts(to, whatsapp))
		return 21910;
	return 0;
}

/* http or https, a host without an underscore, no blanks, at most 4000 characters */
static bool
is_url(text url)
{
	size_t start = text_starts(url, "https://") ? 8 : 7;
	size_t at = start;

	if (start == 7 && !text_starts(url, "http://"))
		return false;
	while (at < url.len && memchr("/?#_", url.data[at], 4) == NULL)
		at++;
	if (at == start || (at < url.len && url.data[at] == '_'))
		return false;
	for (size_t i = 0; i < url.len; i++)
	{
		if ((unsigned char) url.data[i] <= ' ')
			return false;
	}
	return url.len <= 4000;
}

static int
check_callback(text url)
{
	return url.data == NULL || is_url(url) ? 0 : 21609;
}

static int
check_validity(text seconds)
{
	double number;

	if (seconds.data == NULL)
		return 0;
	if (!text_number(seconds, &number) || number < 1 || number > VALIDITY_MAX ||
		number != (int) number)
		return 21624;
	return 0;
}

static int
check_media(const form *params)
{
	for (int i = 0; i < params->count; i++)
	{
		const param *p = &params->items[i];

		if (text_is(p->name, MEDIA_PARAM) && !is_url(p->value))
			return 21620;
	}
	return form_count(params, MEDIA_PARAM) > MEDIA_MAX ? 21623 : 0;
}

static int
check_content(const form *params)
{
	text sid = form_get(params, "ContentSid");
	text variables = form_get(params, "ContentVariables");
	buf	 rendered = {NULL, 0, 0};
	int	 code;

	if (sid.len == 0)
		return variables.len > 0 ? 21654 : 0;
	code = content_render(&rendered, sid, variables);
	buf_free(&rendered);
	return code;
}

static int
check_schedule(const form *params, text service, int64_t skew_s)
{
	int64_t now = now_us() / US_PER_S + skew_s;
	int64_t at;
	int64_t until;

	if (form_get(params, "ScheduleType").len == 0)
		return 0;
	if (service.len == 0)
		return 35118;
	if (!parse_date(form_get(params, "SendAt"), &at, &until) || at < now + 300 ||
		at > now + 35 * 86400)
		return 35114;
	return 0;
}

/* Returns 0, or the code of the first error. */
int
create_check(const request *r)
{
	const form *params = &r->params;
	text		service = form_get(params, "MessagingServiceSid");
	text		from = form_get(params, "From");
	text		to = form_get(params, "To");
	int			code = r->too_large ? 21617 : 0;

	if (code == 0)
		code = check_to(to);
	if (code == 0)
		code = check_sender(from, service);
	if (code == 0)
		code = check_channel(from, to);
	if (code == 0)
		code = check_body(params);
	if (code == 0)
		code = check_callback(form_get(params, "StatusCallback"));
	if (code == 0)
		code = check_validity(form_get(params, "ValidityPeriod"));
	if (code == 0)
		code = check_media(params);
	if (code == 0)
		code = check_content(params);
	if (code == 0)
		code = check_schedule(params, service, r->skew_s);
	return code;
}
