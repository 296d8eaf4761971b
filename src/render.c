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

/* The text is Twilio's, and so in UTF-8. */
static char *
to_utf8(const char *text)
{
	char *converted = pg_server_to_any(text, strlen(text), PG_UTF8);

	return converted == text ? pstrdup(text) : converted;
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
	return to_utf8(psprintf("%.*s%cyu=%lld&yc=%lld%s", length, base_url,
							memchr(base_url, '?', length) ? '&' : '?', (long long) list_user_id,
							(long long) campaign_id, fragment));
}

char *
render_text(const char *message, const char *link)
{
	return link ? psprintf("%s %s", to_utf8(message), link) : to_utf8(message);
}

/*
 * What people put between digits: ASCII, and what word processors make of it
 * (no-break and thin spaces, hyphens and dashes).  Returns its bytes, or 0.
 */
static int
separator_length(const char *s)
{
	static const char *const wide[] = {"\xc2\xa0",	   "\xe2\x80\xaf", "\xe2\x80\x89",
									   "\xe2\x80\x90", "\xe2\x80\x91", "\xe2\x80\x92",
									   "\xe2\x80\x93", "\xe2\x80\x94", "\xe2\x88\x92"};

	if (strchr(" \t\r\n-.()", *s))
		return 1;
	if (GetDatabaseEncoding() != PG_UTF8)
		return 0;
	for (int i = 0; i < lengthof(wide); i++)
	{
		if (strncmp(s, wide[i], strlen(wide[i])) == 0)
			return strlen(wide[i]);
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
		if ((skip = separator_length(phone)) > 0)
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
