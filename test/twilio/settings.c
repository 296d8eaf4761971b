/*
 * settings.c
 *		Settings by name, as given on the command line and the control port.
 */
#include "settings.h"
#include "accounts.h"
#include "content.h"
#include "delivery.h"
#include "faults.h"
#include "waits.h"
#include "world.h"

#include <stdlib.h>
#include <string.h>

pthread_mutex_t world_lock = PTHREAD_MUTEX_INITIALIZER;
settings_type	settings = {.deliver_after_us = -1, .price_after_us = -1, .price_unit = "USD"};

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
		if (!text_number(rest, &ms))
			return false;
	}
	if (!text_number(percent, &share) || ms < 0)
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
set_flag(bool *setting, double value)
{
	*setting = value != 0;
	return true;
}

static bool
set_seed(double value)
{
	faults_seed(value);
	deliveries_seed(value);
	return true;
}

/* Changes a setting that is a time in milliseconds. */
static bool
set_time(text name, double value)
{
	if (text_is(name, "latency"))
		return set_micros(&settings.latency_us, value);
	if (text_is(name, "latency-spread"))
		return set_micros(&settings.latency_spread_us, value);
	if (text_is(name, "list-lag"))
		return set_micros(&settings.list_lag_us, value);
	if (text_is(name, "sent-after"))
		return set_micros(&settings.sent_after_us, value);
	if (text_is(name, "deliver-after"))
		return set_micros(&settings.deliver_after_us, value);
	if (text_is(name, "price-after"))
		return set_micros(&settings.price_after_us, value);
	return false;
}

static bool
set_number(text name, double value)
{
	if (text_is(name, "concurrency"))
		return set_int(&settings.concurrency, value);
	if (text_is(name, "retry-after"))
		return set_int(&settings.retry_after_s, value);
	if (text_is(name, "null-dates"))
		return set_flag(&settings.null_dates, value);
	if (text_is(name, "list-insert"))
		return set_flag(&settings.list_insert, value);
	if (text_is(name, "list-shift"))
		return set_flag(&settings.list_shift, value);
	if (text_is(name, "shorten-links"))
		return set_flag(&settings.shorten_links, value);
	if (text_is(name, "seed"))
		return set_seed(value);
	if (text_is(name, "clock-skew"))
		settings.clock_skew_s = value;
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

static bool
set_text(char *setting, size_t size, text value)
{
	if (value.len >= size)
		return false;
	memcpy(setting, value.data, value.len);
	setting[value.len] = '\0';
	return true;
}

/* Takes "path", "absolute", or the beginning of the URI. */
static bool
set_next_page(text value)
{
	if (text_is(value, "path"))
		value.len = 0;
	return set_text(settings.next_page, sizeof(settings.next_page), value);
}

static bool
set_inbound_url(text value)
{
	if (text_is(value, "none"))
		value.len = 0;
	return set_text(settings.inbound_url, sizeof(settings.inbound_url), value);
}

static bool
set_sender(text value)
{
	senders_add(value);
	return true;
}

/* A setting that is not a number. */
typedef struct text_setting
{
	const char *name;
	bool (*set)(text value);
} text_setting;

static bool
set_price_unit(text value)
{
	return set_text(settings.price_unit, sizeof(settings.price_unit), value);
}

static const text_setting text_settings[] = {
	{"account", accounts_add_token},
	{"key", accounts_add_key},
	{"sender", set_sender},
	{"content", content_set},
	{"list-order", set_order},
	{"list-nulls", set_nulls},
	{"redact", set_redact},
	{"next-page", set_next_page},
	{"inbound-url", set_inbound_url},
	{"price-unit", set_price_unit},
	{"slow", set_slow},
	{"fault", fault_set},
	{"to-fault", fault_set_for_recipient},
	{"delivery", delivery_set},
	{"to-delivery", delivery_set_for_recipient},
};

/* Returns what follows the prefix. */
static text
rest_of(text name, const char *prefix)
{
	size_t len = strlen(prefix);

	return (text){name.data + len, name.len - len};
}

/* Changes a setting; returns false if it does not exist or the value is invalid. */
bool
settings_change(text name, text value)
{
	double number;

	for (size_t i = 0; i < sizeof(text_settings) / sizeof(text_settings[0]); i++)
	{
		if (text_is(name, text_settings[i].name))
			return text_settings[i].set(value);
	}
	if (text_starts(name, "fault:"))
		return fault_set_percent(rest_of(name, "fault:"), value);
	if (text_starts(name, "delivery:"))
		return delivery_set_percent(rest_of(name, "delivery:"), value);
	return text_number(value, &number) && (set_time(name, number) || set_number(name, number));
}
