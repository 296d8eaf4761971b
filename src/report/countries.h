/*-------------------------------------------------------------------------
 *
 * countries.h
 *	  The country of a phone number, by its calling code.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_COUNTRIES_H
#define SENDCAMPAIGN_COUNTRIES_H

/* Returns its name in English; NULL if the number, of length bytes, has no known calling code. */
extern const char *country_of_phone(const char *phone, int length);

#endif /* SENDCAMPAIGN_COUNTRIES_H */
