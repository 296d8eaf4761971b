/*
 * link.c
 *		The tracking link: made, and found again in what Twilio lists, whatever
 *		surrounds it.  Parts: base URL, ids, text before, text after,
 *		signature.
 */
#include "fuzz.h"

#include <ctype.h>
#include <stdio.h>

#include "../../src/campaign/link.h"
#include "../../src/campaign/link_signature.h"

#define SIGNATURE "&ys="

/* What is found is what link_make() would have made, with or without a signature. */
static void
check_all(const LinkForm *form, const char *text)
{
	const char *at = text;
	size_t		end = strlen(form->end);
	int64		id;

	while (link_next(form, &at, &id))
	{
		char	   *link = link_make(form, id, NULL);
		const char *rest = at - 1 + strlen(link) - end;

		promise(at > text && at <= text + strlen(text));
		promise(strncmp(at - 1, link, strlen(link) - end) == 0);
		if (strncmp(rest, SIGNATURE, strlen(SIGNATURE)) == 0)
			rest += strlen(SIGNATURE) + LINK_SIGNATURE_LENGTH;
		promise(strncmp(rest, form->end, end) == 0);
		promise(!isdigit((unsigned char) rest[end]));
		promise(link_match(form, text, id) != LINK_MISSING);
	}
}

/* A signature of the right form, or NULL */
static const char *
signature_of(const char *text)
{
	if (text == NULL || strlen(text) != LINK_SIGNATURE_LENGTH)
		return NULL;
	for (const char *c = text; *c; c++)
	{
		if (!isalnum((unsigned char) *c) && *c != '-' && *c != '_')
			return NULL;
	}
	return text;
}

void
fuzz_one(const char *data, size_t size)
{
	char	   *base_url = fuzz_part(data, size, 0);
	char	   *ids = fuzz_part(data, size, 1);
	char	   *before = fuzz_part(data, size, 2);
	char	   *after = fuzz_part(data, size, 3);
	const char *signature = signature_of(fuzz_part(data, size, 4));
	long		list_user_id = 0;
	long		campaign_id = 0;
	LinkForm   *form;
	char	   *body;

	if (ids)
		(void) sscanf(ids, "%ld,%ld", &list_user_id, &campaign_id);
	form = link_form(base_url, campaign_id);
	promise((form == NULL) == (base_url[0] == '\0'));
	if (form == NULL)
		return;
	if (after && isdigit((unsigned char) after[0]))
		after = psprintf(" %s", after); /* as template.c does */
	body = psprintf("%s%s%s", before ? before : "", link_make(form, list_user_id, signature),
					after ? after : "");
	promise(link_match(form, body, list_user_id) != LINK_MISSING);
	check_all(form, body);
}
