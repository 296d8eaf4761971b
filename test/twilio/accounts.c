/*
 * accounts.c
 *		Credentials and senders.
 *
 * A request's Authorization header is compared in its base64 form, so that
 * nothing has to be decoded.  Entries are never removed; only their secrets
 * are replaced, since messages refer to them by number.
 */
#include "accounts.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct credential
{
	char *user; /* account or API key */
	char *account;
	char *encoded; /* base64 of user:secret */
} credential;

static credential *credentials;
static int		   credential_count;
static char		 **senders;
static int		   sender_count;

static char *
base64(const unsigned char *data, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char			 *out = need(malloc(len / 3 * 4 + 5));
	char			 *to = out;

	for (size_t i = 0; i < len; i += 3)
	{
		size_t	 left = len - i;
		uint32_t bits = data[i] << 16;

		bits |= left > 1 ? data[i + 1] << 8 : 0;
		bits |= left > 2 ? data[i + 2] : 0;
		*to++ = digits[bits >> 18];
		*to++ = digits[bits >> 12 & 63];
		*to++ = left > 1 ? digits[bits >> 6 & 63] : '=';
		*to++ = left > 2 ? digits[bits & 63] : '=';
	}
	*to = '\0';
	return out;
}

static credential *
credential_of(text user)
{
	for (int i = 0; i < credential_count; i++)
	{
		if (text_is(user, credentials[i].user))
			return &credentials[i];
	}
	credentials = need(realloc(credentials, (credential_count + 1) * sizeof(credential)));
	credentials[credential_count] = (credential){text_copy(user), NULL, NULL};
	return &credentials[credential_count++];
}

static void
credential_set(text user, text secret, text account)
{
	credential *c = credential_of(user);
	buf			pair = {NULL, 0, 0};

	buf_text(&pair, user);
	buf_char(&pair, ':');
	buf_text(&pair, secret);
	free(c->account);
	free(c->encoded);
	c->account = text_copy(account);
	c->encoded = base64((unsigned char *) pair.data, pair.len);
	buf_free(&pair);
}

/* Removes what precedes the first colon from the text. */
static bool
split_colon(text *whole, text *first)
{
	const char *colon = memchr(whole->data, ':', whole->len);

	if (colon == NULL || colon == whole->data)
		return false;
	*first = (text){whole->data, colon - whole->data};
	*whole = (text){colon + 1, whole->data + whole->len - colon - 1};
	return true;
}

/* Adds SID:TOKEN; a known account gets the new token. */
bool
accounts_add_token(text rest)
{
	text sid;

	if (!split_colon(&rest, &sid))
		return false;
	credential_set(sid, rest, sid);
	return true;
}

/* Adds SK:SECRET:ACSID. */
bool
accounts_add_key(text rest)
{
	text key;
	text secret;

	if (!split_colon(&rest, &key) || !split_colon(&rest, &secret))
		return false;
	credential_set(key, secret, rest);
	return true;
}

/* Adds the account that exists if none was named. */
void
accounts_default(void)
{
	if (credential_count == 0)
		accounts_add_token(text_of("ACtest:token"));
}

login_id
accounts_login(const char *authorization)
{
	if (authorization == NULL || strncasecmp(authorization, "Basic ", 6) != 0)
		return NO_LOGIN;
	authorization += 6;
	while (*authorization == ' ')
		authorization++;
	for (int i = 0; i < credential_count; i++)
	{
		if (strcmp(credentials[i].encoded, authorization) == 0)
			return i;
	}
	return NO_LOGIN;
}

login_id
account_login(text sid)
{
	for (int i = 0; i < credential_count; i++)
	{
		if (text_is(sid, credentials[i].account))
			return i;
	}
	return NO_LOGIN;
}

bool
account_exists(text sid)
{
	return account_login(sid) != NO_LOGIN;
}

text
login_user(login_id login)
{
	return text_of(credentials[login].user);
}

text
login_account(login_id login)
{
	return text_of(credentials[login].account);
}

void
senders_add(text sender)
{
	senders = need(realloc(senders, (sender_count + 1) * sizeof(char *)));
	senders[sender_count++] = text_copy(sender);
}

/* Without a list of senders, all are known. */
bool
sender_known(text sender)
{
	for (int i = 0; i < sender_count; i++)
	{
		if (text_is(sender, senders[i]))
			return true;
	}
	return sender_count == 0;
}
