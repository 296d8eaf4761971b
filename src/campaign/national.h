/*-------------------------------------------------------------------------
 *
 * national.h
 *	  Phone numbers as they are written within a country.
 *
 * Only for countries whose rule is known, and only where it is clear: a number
 * that may be read in two ways, or in none, is not changed.  What is known are
 * the numbers of mobile phones, to which messages go; where these look like all
 * others (in North America, say), all numbers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_NATIONAL_H
#define SENDCAMPAIGN_NATIONAL_H

/*
 * Returns the country code with a plus sign ("+354"), which may be written with
 * or without one; NULL if its national numbers are not known.  Not palloc'd.
 */
extern const char *find_country(const char *code);

/*
 * Returns a number of this country (see above) in E.164, palloc'd; NULL if it is
 * not clear.  The digits are those that are dialled there, and nothing else.
 */
extern char *national_number(const char *digits, const char *country);

#endif /* SENDCAMPAIGN_NATIONAL_H */
