/*-------------------------------------------------------------------------
 *
 * group.c
 *	  What a run's group says: whose account, which senders, how fast.
 *
 * It is read again for each claim: what an operator changes counts from then
 * on, and where the campaign is gone, nothing more is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "group.h"
#include "own.h"
#include "render.h"
#include "settings.h"

#define BLANKS " \t\r\n"

/* Cuts blanks off both ends, in place; NULL where nothing is left. */
static char *
trim(char *value)
{
	char *end;

	if (value == NULL)
		return NULL;
	value += strspn(value, BLANKS);
	for (end = value + strlen(value); end > value && strchr(BLANKS, end[-1]); end--)
		end[-1] = '\0';
	return value[0] ? value : NULL;
}

static char *
trimmed(int column)
{
	return trim(spi_string(0, column));
}

static void
missing_configuration(const Run *run, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("the group's configuration has no %s", what),
					errdetail("The group is that of list %lld.", (long long) run->list_id)));
}

static void
check_existence(const Run *run)
{
	if (!spi_bool(0, 1))
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg("campaign %lld no longer exists", (long long) run->campaign_id)));
	if (!spi_bool(0, 2))
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg("list %lld does not exist", (long long) run->list_id)));
}

static void
read_account(Run *run)
{
	char *sid = trimmed(3);
	char *user = sid;
	char *secret = trimmed(4);

	if (sid == NULL)
		missing_configuration(run, "\"twilioAccountSid\"");
	if (secret == NULL)
	{
		user = trimmed(5);
		secret = trimmed(6);
	}
	if (user == NULL || secret == NULL)
		missing_configuration(
			run, "\"twilioAuthToken\", nor \"twilioApiKeySid\" and \"twilioApiKeySecret\"");
	run->account = account_get(sid, user, secret);
}

/* The numbers, each in E.164 where it is a phone number, in palloc'd memory. */
static char **
read_numbers(int *count)
{
	int	   all;
	char **names = spi_strings(0, 7, &all);

	*count = 0;
	for (int i = 0; i < all; i++)
	{
		char *name = trim(names[i]);
		char *e164 = name ? normalize_phone(name) : NULL;

		if (name)
			names[(*count)++] = e164 ? e164 : name;
	}
	return names;
}

/* Keeps the names in the run's memory, where they are new. */
static void
keep_senders(Run *run, char **names, int count)
{
	bool		  same = run->num_senders == count;
	MemoryContext old;

	for (int i = 0; same && i < count; i++)
		same = strcmp(run->senders[i], names[i]) == 0;
	if (same)
		return;
	old = MemoryContextSwitchTo(run->context);
	run->senders = palloc(count * sizeof(char *));
	run->num_senders = count;
	for (int i = 0; i < count; i++)
		run->senders[i] = pstrdup(names[i]);
	MemoryContextSwitchTo(old);
}

static void
read_senders(Run *run)
{
	int	   count;
	char **names = read_numbers(&count);
	char  *service = trimmed(8);

	if (count == 0 && service)
	{
		names = &service;
		count = 1;
	}
	if (count == 0)
		missing_configuration(run, "\"twilioFromSmsNumber\", nor \"twilioMessagingServiceSid\"");
	keep_senders(run, names, count);
}

static void
read_rate(Run *run)
{
	char  *text = trimmed(9);
	char  *end;
	double rate;

	run->rate = sendcampaign_messages_per_second;
	if (text == NULL)
		return;
	rate = strtod(text, &end);
	if (*end != '\0' || isnan(rate) || rate < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the group's \"twilioMessagesPerSecond\" is not a number"),
						errdetail("It is \"%s\", in the group of list %lld.", text,
								  (long long) run->list_id),
						errhint("Set it to the segments a second that each of its senders may"
								" send, or to 0 for no limit.")));
	run->rate = isinf(rate) ? 0 : rate;
}

/* Where runs disagree on a sender's rate, the lowest holds. */
static double
lowest_rate(const Sender *sender)
{
	dlist_iter r;
	dlist_iter q;
	double	   lowest = 0;

	dlist_foreach (r, &worker.runs)
	{
		Run *run = dlist_container(Run, node, r.cur);

		dlist_foreach (q, &run->queues)
		{
			if (dlist_container(SendQueue, node, q.cur)->sender == sender && run->rate > 0 &&
				(lowest == 0 || run->rate < lowest))
				lowest = run->rate;
		}
	}
	return lowest;
}

static void
set_rates(Run *run)
{
	for (int i = 0; i < run->num_senders; i++)
	{
		Sender *sender = run_queue(run, run->account->sid, run->senders[i])->sender;

		sender_set_rate(sender, lowest_rate(sender));
	}
}

void
read_group(Run *run)
{
	tables_read_group(run->tables, run->campaign_id, run->list_id);
	check_existence(run);
	read_account(run);
	read_senders(run);
	read_rate(run);
	set_rates(run);
}
