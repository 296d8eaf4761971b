/*-------------------------------------------------------------------------
 *
 * render.h
 *	  Texts in the encoding that Twilio takes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RENDER_H
#define SENDCAMPAIGN_RENDER_H

/*
 * Texts are Twilio's, and so in UTF-8: palloc'd, or the text itself.  In a
 * transaction; throws where it cannot be converted.
 */
extern char *to_utf8(char *text);

/* Is it UTF-8 that PostgreSQL would take? */
extern bool is_utf8(const char *text);

/* Would to_utf8() not throw?  In a transaction. */
extern bool is_convertible(const char *text);

/* Can Twilio's list tell whether this is the text? */
extern bool is_comparable(const char *text);

#endif /* SENDCAMPAIGN_RENDER_H */
