/*
 * form.c
 *		Forms that anybody posts, and their signatures: the parts of the input
 *		are the configured URL, the requested one, the token, and the form.
 *
 * What the signature is made with is of no interest here, so it is not
 * HMAC-SHA-1, which would need a library that not every server has.
 */
#include "fuzz.h"

#include "../../src/twilio/form.c"
#include "../../src/twilio/signature.c"

struct pg_hmac_ctx
{
	uint8 digest[SHA1_DIGEST_LENGTH];
	int	  at;
};

pg_hmac_ctx *
pg_hmac_create(pg_cryptohash_type type)
{
	return palloc0(sizeof(pg_hmac_ctx));
}

int
pg_hmac_update(pg_hmac_ctx *ctx, const uint8 *data, size_t length)
{
	for (size_t i = 0; i < length; i++)
	{
		uint8 *digit = &ctx->digest[ctx->at++ % SHA1_DIGEST_LENGTH];

		*digit = (*digit * 31 + data[i]) ^ (ctx->at & 0xff);
	}
	return 0;
}

int
pg_hmac_init(pg_hmac_ctx *ctx, const uint8 *key, size_t length)
{
	return pg_hmac_update(ctx, key, length);
}

int
pg_hmac_final(pg_hmac_ctx *ctx, uint8 *digest, size_t length)
{
	promise(length == SHA1_DIGEST_LENGTH);
	memcpy(digest, ctx->digest, length);
	return 0;
}

void
pg_hmac_free(pg_hmac_ctx *ctx)
{
	pfree(ctx);
}

const char *
pg_hmac_error(pg_hmac_ctx *ctx)
{
	return "none";
}

static void
append_escaped(StringInfo buf, const char *text)
{
	for (; *text; text++)
		appendStringInfo(buf, "%%%02X", (unsigned char) *text);
}

/* Writes the parameters as a form, from the first or from the last. */
static char *
written(const Form *form, bool backwards)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < form->count; i++)
	{
		FormParameter *parameter = &form->parameters[backwards ? form->count - 1 - i : i];

		append_escaped(&buf, parameter->name);
		appendStringInfoChar(&buf, '=');
		append_escaped(&buf, parameter->value);
		appendStringInfoChar(&buf, '&');
	}
	return buf.data;
}

static void
check_form(const Form *form)
{
	const char *value;
	Form		again;
	char	   *text = written(form, true);

	for (int i = 0; i < form->count; i++)
	{
		promise(form->parameters[i].name[0] != '\0');
		promise(i == 0 || strcmp(form->parameters[i - 1].name, form->parameters[i].name) <= 0);
		promise(form_find(form, form->parameters[i].name, &value) > 0 && value != NULL);
	}
	if (form_parse(text, strlen(text), &again) != NULL)
	{
		promise(strlen(text) > MAX_FORM_LENGTH);
		return;
	}
	/* the order of parameters makes no difference to what is signed */
	promise(again.count == form->count);
	promise(strcmp(signed_parameters(form, true), signed_parameters(&again, true)) == 0);
}

/* Twilio's signature for a URL, as it writes it, is accepted; a changed one is not. */
static void
check_signature(const char *configured, const char *requested, const char *token, const Form *form)
{
	char		  signature[SIGNATURE_LENGTH + 1];
	SignedRequest request = {.signature = signature,
							 .url = requested,
							 .parameters = signed_parameters(form, false),
							 .by_value = signed_parameters(form, true)};
	Url			  url;

	memset(signature, 'x', SIGNATURE_LENGTH);
	signature[SIGNATURE_LENGTH] = '\0';
	promise(!signature_is_valid(&request, configured, token));
	if (!parse_url(configured, &url))
		return;
	promise(url.origin + url.port <= strlen(configured));
	promise(url.query + url.query_length <= configured + strlen(configured));
	if (url.path != configured + url.origin + url.port)
		return; /* it has none */
	sign(configured, url.query + url.query_length - configured, request.parameters, token, signature);
	promise(signature_is_valid(&request, configured, token));
	signature[3] ^= 1;
	promise(!signature_is_valid(&request, configured, token));
}

void
fuzz_one(const char *data, size_t size)
{
	char *configured = fuzz_part(data, size, 0);
	char *requested = fuzz_part(data, size, 1);
	char *token = fuzz_part(data, size, 2);
	char *body = fuzz_part(data, size, 3);
	Form  form;

	/* a form without URLs is an input, too */
	if (form_parse(data, size, &form) == NULL)
		check_form(&form);
	if (body && form_parse(body, strlen(body), &form) == NULL)
	{
		check_form(&form);
		check_signature(configured, requested, token, &form);
	}
}
