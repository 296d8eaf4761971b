/*-------------------------------------------------------------------------
 *
 * link_signature.c
 *	  Signatures of tracking links, by which nobody can guess those of others.
 *
 * An HMAC with SHA-256 of schema, campaign and list user.  Its first 96 bits are
 * the signature, as a link must be short.  The secret is that of the database;
 * only the extension's owner can read it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/link_signature.h"
#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "database/own_tables.h"
#include "utils/builtins.h"

#define SIGNATURE_BYTES (LINK_SIGNATURE_LENGTH * 6 / 8)

/*
 * It is not in dumps.  If a database was made from one, its script has made
 * another secret.
 */
LinkSigner *
link_signer(const char *schema)
{
	static OwnStatement statement = {
		"SELECT encode(secret, 'base64') FROM sendcampaign.link_secret", 0};
	LinkSigner *signer = palloc0(sizeof(LinkSigner));
	char	   *secret = own_execute(&statement, NULL, NULL) > 0 ? spi_string(0, 1) : NULL;

	if (secret == NULL || pg_b64_decode(secret, strlen(secret), (void *) signer->secret,
										sizeof(signer->secret)) != sizeof(signer->secret))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no secret with which links are signed"),
				 errdetail("The table \"sendcampaign.link_secret\" must have one row, whose secret"
						   " has %d bytes.",
						   LINK_SECRET_LENGTH),
				 errhint("Have a superuser insert the secret again.")));
	namestrcpy(&signer->schema, schema);
	return signer;
}

/* In base64, two characters have another meaning in URLs. */
static void
make_fit_for_urls(char *base64)
{
	for (; *base64; base64++)
	{
		if (*base64 == '+')
			*base64 = '-';
		else if (*base64 == '/')
			*base64 = '_';
	}
}

char *
link_sign(const LinkSigner *signer, int64 campaign_id, int64 list_user_id)
{
	uint8		 digest[PG_SHA256_DIGEST_LENGTH];
	char		*signature = palloc0(LINK_SIGNATURE_LENGTH + 1);
	const char	*schema = NameStr(signer->schema);
	char		 ids[64];
	int			 length = snprintf(ids, sizeof(ids), "/%lld/%lld", (long long) campaign_id,
								   (long long) list_user_id);
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);

	/* no text has two meanings: what follows the last two slashes are numbers */
	if (hmac == NULL || pg_hmac_init(hmac, signer->secret, sizeof(signer->secret)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) schema, strlen(schema)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) ids, length) < 0 ||
		pg_hmac_final(hmac, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not sign: %s", pg_hmac_error(hmac));
	pg_hmac_free(hmac);
	if (pg_b64_encode((const void *) digest, SIGNATURE_BYTES, signature, LINK_SIGNATURE_LENGTH) < 0)
		elog(ERROR, "could not encode a signature");
	make_fit_for_urls(signature);
	return signature;
}

bool
link_signature_fits(const LinkSigner *signer, int64 campaign_id, int64 list_user_id,
					const char *signature)
{
	const char	 *right = link_sign(signer, campaign_id, list_user_id);
	unsigned char difference = 0;

	if (strlen(signature) != LINK_SIGNATURE_LENGTH)
		return false;
	for (int i = 0; i < LINK_SIGNATURE_LENGTH; i++)
		difference |= (unsigned char) (right[i] ^ signature[i]);
	return difference == 0;
}
