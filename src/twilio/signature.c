/*-------------------------------------------------------------------------
 *
 * signature.c
 *	  Whether Twilio has made a request: the header X-Twilio-Signature.
 *
 * It is an HMAC with SHA-1 of the URL and the parameters, keyed by the
 * account's auth token, in base64.  Of a body that is no form, the URL has the
 * hash.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/cryptohash.h"
#include "common/hmac.h"
#include "common/sha1.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "twilio/signature.h"

/* In base64, with padding. */
#define SIGNATURE_LENGTH 28

/* The parameter of the URL with the hash of the body. */
#define BODY_HASH "bodySHA256="

/* Longer ones are not compared; Twilio accepts up to 4000 bytes. */
#define MAX_URL_LENGTH 8000

/* The parts of an absolute URL; those that follow the origin may be empty. */
typedef struct Url
{
	const char *text;
	int			origin; /* length of scheme, "://" and host */
	int			port;	/* length of ":" and port */
	const char *path;
	int			path_length;
	const char *query; /* with the "?" */
	int			query_length;
} Url;

static bool
parse_url(const char *text, Url *url)
{
	const char *host = strstr(text, "://");
	const char *end;
	const char *colon = NULL;

	if (host == NULL || strlen(text) > MAX_URL_LENGTH)
		return false;
	host += strlen("://");
	end = host + strcspn(host, "/?#");
	for (const char *c = host; c < end; c++)
	{
		/* the colons in brackets belong to an address */
		if (*c == ':')
			colon = c;
		else if (*c == ']')
			colon = NULL;
	}
	url->text = text;
	url->origin = (colon ? colon : end) - text;
	url->port = colon ? end - colon : 0;
	url->query = end + strcspn(end, "?#");
	url->query_length = strcspn(url->query, "#");
	url->path = end < url->query ? end : "/";
	url->path_length = end < url->query ? url->query - end : 1;
	return true;
}

static const char *
default_port(const Url *url)
{
	return pg_strncasecmp(url->text, "https:", strlen("https:")) == 0 ? ":443" : ":80";
}

static bool
has_port(const Url *url, const char *port)
{
	return url->port == strlen(port) && strncmp(url->text + url->origin, port, url->port) == 0;
}

/* Tells whether both have the same scheme, host, port and path. */
static bool
same_address(const Url *a, const Url *b)
{
	const char *port = default_port(a);
	bool		a_default = a->port == 0 || has_port(a, port);
	bool		b_default = b->port == 0 || has_port(b, port);

	if (a->origin != b->origin || pg_strncasecmp(a->text, b->text, a->origin) != 0)
		return false;
	if (a_default != b_default ||
		(!a_default &&
		 (a->port != b->port || strncmp(a->text + a->origin, b->text + b->origin, a->port) != 0)))
		return false;
	return a->path_length == b->path_length && strncmp(a->path, b->path, a->path_length) == 0;
}

static int
compare_values(const void *a, const void *b)
{
	const FormParameter *x = a;
	const FormParameter *y = b;
	int					 names = strcmp(x->name, y->name);

	return names != 0 ? names : strcmp(x->value, y->value);
}

/* Tells whether the form has the same name with the same value before. */
static bool
is_repeated(const FormParameter *parameters, int i)
{
	for (int j = i - 1; j >= 0 && strcmp(parameters[j].name, parameters[i].name) == 0; j--)
	{
		if (strcmp(parameters[j].value, parameters[i].value) == 0)
			return true;
	}
	return false;
}

char *
signed_parameters(const Form *form, bool by_value)
{
	FormParameter *parameters = form->parameters;
	StringInfoData buf;

	if (by_value)
	{
		Size size = form->count * sizeof(FormParameter);

		parameters = memcpy(palloc(size + 1), parameters, size);
		qsort(parameters, form->count, sizeof(FormParameter), compare_values);
	}
	initStringInfo(&buf);
	for (int i = 0; i < form->count; i++)
	{
		if (!is_repeated(parameters, i))
		{
			appendStringInfoString(&buf, parameters[i].name);
			appendStringInfoString(&buf, parameters[i].value);
		}
	}
	return buf.data;
}

