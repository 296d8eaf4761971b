/*-------------------------------------------------------------------------
 *
 * link.c
 *	  The tracking link: made for a list user, and found again in a text.
 *
 * A text may contain several: a list user's values may contain another one's
 * link, or something that begins like a link.  So every place where a link may
 * begin is examined.
 *
 * Whether a link is signed makes no difference to whose it is: a run may have
 * sent some before its group signed them, and another run of the campaign, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "campaign/link.h"
#include "campaign/link_signature.h"
#include "lib/stringinfo.h"

/* Between the list user and the campaign, so that a link still ends with digits. */
#define SIGNATURE "&ys="

LinkForm *
link_form(const char *base_url, int64 campaign_id)
{
	LinkForm   *form;
	const char *fragment;
	int			length;

	if (base_url == NULL || base_url[0] == '\0')
		return NULL;

	/* the query precedes the fragment, if there is one */
	fragment = strchrnul(base_url, '#');
	length = fragment - base_url;
	form = palloc(sizeof(LinkForm));
	form->start = psprintf("%.*s%cyu=", length, base_url,
						   memchr(base_url, '?', length) ? '&' : '?');
	form->end = psprintf("&yc=%lld%s", (long long) campaign_id, fragment);
	return form;
}

char *
link_make(const LinkForm *form, int64 list_user_id, const char *signature)
{
	if (form == NULL)
		return NULL;
	return psprintf("%s%lld%s%s%s", form->start, (long long) list_user_id,
					signature ? SIGNATURE : "", signature ? signature : "", form->end);
}

/* Returns the end of a signature; the text itself if there is none. */
static const char *
skip_signature(const char *text)
{
	static const char base64url[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	if (strncmp(text, SIGNATURE, strlen(SIGNATURE)) != 0 ||
		strspn(text + strlen(SIGNATURE), base64url) != LINK_SIGNATURE_LENGTH)
		return text;
	return text + strlen(SIGNATURE) + LINK_SIGNATURE_LENGTH;
}

const char *
without_signatures(const char *text)
{
	StringInfoData buf;

	if (strstr(text, SIGNATURE) == NULL)
		return text;
	initStringInfo(&buf);
	while (*text)
	{
		const char *end = skip_signature(text);

		if (end == text)
			appendStringInfoChar(&buf, *text++);
		else
			text = end;
	}
	return buf.data;
}

/* Reads a number as printf writes it; returns its end, or NULL if there is none. */
static const char *
read_number(const char *text, int64 *number)
{
	char  written[24];
	char *end;

	if (*text != '-' && !isdigit((unsigned char) *text))
		return NULL;
	errno = 0;
	*number = strtoll(text, &end, 10);
	snprintf(written, sizeof(written), "%lld", (long long) *number);
	if (errno != 0 || strlen(written) != end - text || strncmp(text, written, end - text) != 0)
		return NULL;
	return end;
}

bool
link_next(const LinkForm *form, const char **text, int64 *list_user_id)
{
	size_t length = strlen(form->end);

	while ((*text = strstr(*text, form->start)) != NULL)
	{
		const char *end = read_number(*text + strlen(form->start), list_user_id);

		(*text)++; /* the next link may begin within this one */
		if (end)
			end = skip_signature(end);
		if (end && strncmp(end, form->end, length) == 0 && !isdigit((unsigned char) end[length]))
			return true;
	}
	*text = "";
	return false;
}

LinkMatch
link_match(const LinkForm *form, const char *text, int64 list_user_id)
{
	bool  found = false;
	bool  others = false;
	int64 id;

	while (link_next(form, &text, &id))
	{
		found |= id == list_user_id;
		others |= id != list_user_id;
	}
	return !found ? LINK_MISSING : others ? LINK_AMBIGUOUS : LINK_FOUND;
}

bool
has_link(const char *body, const char *link)
{
	body = without_signatures(body);
	link = without_signatures(link);
	for (const char *found = strstr(body, link); found; found = strstr(found + 1, link))
	{
		if (!isdigit((unsigned char) found[strlen(link)]))
			return true;
	}
	return false;
}
