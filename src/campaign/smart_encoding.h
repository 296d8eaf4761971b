/*-------------------------------------------------------------------------
 *
 * smart_encoding.h
 *	  What Twilio's Smart Encoding makes of a text, and how to recognize it.
 *
 * Texts are in UTF-8.  A byte that belongs to no character stays as it is.
 * The functions need no transaction, and throw only if memory runs out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SMART_ENCODING_H
#define SENDCAMPAIGN_SMART_ENCODING_H

/*
 * Returns the text with each character that Twilio says it replaces by one of
 * GSM-7; palloc'd, or the text itself if it has none.  What one character
 * becomes does not depend on others.
 */
extern const char *smart_text(const char *text);

/*
 * Returns the text that Twilio sends if Smart Encoding is on: it replaces
 * characters only if none is left then that is not in GSM-7.
 */
extern const char *smart_encoded(const char *text);

/* How the body of a listed message compares with a text. */
typedef enum SmartMatch
{
	SMART_DIFFERENT,
	SMART_POSSIBLE, /* the same, if characters that are not in GSM-7 were replaced as they may be */
	SMART_SAME		/* the same, or with the replacements that Twilio documents */
} SmartMatch;

/*
 * Compares them.  Whether Smart Encoding was on does not matter: Messaging
 * Services have a setting of their own for it, and the group's may have been
 * another one when the message was sent.
 */
extern SmartMatch smart_match(const char *text, const char *body);

#endif /* SENDCAMPAIGN_SMART_ENCODING_H */