/* Fills signature, which has room for SIGNATURE_LENGTH and a NUL. */
static void
sign(const char *url, int url_length, const char *parameters, const char *token, char *signature)
{
	uint8		 digest[SHA1_DIGEST_LENGTH];
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA1);

	if (hmac == NULL || pg_hmac_init(hmac, (const uint8 *) token, strlen(token)) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) url, url_length) < 0 ||
		pg_hmac_update(hmac, (const uint8 *) parameters, strlen(parameters)) < 0 ||
		pg_hmac_final(hmac, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not sign: %s", pg_hmac_error(hmac));
	pg_hmac_free(hmac);
	signature[pg_b64_encode((const void *) digest, sizeof(digest), signature, SIGNATURE_LENGTH)] =
		'\0';
}

/* In a time that does not depend on where they differ. */
static bool
same_signature(const char *a, const char *b)
{
	unsigned char difference = 0;

	if (strlen(a) != SIGNATURE_LENGTH || strlen(b) != SIGNATURE_LENGTH)
		return false;
	for (int i = 0; i < SIGNATURE_LENGTH; i++)
		difference |= (unsigned char) (a[i] ^ b[i]);
	return difference == 0;
}

/* Tells whether the signature is that of exactly this URL. */
static bool
fits(const SignedRequest *request, const StringInfo url, const char *token)
{
	char signature[SIGNATURE_LENGTH + 1];

	sign(url->data, url->len, request->parameters, token, signature);
	if (same_signature(signature, request->signature))
		return true;
	if (request->by_value == NULL)
		return false;
	sign(url->data, url->len, request->by_value, token, signature);
	return same_signature(signature, request->signature);
}

/* Fills url with the address, with or without its port, and this query. */
static void
make_url(StringInfo url, const Url *address, bool with_port, const Url *query)
{
	resetStringInfo(url);
	appendBinaryStringInfo(url, address->text, address->origin);
	if (with_port && address->port > 0)
		appendBinaryStringInfo(url, address->text + address->origin, address->port);
	else if (with_port)
		appendStringInfoString(url, default_port(address));
	appendBinaryStringInfo(url, address->path, address->path_length);
	appendBinaryStringInfo(url, query->query, query->query_length);
}

/* Tries the address with this query, as it is, and then with or without the default port. */
static bool
fits_with_query(const SignedRequest *request, const Url *address, const Url *query,
				const char *token)
{
	StringInfoData url;

	initStringInfo(&url);
	make_url(&url, address, address->port > 0, query);
	if (fits(request, &url, token))
		return true;
	if (address->port > 0 && !has_port(address, default_port(address)))
		return false;
	make_url(&url, address, address->port == 0, query);
	return fits(request, &url, token);
}

char *
hash_of_body(const char *body, size_t length)
{
	uint8			   digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	StringInfoData	   hex;

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) body, length) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not hash: %s", pg_cryptohash_error(hash));
	pg_cryptohash_free(hash);
	initStringInfo(&hex);
	for (int i = 0; i < sizeof(digest); i++)
		appendStringInfo(&hex, "%02x", digest[i]);
	return hex.data;
}

/* Returns the URL with the query that Twilio makes of it for a body with this hash. */
static Url
with_hash(const Url *url, const char *hash)
{
	Url	  hashed = *url;
	char *query = pnstrdup(url->query, url->query_length);

	hashed.query = psprintf("%s%c" BODY_HASH "%s", query, query[0] ? '&' : '?', hash);
	hashed.query_length = strlen(hashed.query);
	return hashed;
}

/*
 * Tells whether the query ends with this hash, and has no other.  Only there it
 * is certain to be Twilio's: what is signed of a form, which somebody else may
 * have written in part, must not pass for the query of a URL.
 */
static bool
ends_with_hash(const Url *url, const char *hash)
{
	char *query = pnstrdup(url->query, url->query_length);
	char *found = strstr(query, BODY_HASH);

	return found && found > query && (found[-1] == '?' || found[-1] == '&') &&
		   pg_strcasecmp(found + strlen(BODY_HASH), hash) == 0;
}

bool
signature_is_valid(const SignedRequest *request, const char *configured_url, const char *token)
{
	Url configured;
	Url requested;
	Url query;

	if (!parse_url(configured_url, &configured))
		return false;
	query = request->body_hash ? with_hash(&configured, request->body_hash) : configured;
	if (fits_with_query(request, &configured, &query, token))
		return true;
	return request->url && parse_url(request->url, &requested) &&
		   same_address(&configured, &requested) &&
		   (request->body_hash == NULL || ends_with_hash(&requested, request->body_hash)) &&
		   fits_with_query(request, &configured, &requested, token);
}
