/*-------------------------------------------------------------------------
 *
 * phone.h
 *	  A phone number, put right where that is safe.
 *
 * What is for the eye is taken out: blanks, dashes, dots, slashes,
 * parentheses and characters that cannot be seen, whatever Unicode has of
 * them.  Full-width digits and signs become ASCII.  A leading 00 becomes +.
 * "(0)" behind a country code is what is dialled within the country, and is
 * taken out as well, except where numbers begin with a 0.  What has more
 * characters than MAX_PHONE may have been cut short, and is none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_PHONE_H
#define SENDCAMPAIGN_PHONE_H

/* The phone in E.164, palloc'd; NULL where that gives none.  Never throws. */
extern char *normalize_phone(const char *phone);

/* The same; throws where there is none. */
extern char *require_phone(const char *phone);

/* A phone in E.164 as a number, which no other phone has. */
extern int64 phone_number(const char *e164);

#endif /* SENDCAMPAIGN_PHONE_H */
