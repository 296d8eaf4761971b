/*-------------------------------------------------------------------------
 *
 * phone.h
 *	  Phone numbers, normalized as far as that is safe.
 *
 * Characters that only make a number easier to read are removed: blanks,
 * dashes, dots, slashes, parentheses and invisible characters, with all of
 * their variants in Unicode.  Full-width digits and signs become ASCII.  A
 * leading 00 becomes +.  "(0)" after a country code is dialled only within the
 * country, and is removed as well, except where numbers begin with a 0.  A
 * value with more than MAX_PHONE characters may have been cut, and is invalid.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_PHONE_H
#define SENDCAMPAIGN_PHONE_H

/*
 * Returns the phone number in E.164, palloc'd, or NULL if it is invalid.
 * Never throws for what is in the text.
 */
extern char *normalize_phone(const char *phone);

/*
 * The same for a number that may lack its country code: that of "country"
 * (a result of find_country(), or NULL), if it is clear that it is such a number.
 */
extern char *normalize_phone_in(const char *phone, const char *country);

/* The same as the first one, but throws if the number is invalid or NULL. */
extern char *require_phone(const char *phone);

/* Returns a phone number in E.164 as an integer, which identifies it. */
extern int64 phone_number(const char *e164);

#endif /* SENDCAMPAIGN_PHONE_H */
