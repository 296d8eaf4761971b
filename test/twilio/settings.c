/*
 * settings.c
 *		Settings by name, as given on the command line and the control port.
 */
#include "settings.h"
#include "accounts.h"
#include "faults.h"
#include "waits.h"
#include "world.h"

#include <stdlib.h>
#include <string.h>

pthread_mutex_t world_lock = PTHREAD_MUTEX_INITIALIZER;
settings_type	settings;

static bool
read_number(text value, double *number)
{
	char *copy = text_copy(value);
	char *end;
	bool  good;

	*number = strtod(copy, &end);
	good = value.len > 0 && *end == '\0' && *number > -1e12 && *number < 1e12;
	free(copy);
	return good;
}

/* Takes PERCENT:MS. */
static bool
set_slow(text value)
{
	const char *colon = memchr(value.data, ':', value.len);
	text		percent = {value.data, value.len};
	double		share;
	double		ms = 0;

	if (colon != NULL)
	{
		text rest = {colon + 1, value.data + value.len - colon - 1};

		percent.len = colon - value.data;
		if (!read_number(rest, &ms))
			return false;
	}
	if (!read_number(percent, &share) || ms < 0)
		return false;
	settings.slow_percent = share;
	settings.slow_us = ms * 1000;
	return true;
}

static bool
set_micros(int64_t *setting, double ms)
{
	*setting = ms < 0 ? -1 : (int64_t) (ms * 1000);
	return true;
}

static bool
set_int(int *setting, double value)
{
	*setting = value < 0 ? 0 : (int) value;
	return true;
}

static bool
set_number(text name, double value)
{
	if (text_is(name, "latency"))
		return set_micros(&settings.latency_us, value);
	if (text_is(name, "latency-spread"))
		return set_micros(&settings.latency_spread_us, value);
	if (text_is(name, "list-lag"))
		return set_micros(&settings.list_lag_us, value);
	if (text_is(name, "sent-after"))
		return set_micros(&settings.sent_after_us, value);
	if (text_is(name, "concurrency"))
		return set_int(&settings.concurrency, value);
	if (text_is(name, "retry-after"))
		return set_int(&settings.retry_after_s, value);
	if (text_is(name, "clock-skew"))
		settings.clock_skew_s = value;
	else if (text_is(name, "null-dates"))
		settings.null_dates = value != 0;
	else if (text_is(name, "shorten-links"))
		settings.shorten_links = value != 0;
	else if (text_is(name, "seed"))
		faults_seed(value);
	else if (text_is(name, "hold"))
		waits_set_hold(value != 0);
	else if (text_is(name, "hold-after"))
		waits_set_hold_after(value != 0);
	else
		return false;
	return true;
}

/* Returns which of the names, separated by blanks, it is; -1: none. */
static int
find_name(text value, const char *names)
{
	for (int i = 0; *names != '\0'; i++)
	{
		size_t len = strcspn(names, " ");

		if (value.len == len && memcmp(value.data, names, len) == 0)
			return i;
		names += len + (names[len] == ' ');
	}
	return -1;
}

static bool
set_order(text value)
{
	int order = find_name(value, "created sent none");

	settings.order = order < 0 ? ORDER_CREATED : (list_order) order;
	return order >= 0;
}

static bool
set_nulls(text value)
{
	int place = find_name(value, "last first");

	settings.nulls_first = place == 1;
	return place >= 0;
}

static bool
set_redact(text value)
{
	int redact = find_name(value, "0 1 hide");

	settings.redact = redact < 0 ? REDACT_NOT : (redaction) redact;
	return redact >= 0;
}

/* Takes "path", "absolute", or the beginning of the URI. */
static bool
set_next_page(text value)
{
	if (text_is(value, "path"))
		value.len = 0;
	if (value.len >= sizeof(settings.next_page))
		return false;
	memcpy(settings.next_page, value.data, value.len);
	settings.next_page[value.len] = '\0';
	return true;
}

static bool
set_sender(text value)
{
	senders_add(value);
	return true;
}

/* Changes a setting; returns false if it does not exist or the value is invalid. */
bool
settings_change(text name, text value)
{
	double number;

	if (text_is(name, "account"))
		return accounts_add_token(value);
	if (text_is(name, "key"))
		return accounts_add_key(value);
	if (text_is(name, "sender"))
		return set_sender(value);
	if (text_is(name, "list-order"))
		return set_order(value);
	if (text_is(name, "list-nulls"))
		return set_nulls(value);
	if (text_is(name, "redact"))
		return set_redact(value);
	if (text_is(name, "next-page"))
		return set_next_page(value);
	if (text_is(name, "slow"))
		return set_slow(value);
	if (text_is(name, "fault"))
		return fault_set(value);
	if (text_is(name, "to-fault"))
		return fault_set_for_recipient(value);
	if (text_starts(name, "fault:"))
		return fault_set_percent((text){name.data + 6, name.len - 6}, value);
	return read_number(value, &number) && set_number(name, number);
}
