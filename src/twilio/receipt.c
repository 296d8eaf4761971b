/*-------------------------------------------------------------------------
 *
 * receipt.c
 *	  Twilio's names for what became of a message, and ours.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "twilio/receipt.h"

/* No price of a message has more digits. */
#define MAX_PRICE_LENGTH 20

/* Twilio's statuses, and what is kept for them. */
static const char *const statuses[][2] = {
	{"accepted", "queued"},
	{"scheduled", "queued"},
	{"queued", "queued"},
	{"sending", "queued"},
	{"sent", "sent"},
	{"delivered", "delivered"},
	{"partially_delivered", "delivered"},
	{"undelivered", "undelivered"},
	{"failed", "failed"},
	{"read", "read"},
	{"canceled", "canceled"},
};

const char *
receipt_status(const char *twilio_status)
{
	for (int i = 0; twilio_status && i < lengthof(statuses); i++)
	{
		if (strcmp(statuses[i][0], twilio_status) == 0)
			return statuses[i][1];
	}
	return NULL;
}

char *
receipt_price(const char *price)
{
	size_t digits;
	size_t length;

	if (price == NULL)
		return NULL;
	if (price[0] == '-')
		price++;
	digits = strspn(price, "0123456789");
	length = digits;
	if (price[length] == '.')
		length += 1 + strspn(price + length + 1, "0123456789");
	if (digits == 0 || price[length] != '\0' || length > MAX_PRICE_LENGTH)
		return NULL;
	return pstrdup(price);
}

char *
receipt_price_unit(const char *unit)
{
	char *upper;

	if (unit == NULL || strlen(unit) != 3)
		return NULL;
	upper = pstrdup(unit);
	for (char *c = upper; *c; c++)
	{
		*c = pg_ascii_toupper((unsigned char) *c);
		if (*c < 'A' || *c > 'Z')
			return NULL;
	}
	return upper;
}
