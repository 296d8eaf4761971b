/*-------------------------------------------------------------------------
 *
 * signature.h
 *	  Whether Twilio has made a request: the header X-Twilio-Signature.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SIGNATURE_H
#define SENDCAMPAIGN_SIGNATURE_H

#include "twilio/form.h"

/* A request that somebody has made, and what it claims. */
typedef struct SignedRequest
{
	const char *signature;	/* the header */
	const char *url;		/* to which it was made, as the web server saw it; or NULL */
	const char *parameters; /* as they are signed, see signed_parameters() */
	const char *by_value;	/* the same, in another order; or NULL: it is the same */
	const char *body_hash;	/* see hash_of_body(); NULL: the body is a form */
} SignedRequest;

/*
 * Returns the form as Twilio signs it: for each name in the order of its bytes,
 * for each different value, name and value; palloc'd.  Twilio's libraries
 * disagree on the order of the values of one name: they are in the order of the
 * form, or in that of their bytes.
 */
extern char *signed_parameters(const Form *form, bool by_value);

/*
 * Returns the SHA-256 of a body that is no form, in lower-case hexadecimal,
 * palloc'd.  Twilio adds it to the URL that it signs, as the parameter
 * bodySHA256, and signs nothing else of the request.
 */
extern char *hash_of_body(const char *body, size_t length);

/*
 * Tells whether the signature was made with this token for a request to this
 * URL, which the configuration gives, and with the hash of the body, if there
 * is one.  Twilio signs the URL with or without the default port.  The query may also be that of the request's URL, provided that
 * scheme, host and path agree: only those are the configuration's to decide.
 * Takes the same time wherever signatures differ.  Throws if memory is
 * exhausted.
 */
extern bool signature_is_valid(const SignedRequest *request, const char *configured_url,
							   const char *token);

#endif /* SENDCAMPAIGN_SIGNATURE_H */
