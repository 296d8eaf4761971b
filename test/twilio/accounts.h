/*
 * accounts.h
 *		Who may use the API: accounts with their tokens, API keys of accounts,
 *		and the senders that belong to them.
 */
#ifndef TWILIO_ACCOUNTS_H
#define TWILIO_ACCOUNTS_H

#include "text.h"

/* numbers of credentials, which messages keep */
typedef int login_id;

#define NO_LOGIN (-1)

/* These two return false if the text has the wrong form. */
extern bool accounts_add_token(text sid_and_token);
extern bool accounts_add_key(text key_secret_and_sid);
extern void accounts_default(void);

/* Returns whose Authorization header this is, or NO_LOGIN. */
extern login_id accounts_login(const char *authorization);
extern bool		account_exists(text sid);

/* Returns credentials of the account, or NO_LOGIN if it does not exist. */
extern login_id account_login(text sid);
extern text		login_user(login_id login);
extern text		login_account(login_id login);

extern void senders_add(text sender);
extern bool sender_known(text sender);

#endif
