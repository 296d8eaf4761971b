/*
 * phone.c
 *		Phone numbers: in UTF-8, in Latin 1, and in no encoding at all.
 */
#include "fuzz.h"

#include "../../src/campaign/national.h"
#include "../../src/campaign/phone.h"
#include "mb/pg_wchar.h"

static bool
is_e164(const char *phone)
{
	size_t length = strlen(phone);

	return length >= 3 && length <= 16 && phone[0] == '+' && phone[1] != '0' &&
		   strspn(phone + 1, "0123456789") == length - 1;
}

/* Returns whether the digits are some of those in the text, in their order. */
static bool
is_made_of(const char *digits, const char *text)
{
	for (; *digits; digits++, text++)
	{
		while (*text && *text != *digits)
			text++;
		if (*text == '\0')
			return false;
	}
	return true;
}

static bool
is_ascii(const char *text)
{
	while (*text && !IS_HIGHBIT_SET(*text))
		text++;
	return *text == '\0';
}

static void
check(const char *text)
{
	char *phone = normalize_phone(text);
	char *again;

	if (phone == NULL)
		return;
	promise(is_e164(phone));
	promise(!is_ascii(text) || is_made_of(phone + 1, text));
	promise(phone_number(phone) > 0);
	again = normalize_phone(phone);
	promise(again != NULL && strcmp(again, phone) == 0);
}

/* A country's code is added to nothing that has one, and the result is no other country's. */
static void
check_in(const char *text, const char *country)
{
	char *phone = normalize_phone_in(text, country);
	char *international = normalize_phone(text);
	char *again;

	promise(international == NULL || (phone && strcmp(phone, international) == 0));
	if (phone == NULL)
		return;
	promise(is_e164(phone));
	promise(international || strncmp(phone, country, strlen(country)) == 0);
	again = normalize_phone_in(phone, country);
	promise(again != NULL && strcmp(again, phone) == 0);
}

void
fuzz_one(const char *data, size_t size)
{
	static const char *const countries[] = {"+1", "+7", "+36", "+39", "+225", "+354", "+375"};

	for (int i = 0; i < lengthof(countries); i++)
		check_in(data, find_country(countries[i]));
	/* may be invalid: a value can have bypassed the server's checks */
	check(data);
	fuzz_encoding = PG_LATIN1;
	check(data);
	fuzz_encoding = PG_SQL_ASCII;
	check(data);
}
