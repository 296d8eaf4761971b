/*-------------------------------------------------------------------------
 *
 * authorities.h
 *	  Which authorities' certificates a request trusts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_AUTHORITIES_H
#define SENDCAMPAIGN_AUTHORITIES_H

#include <curl/curl.h>

/*
 * Sets the authorities of a handle: those in the file, and no others; the
 * system's if it is NULL or empty.  Returns false if memory has run out.
 */
extern bool set_authorities(CURL *easy, const char *ca_file);

/* To be told the result of each request. */
extern void notice_verification(CURLcode result);

#endif /* SENDCAMPAIGN_AUTHORITIES_H */
