/*
 * link.c
 *		The tracking link: made, and found again in what Twilio lists, whatever
 *		is around it.  Parts: base URL, ids, text before, text after.
 */
#include "../../src/lookup.c"

#include "fuzz.h"

#include "../../src/render.h"

void
fuzz_one(const char *data, size_t size)
{
	char *base_url = fuzz_part(data, size, 0);
	char *ids = fuzz_part(data, size, 1);
	char *before = fuzz_part(data, size, 2);
	char *after = fuzz_part(data, size, 3);
	int64 list_user_id = 0;
	int64 campaign_id = 0;
	char *link;
	char *body;

	if (ids)
		(void) sscanf(ids, "%ld,%ld", &list_user_id, &campaign_id);
	link = render_link(base_url, list_user_id, campaign_id);
	promise((link == NULL) == (base_url[0] == '\0'));
	if (link == NULL)
		return;
	if (after && isdigit((unsigned char) after[0]))
		after = psprintf(" %s", after); /* as template.c does */
	body = psprintf("%s%s%s", before ? before : "", link, after ? after : "");
	promise(has_link(body, link));
	(void) has_link(before ? before : "", link);
}
