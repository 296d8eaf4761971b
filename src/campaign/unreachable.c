/*-------------------------------------------------------------------------
 *
 * unreachable.c
 *	  Phone numbers that cannot be reached by SMS.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/unreachable.h"
#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "miscadmin.h"
#include "twilio/request.h"
#include "utils/builtins.h"

/* Tells whether the recipient would get the message by SMS. */
static bool
gets_sms(const Campaign *campaign, const Recipient *recipient)
{
	return recipient->skip == NOT_SKIPPED &&
		   !is_whatsapp(sender_of_phone(campaign->group, recipient->phone));
}

/* Returns the phone numbers (text[]) of those who would get an SMS; others are null. */
static Datum
phones_of(const RecipientList *lists, int count, int total)
{
	Datum *phones = palloc(Max(total, 1) * sizeof(Datum));
	bool  *nulls = palloc(Max(total, 1) * sizeof(bool));
	int	   n = 0;

	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < lists[i].count; j++, n++)
		{
			const Recipient *recipient = &lists[i].recipients[j];

			nulls[n] = !gets_sms(lists[i].campaign, recipient);
			phones[n] = nulls[n] ? (Datum) 0 : CStringGetTextDatum(recipient->phone);
		}
	}
	return make_array(phones, nulls, n, TEXTOID);
}

/* Returns all recipients of the lists in one array, palloc'd. */
static Recipient **
all_recipients(const RecipientList *lists, int count, int *total)
{
	Recipient **all;
	int			n = 0;

	*total = 0;
	for (int i = 0; i < count; i++)
		*total += lists[i].count;
	all = palloc(Max(*total, 1) * sizeof(Recipient *));
	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < lists[i].count; j++)
			all[n++] = &lists[i].recipients[j];
	}
	return all;
}

/* In another cluster, the OID of a role means nothing. */
void
find_unreachable(const RecipientList *lists, int count)
{
	static OwnStatement statement = {
		"SELECT u.n::int4, max(x.error_code) FROM unnest($1) WITH ORDINALITY u(phone, n)"
		" JOIN sendcampaign.unreachable_data x ON " IS_ROW_OF(
			"x.phone",
			"u.phone") " WHERE CASE WHEN x.system_identifier = $4 THEN x.role_oid = $2 ELSE x.role = $3::name END"
					   " GROUP BY u.n",
		4,
		{TEXTARRAYOID, OIDOID, TEXTOID, NUMERICOID}};
	int			total;
	Recipient **all = all_recipients(lists, count, &total);
	Datum		values[] = {phones_of(lists, count, total), ObjectIdGetDatum(GetUserId()),
							CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)),
							system_identifier()};
	uint64		found = own_execute(&statement, values, NULL);

	for (uint64 i = 0; i < found; i++)
		all[spi_int32(i, 1) - 1]->unreachable = spi_int32(i, 2);
	SPI_freetuptable(SPI_tuptable);
}

void
skip_unreachable(Recipient *recipients, int count)
{
	for (int i = 0; i < count; i++)
	{
		if (recipients[i].unreachable)
			recipient_skip(&recipients[i], SKIP_UNREACHABLE,
						   "the phone number cannot be reached by SMS");
	}
}
