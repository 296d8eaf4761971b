/*
 * phone.c
 *		Phone numbers: in UTF-8, in Latin 1, and in no encoding at all.
 */
#include "fuzz.h"

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

void
fuzz_one(const char *data, size_t size)
{
	/* may be invalid: a value can have bypassed the server's checks */
	check(data);
	fuzz_encoding = PG_LATIN1;
	check(data);
	fuzz_encoding = PG_SQL_ASCII;
	check(data);
}
