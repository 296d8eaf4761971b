/*-------------------------------------------------------------------------
 *
 * render.c
 *	  The text of a message and the phone it goes to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "render.h"

#define E164_MAX_DIGITS 15

char *
to_utf8(char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

char *
render_link(const char *base_url, int64 list_user_id, int64 campaign_id)
{
	const char *fragment;
	int			length;

	if (base_url == NULL || base_url[0] == '\0')
		return NULL;

	/* the query goes before the fragment, if there is one */
	fragment = strchrnul(base_url, '#');
	length = fragment - base_url;
	return psprintf("%.*s%cyu=%lld&yc=%lld%s", length, base_url,
					memchr(base_url, '?', length) ? '&' : '?', (long long) list_user_id,
					(long long) campaign_id, fragment);
}

/* What people put between digits: its bytes, or 0. */
static int
separator_length(const char *s)
{
	int length;

	if (strchr(" \t\r\n-.()", *s))
		return 1;
	if (!IS_HIGHBIT_SET(*s) || GetDatabaseEncoding() != PG_UTF8)
		return 0;
	length = pg_mblen(s);
	for (const char *wide = WIDE_SEPARATORS; *wide; wide += pg_mblen(wide))
	{
		if (pg_mblen(wide) == length && strncmp(s, wide, length) == 0)
			return length;
	}
	return 0;
}

char *
normalize_phone(const char *phone)
{
	StringInfoData digits; /* with the leading + */
	int			   skip;

	initStringInfo(&digits);
	while (*phone)
	{
		if (*phone >= '0' && *phone <= '9')
			appendStringInfoCharMacro(&digits, *phone++);
		else if ((skip = separator_length(phone)) > 0)
			phone += skip;
		else
			appendStringInfoChar(&digits, *phone++);
	}
	if (strncmp(digits.data, "00", 2) == 0)
	{
		memmove(digits.data + 1, digits.data + 2, digits.len - 1);
		digits.data[0] = '+';
		digits.len--;
	}
	if (digits.data[0] != '+' || digits.data[1] == '0' || digits.len < 3 ||
		digits.len > E164_MAX_DIGITS + 1 || strspn(digits.data + 1, "0123456789") != digits.len - 1)
		return NULL;
	return digits.data;
}

char *
require_phone(const char *phone)
{
	char *e164 = phone ? normalize_phone(phone) : NULL;

	if (e164 == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("phone number is not in E.164 form"),
						errhint("Write it with a plus sign and the country, as +15550000001.")));
	return e164;
}
