/*-------------------------------------------------------------------------
 *
 * render.h
 *	  The text of a message and the phone it goes to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RENDER_H
#define SENDCAMPAIGN_RENDER_H

#include "lib/stringinfo.h"

/*
 * What word processors put between digits, in UTF-8: no-break and thin spaces,
 * hyphens and dashes.
 */
#define WIDE_SEPARATORS                                                                            \
	"\xc2\xa0\xe2\x80\xaf\xe2\x80\x89\xe2\x80\x90\xe2\x80\x91\xe2\x80\x92"                         \
	"\xe2\x80\x93\xe2\x80\x94\xe2\x88\x92"

/*
 * Texts are Twilio's, and so in UTF-8: palloc'd, or the text itself.  In a
 * transaction; throws where it cannot be converted.
 */
extern char *to_utf8(char *text);

/* The tracking link of one recipient, palloc'd; NULL where there is no base URL. */
extern char *render_link(const char *base_url, int64 list_user_id, int64 campaign_id);

/*
 * The phone in E.164, palloc'd: spaces, dashes, dots and parentheses are
 * taken out and a leading 00 becomes +.  NULL where that gives no E.164.
 */
extern char *normalize_phone(const char *phone);

/* The same; throws where there is none. */
extern char *require_phone(const char *phone);

#endif /* SENDCAMPAIGN_RENDER_H */
