/*-------------------------------------------------------------------------
 *
 * account.c
 *	  A Twilio account: how many of its requests may be in flight.
 *
 * The window follows what the account shows it can take.  It grows by two with
 * each good answer, but not all at once, until Twilio first answers "too many
 * requests" (429); each such answer shrinks it by one, which brings it to the
 * limit.  After that, a window that is larger by one is tried after some
 * windows full of good answers: two at first, and twice as many each time that
 * this meets the limit again, so that few requests do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "settings.h"
#include "twilio/http.h"
#include "twilio/request.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/account.h"
#include "worker/backoff.h"
#include "worker/sender.h"

#define FIRST_WINDOW  10
#define FIRST_GROWTH  20 /* before any answer */
#define FIRST_WINDOWS 2	 /* windows full of good answers */
#define MAX_WINDOWS	  64 /* takes some seconds */

/*
 * The answers to the first window come all at once.  If the window grows a
 * little at a time, most requests beyond the limit have not been sent when
 * that shows.
 */
#define GROWTH_INTERVAL 1000 /* us */
#define MAX_GROWTH		4

dlist_head all_accounts = DLIST_STATIC_INIT(all_accounts);

static bool
is_same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool
account_is_diverted(const Account *account)
{
	return account->host && !api_url_is_twilios();
}

Account *
account_get(const GroupConfig *group)
{
	dlist_iter	  iter;
	Account		 *account;
	MemoryContext old;

	dlist_foreach (iter, &all_accounts)
	{
		account = dlist_container(Account, node, iter.cur);
		if (strcmp(account->sid, group->account_sid) == 0 &&
			strcmp(account->user, group->user) == 0 &&
			strcmp(account->secret, group->secret) == 0 && is_same(account->host, group->api_host))
			return account;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	account = palloc0(sizeof(Account));
	account->sid = pstrdup(group->account_sid);
	account->name = pstrdup(group->account);
	account->host = group->api_host ? pstrdup(group->api_host) : NULL;
	account->user = pstrdup(group->user);
	account->secret = pstrdup(group->secret);
	account->window = Min(FIRST_WINDOW, max_concurrency_here());
	account->growing_fast = true;
	account->growth = Min(FIRST_GROWTH, max_concurrency_here() - account->window);
	account->num_windows = FIRST_WINDOWS;
	dlist_push_tail(&all_accounts, &account->node);
	MemoryContextSwitchTo(old);
	return account;
}

void
account_free(Account *account)
{
	dlist_delete(&account->node);
	explicit_bzero(account->secret, strlen(account->secret));
	pfree(account->secret);
	pfree(account->user);
	if (account->host)
		pfree(account->host);
	pfree(account->name);
	pfree(account->sid);
	if (account->trouble)
		pfree(account->trouble);
	pfree(account);
}

bool
account_start(Account *account, const char *url, const StringInfoData *form, int max_response,
			  void *tag)
{
	HttpRequest request = {
		.url = url,
		.user = account->user,
		.password = account->secret,
		.body = form ? form->data : NULL,
		.body_length = form ? form->len : 0,
		.timeout = to_ms(sendcampaign_request_timeout),
		.connect_timeout = to_ms(sendcampaign_connect_timeout),
		.max_response = max_response,
		.ca_file = sendcampaign_ca_file,
		.tag = tag,
	};

	if (!http_start(&request))
		return false;
	account->in_flight++;
	return true;
}

/* Tries a larger window if the last one has gone well for long enough. */
static void
grow_slowly(Account *account)
{
	account->answers++;
	if (account->probing && account->answers >= account->window)
	{
		account->probing = false;
		account->num_windows = FIRST_WINDOWS;
	}
	if (account->answers < account->num_windows * account->window)
		return;
	account->answers = 0;
	account->probing = true;
	account->window++;
}

void
account_answered(Account *account)
{
	account->failures = 0;
	account->paused_until = 0;
	if (account->trouble)
		pfree(account->trouble);
	account->trouble = NULL;
	if (account->window >= max_concurrency_here())
		return;
	if (account->growing_fast)
		account->growth = Min(account->growth + 2, max_concurrency_here() - account->window);
	else
		grow_slowly(account);
}

void
account_overloaded(Account *account)
{
	if (account->probing)
		account->num_windows = Min(2 * account->num_windows, MAX_WINDOWS);
	account->probing = false;
	account->growing_fast = false;
	account->growth = 0;
	account->answers = 0;
	account->window = Max(1, Min(account->window, account->in_flight + 1) - 1);
}

void
account_unreachable(Account *account, const char *reason)
{
	TimestampTz now = GetCurrentTimestamp();

	/* requests that were under way together count as one failure */
	if (account->paused_until > now)
		return;
	account->window = 1;
	account->growth = 0;
	account->growing_fast = true;
	account->paused_until = TimestampTzPlusMilliseconds(now,
														200 + backoff_delay(account->failures++));
	if (account->trouble && strcmp(account->trouble, reason) == 0)
		return;
	if (account->trouble)
		pfree(account->trouble);
	account->trouble = MemoryContextStrdup(TopMemoryContext, reason);
}

void
accounts_try_now(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &all_accounts)
		dlist_container(Account, node, iter.cur)->paused_until = 0;
}

static void
account_grow(Account *account, int64 now)
{
	int64 steps = (now - account->grown_at) / GROWTH_INTERVAL;
	int	  growth = (int) Min(Min(steps, MAX_GROWTH), account->growth);

	if (growth == 0)
		return;
	account->window = Min(account->window + growth, max_concurrency_here());
	account->growth -= growth;
	account->grown_at = now;
}

bool
accounts_grow(void)
{
	dlist_iter iter;
	bool	   more = false;

	dlist_foreach (iter, &all_accounts)
	{
		Account *account = dlist_container(Account, node, iter.cur);

		if (account->growth > 0)
			account_grow(account, monotonic_time());
		more |= account->growth > 0;
	}
	return more;
}

bool
account_has_room(const Account *account, TimestampTz now)
{
	return account->in_flight < Min(account->window, max_concurrency_here()) &&
		   account->paused_until <= now && !account_is_diverted(account);
}

void
account_finished(Account *account)
{
	account->in_flight--;
}
