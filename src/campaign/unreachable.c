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
phones_of(const Campaign *campaign, const Recipient *recipients, int count)
{
	Datum *phones = palloc(Max(count, 1) * sizeof(Datum));
	bool  *nulls = palloc(Max(count, 1) * sizeof(bool));

	for (int i = 0; i < count; i++)
	{
		nulls[i] = !gets_sms(campaign, &recipients[i]);
		phones[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(recipients[i].phone);
	}
	return make_array(phones, nulls, count, TEXTOID);
}

/* In another cluster, the OID of a role means nothing. */
void
find_unreachable(const Campaign *campaign, Recipient *recipients, int count)
{
	static OwnStatement statement = {
		"SELECT u.n::int4, max(x.error_code) FROM unnest($1) WITH ORDINALITY u(phone, n)"
		" JOIN sendcampaign.unreachable_data x ON x.phone = u.phone"
		" WHERE CASE WHEN x.system_identifier = $4 THEN x.role_oid = $2 ELSE x.role = $3::name END"
		" GROUP BY u.n",
		4,
		{TEXTARRAYOID, OIDOID, TEXTOID, NUMERICOID}};
	Datum  values[] = {phones_of(campaign, recipients, count), ObjectIdGetDatum(GetUserId()),
					   CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)),
					   system_identifier()};
	uint64 found = own_execute(&statement, values, NULL);

	for (uint64 i = 0; i < found; i++)
		recipients[spi_int32(i, 1) - 1].unreachable = spi_int32(i, 2);
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
