/*
 * validate.c
 *		Checks the parameters of a create request.  The magic numbers of
 *		Twilio's test credentials work with all credentials.
 */
#include "request.h"
#include "clock.h"
#include "messages.h"

#include <string.h>

#define BODY_MAX 1600

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
	if (!is_e164(to))
		return 21211;
	return is_magic(to) ? magic_code(magic_to, to) : 0;
}

static int
check_from(text from)
{
	if (from.len > SENDER_MAX)
		return 21212;
	if (is_magic(from))
		return magic_code(magic_from, from);
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

/* http or https, a host without an underscore, at most 4000 characters */
static int
check_callback(text url)
{
	size_t start;
	size_t at;

	if (url.data == NULL)
		return 0;
	if (text_starts(url, "https://"))
		start = 8;
	else if (text_starts(url, "http://"))
		start = 7;
	else
		return 21609;
	at = start;
	while (at < url.len && memchr("/?#_", url.data[at], 4) == NULL)
		at++;
	if (at == start || (at < url.len && url.data[at] == '_'))
		return 21609;
	return url.len > 4000 ? 21609 : 0;
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
	int			code = r->too_large ? 21617 : 0;

	if (code == 0)
		code = check_to(form_get(params, "To"));
	if (code == 0)
		code = check_sender(form_get(params, "From"), service);
	if (code == 0)
		code = check_body(params);
	if (code == 0)
		code = check_callback(form_get(params, "StatusCallback"));
	if (code == 0)
		code = check_schedule(params, service, r->skew_s);
	return code;
}
