/*-------------------------------------------------------------------------
 *
 * render.h
 *	  Texts in the encoding that Twilio uses, UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_RENDER_H
#define SENDCAMPAIGN_RENDER_H

/*
 * Returns the text in UTF-8: palloc'd, or the text itself.  Needs a
 * transaction; throws if the text cannot be converted.
 */
extern char *to_utf8(char *text);

/*
 * Returns a text of somebody else's, in UTF-8, in the database's encoding,
 * palloc'd: characters that it lacks, and bytes that are no character, become
 * question marks, and control characters other than line ends and tabs become
 * blanks.  At most max_length characters are converted.  Needs a transaction.
 */
extern char *storable_text(const char *text, int max_length);

/* Tells whether the text is valid UTF-8, as PostgreSQL defines it. */
extern bool is_utf8(const char *text);

/* Tells whether to_utf8() would succeed.  Needs a transaction. */
extern bool is_convertible(const char *text);

/* Tells whether the text can be compared with texts in Twilio's list. */
extern bool is_comparable(const char *text);

#endif /* SENDCAMPAIGN_RENDER_H */
