/*-------------------------------------------------------------------------
 *
 * recipients.c
 *	  Reads recipients: who gets which text and when; who is skipped, and why.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/opted_out.h"
#include "campaign/phone.h"
#include "campaign/quiet.h"
#include "campaign/recipients.h"
#include "campaign/render.h"
#include "campaign/unreachable.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/attempt.h"
#include "mb/pg_wchar.h"
#include "settings.h"

/*
 * Returns the text, or NULL if it cannot be converted: invalid bytes of one
 * recipient must not affect the others.  No subtransaction is needed, since
 * nothing here uses the database.
 */
static char *
render_safely(const Campaign *campaign, char **values, const char *link, const char **missing)
{
	MemoryContext context = CurrentMemoryContext;
	char *volatile text = NULL;

	*missing = NULL;
	if (GetDatabaseEncoding() == PG_UTF8)
		return campaign_render(campaign, values, link, missing);
	PG_TRY();
	{
		text = campaign_render(campaign, values, link, missing);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return text;
}

/* Returns the key whose value is too long, or NULL. */
static const char *
long_value(const Campaign *campaign, char **values)
{
	for (int i = 0; values && i < template_num_keys(campaign->template); i++)
	{
		/* an invalid value is skipped for another reason */
		if (values[i] && strlen(values[i]) > MAX_VALUE &&
			pg_verifymbstr(values[i], strlen(values[i]), true) &&
			pg_mbstrlen(values[i]) > MAX_VALUE)
			return template_key(campaign->template, i);
	}
	return NULL;
}

/* Sets the text, or the reason why there is none. */
static void
set_text(const Campaign *campaign, Recipient *recipient, const RecipientRow *row)
{
	char	  **values = template_is_personal(campaign->template) ? row->values : NULL;
	char	   *link = campaign_link(campaign, recipient->list_user_id);
	const char *missing;
	const char *too_long;

	too_long = long_value(campaign, values);
	if (too_long)
	{
		recipient_skip(recipient, SKIP_NO_VALUE,
					   psprintf("the value of \"%s\" has more than %d characters",
								pg_any_to_server(too_long, strlen(too_long), PG_UTF8), MAX_VALUE));
		return;
	}
	recipient->text = render_safely(campaign, values, link, &missing);
	if (recipient->text && !is_utf8(recipient->text))
	{
		recipient->text = NULL;
		recipient_skip(recipient, SKIP_NO_VALUE, "a value is not valid UTF-8");
	}
	else if (recipient->text && strlen(recipient->text) > 4 * MAX_TEXT)
	{
		pfree(recipient->text);
		recipient->text = NULL;
		recipient_skip(recipient, SKIP_NO_VALUE, "the text is far longer than 1600 characters");
	}
	else if (recipient->text)
		recipient->link = link;
	else if (missing)
		recipient_skip(recipient, SKIP_NO_VALUE, psprintf("no value for \"%s\"", missing));
	else
		recipient_skip(recipient, SKIP_NO_VALUE, "a value cannot be converted to UTF-8");
}

/* People are told once per run, of the first recipient with an unknown time zone. */
static void
tell_of_zone(Campaign *campaign, const Recipient *recipient, const char *name)
{
	if (campaign->zone_told || (name == NULL && campaign->group->says_zone))
		return;
	campaign->zone_told = true;
	ereport(compat_is_background_worker() ? LOG : NOTICE,
			(name
				? errmsg("sendcampaign: list user %lld has an unknown time zone \"%s\"",
						 (long long) recipient->list_user_id, name)
				: errmsg("sendcampaign: list user %lld has no time zone",
						 (long long) recipient->list_user_id),
			 errdetail("The group's time zone, \"%s\", is used for the quiet hours.",
					   pg_get_timezone_name(campaign->group->time_zone))));
}

/* An unknown zone counts as none. */
static pg_tz *
zone_of(Campaign *campaign, const Recipient *recipient, char *name)
{
	pg_tz *zone = name ? find_time_zone(name) : NULL;

	if (zone)
		return zone;
	if (name && name[strspn(name, " \t\r\n")] == '\0')
		name = NULL;
	tell_of_zone(campaign, recipient, name);
	return campaign->group->time_zone;
}

/* Sets when the message may be sent, and until when. */
static void
set_times(Campaign *campaign, Recipient *recipient, const RecipientRow *row, TimestampTz now)
{
	const QuietHours *hours = &campaign->group->quiet_hours;
	TimestampTz		  end = campaign->group->send_until;

	if (hours->from != hours->to)
	{
		pg_tz *zone = zone_of(campaign, recipient, row->time_zone);

		recipient->due = end_of_night(hours, zone, now, &recipient->until);
		if (is_too_late(recipient->until, now))
			recipient->due = end_of_night(hours, zone, recipient->until, &recipient->until);
	}
	if (end == 0)
		return;
	/* quiet hours that end after that need not be waited for */
	if (recipient->due != 0 && !is_too_late(end, now))
		recipient->due = Min(recipient->due, end);
	if (recipient->until == 0 || end < recipient->until)
		recipient->until = end;
}

static void
skip_bad_phone(const Campaign *campaign, Recipient *recipient)
{
	if (campaign->country)
		recipient_skip(recipient, SKIP_BAD_PHONE,
					   psprintf("phone number is neither in E.164 form nor clearly one of %s",
								campaign->country));
	else
		recipient_skip(recipient, SKIP_BAD_PHONE, "phone number is not in E.164 form");
}

static void
fill_recipient(Campaign *campaign, Recipient *recipient, const RecipientRow *row)
{
	char *phone = campaign->test_phone ? campaign->test_phone : row->phone;
	char *e164;

	recipient->list_user_id = row->id;
	recipient->phone = phone;
	if (!row->exists)
		recipient_skip(recipient, SKIP_GONE, "list user no longer exists");
	else if (!row->in_list)
		recipient_skip(recipient, SKIP_GONE, "list user is no longer in the list");
	else if (row->deleted)
		recipient_skip(recipient, SKIP_GONE, "list user is deleted");
	else if (phone == NULL || phone[strspn(phone, " \t\r\n")] == '\0')
		recipient_skip(recipient, SKIP_NO_PHONE, "no phone number");
	else if ((e164 = normalize_phone_in(phone, campaign->country)) == NULL)
		skip_bad_phone(campaign, recipient);
	else
	{
		recipient->phone = e164;
		set_text(campaign, recipient, row);
	}
	if (phone && recipient->phone == phone)
		phone[pg_mbcliplen(phone, strlen(phone), MAX_PHONE + 1)] = '\0';
}

/* Comes last, so that recipients who are skipped anyway keep their own reason. */
static void
skip_expired(const Campaign *campaign, Recipient *recipients, int count, TimestampTz now)
{
	TimestampTz end = campaign->group->send_until;

	for (int i = 0; is_too_late(end, now) && i < count; i++)
		recipient_skip(&recipients[i], SKIP_EXPIRED, "expired: it was to be sent before");
}

/* Recipients that are read together. */
typedef struct Reading
{
	const RecipientList *lists;
	int					 num_lists;
	TimestampTz			 now;
} Reading;

static RecipientRow *
read_rows(const Reading *reading)
{
	const Campaign *first = reading->lists[0].campaign;
	RecipientIds	wanted = {.count = 0};
	Datum		   *ids;
	Datum		   *list_ids;
	int				n = 0;

	for (int i = 0; i < reading->num_lists; i++)
		wanted.count += reading->lists[i].count;
	ids = palloc(Max(wanted.count, 1) * sizeof(Datum));
	list_ids = palloc(Max(wanted.count, 1) * sizeof(Datum));
	for (int i = 0; i < reading->num_lists; i++)
	{
		for (int j = 0; j < reading->lists[i].count; j++)
		{
			ids[n] = reading->lists[i].ids[j];
			list_ids[n++] = Int64GetDatum(reading->lists[i].campaign->list_id);
		}
	}
	wanted.ids = make_array(ids, NULL, n, INT8OID);
	wanted.list_ids = make_array(list_ids, NULL, n, INT8OID);
	return tables_read_recipients(first->tables, first->keys, &wanted);
}

static void
read_at_once(void *arg)
{
	Reading		 *reading = arg;
	RecipientRow *row = read_rows(reading);

	for (int i = 0; i < reading->num_lists; i++)
	{
		const RecipientList *list = &reading->lists[i];

		for (int j = 0; j < list->count; j++, row++)
		{
			Recipient *recipient = &list->recipients[j];

			memset(recipient, 0, sizeof(Recipient));
			fill_recipient(list->campaign, recipient, row);
			if (recipient->skip == NOT_SKIPPED && list->campaign->test_phone == NULL)
				set_times(list->campaign, recipient, row, reading->now);
		}
	}
}

/* Tells whether the error is about a value, rather than the statement or a table. */
static bool
is_about_value(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_UNTRANSLATABLE_CHARACTER ||
		   error->sqlerrcode == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE ||
		   error->sqlerrcode == ERRCODE_INVALID_TEXT_REPRESENTATION ||
		   error->sqlerrcode == ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
}

/* Reads them one by one, and skips those whose values cannot be read. */
static void
read_one_by_one(const RecipientList *list, TimestampTz now)
{
	for (int i = 0; i < list->count; i++)
	{
		RecipientList one = {list->campaign, list->ids + i, 1, list->recipients + i};
		Reading		  reading = {&one, 1, now};
		ErrorData	 *error = attempt(read_at_once, &reading);

		if (error == NULL)
			continue;
		if (!is_about_value(error))
			ReThrowError(error);
		*one.recipients = (Recipient){.list_user_id = DatumGetInt64(*one.ids)};
		recipient_skip(one.recipients, SKIP_NO_VALUE,
					   psprintf("the list user cannot be read: %s", error_text(error)));
	}
}

/* What depends on the campaign alone, after opt-outs. */
static void
skip_by_campaign(const RecipientList *list, TimestampTz now)
{
	if (list->campaign->test_phone)
		return;
	if (sendcampaign_skip_unreachable)
		skip_unreachable(list->recipients, list->count);
	skip_expired(list->campaign, list->recipients, list->count, now);
}

void
read_recipient_lists(RecipientList *lists, int count, TimestampTz now)
{
	Reading	   reading = {lists, count, now};
	ErrorData *error;

	for (int i = 0; i < count; i++)
		lists[i].recipients = palloc0(Max(lists[i].count, 1) * sizeof(Recipient));
	error = attempt(read_at_once, &reading);
	if (error && !is_about_value(error))
		ReThrowError(error);
	for (int i = 0; error && i < count; i++)
		read_one_by_one(&lists[i], now);
	skip_opted_out(lists, count);
	if (sendcampaign_skip_unreachable && lists[0].campaign->test_phone == NULL)
		find_unreachable(lists, count);
	for (int i = 0; i < count; i++)
		skip_by_campaign(&lists[i], now);
}

Recipient *
read_recipients(Campaign *campaign, ArrayType *ids, TimestampTz now, int *count)
{
	RecipientList list = {campaign};

	list.ids = ids_of_array(ids, &list.count);
	read_recipient_lists(&list, 1, now);
	*count = list.count;
	return list.recipients;
}
