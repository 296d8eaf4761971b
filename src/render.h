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
 * The tracking link of one recipient, palloc'd, in UTF-8; NULL where there is
 * no base URL.  In a transaction, as all below; throws where it cannot be
 * converted.
 */
extern char *render_link(const char *base_url, int64 list_user_id, int64 campaign_id);

/* The text, palloc'd, in UTF-8: it ends with the link, which may be NULL. */
extern char *render_text(const char *message, const char *link);

/*
 * The phone in E.164, palloc'd: spaces, dashes, dots and parentheses are
 * taken out and a leading 00 becomes +.  NULL where that gives no E.164.
 */
extern char *normalize_phone(const char *phone);

#endif /* SENDCAMPAIGN_RENDER_H */
