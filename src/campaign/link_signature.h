/*-------------------------------------------------------------------------
 *
 * link_signature.h
 *	  Signatures of tracking links, by which nobody can guess those of others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LINK_SIGNATURE_H
#define SENDCAMPAIGN_LINK_SIGNATURE_H

#include "postgres.h"

/* In characters of base64url, each of six bits. */
#define LINK_SIGNATURE_LENGTH 16

#define LINK_SECRET_LENGTH 32

/* With what links are signed. */
typedef struct LinkSigner
{
	NameData schema; /* of the campaign */
	uint8	 secret[LINK_SECRET_LENGTH];
} LinkSigner;

/*
 * Returns the signer of a schema's links, palloc'd.  SPI must be connected;
 * the results of earlier statements are gone afterwards.  Throws.
 */
extern LinkSigner *link_signer(const char *schema);

/* Returns the signature of the link of a list user, palloc'd. */
extern char *link_sign(const LinkSigner *signer, int64 campaign_id, int64 list_user_id);

/* Tells whether that is the signature, in a time that does not depend on where it differs. */
extern bool link_signature_fits(const LinkSigner *signer, int64 campaign_id, int64 list_user_id,
								const char *signature);

#endif /* SENDCAMPAIGN_LINK_SIGNATURE_H */
