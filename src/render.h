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
 * The text of one message, palloc'd, in UTF-8; base_url may be NULL.  Throws
 * where the text cannot be converted to UTF-8.
 */
extern char *render_text(const char *message, const char *base_url,
						 int64 list_user_id, int64 campaign_id);

/* The tracking link alone, palloc'd; NULL where there is no base URL. */
extern char *render_link(const char *base_url, int64 list_user_id, int64 campaign_id);

/*
 * The phone in E.164, palloc'd: spaces, dashes, dots and parentheses are
 * taken out and a leading 00 becomes +.  NULL where that gives no E.164.
 */
extern char *normalize_phone(const char *phone);

#endif							/* SENDCAMPAIGN_RENDER_H */
