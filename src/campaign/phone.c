/*-------------------------------------------------------------------------
 *
 * phone.c
 *	  Phone numbers, normalized as far as that is safe.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/national.h"
#include "campaign/phone.h"
#include "catalog/namespace.h"
#include "database/app_tables.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#define E164_MAX_DIGITS 15

#define BLANKS	   " \t\r\n\v\f"
#define SEPARATORS BLANKS "-./()"

/* Characters that are replaced by one in ASCII, or removed (0). */
typedef struct Replaced
{
	pg_wchar first;
	pg_wchar last;
	char	 by;
} Replaced;

static const Replaced replaced[] = {
	{0x00A0, 0x00A0, ' '},						/* no-break space */
	{0x00AD, 0x00AD, 0},						/* soft hyphen */
	{0x061C, 0x061C, 0},						/* Arabic letter mark */
	{0x180E, 0x180E, 0},						/* Mongolian vowel separator */
	{0x2000, 0x200A, ' '},						/* spaces of all widths */
	{0x200B, 0x200F, 0},						/* zero width, marks of direction */
	{0x2010, 0x2015, '-'},						/* hyphens and dashes */
	{0x2028, 0x2029, ' '},						/* line and paragraph separators */
	{0x202A, 0x202E, 0},						/* embeddings and overrides of direction */
	{0x202F, 0x202F, ' '},						/* narrow no-break space */
	{0x205F, 0x205F, ' '},						/* mathematical space */
	{0x2060, 0x2064, 0},						/* word joiner, invisible operators */
	{0x2066, 0x206F, 0},						/* isolates of direction */
	{0x2212, 0x2212, '-'},						/* minus */
	{0x3000, 0x3000, ' '},						/* ideographic space */
	{0xFE58, 0xFE58, '-'},						/* small dashes */
	{0xFE63, 0xFE63, '-'}, {0xFEFF, 0xFEFF, 0}, /* byte order mark */
};

/* Full-width forms are in the order of ASCII. */
#define FULL_WIDTH_FIRST 0xFF01
#define FULL_WIDTH_LAST	 0xFF5E

/* Countries whose numbers may begin with a 0: their "(0)" is part of the number. */
static const char *const zero_is_dialled[] = {"+39", "+225", "+242", "+378"};

static bool
is_ascii(const char *text)
{
	while (*text && !IS_HIGHBIT_SET(*text))
		text++;
	return *text == '\0';
}

/*
 * Returns the phone in UTF-8; unchanged if it cannot be converted, and then it
 * is no phone number.
 */
static const char *
phone_in_utf8(const char *phone)
{
	int	  encoding = GetDatabaseEncoding();
	int	  length = strlen(phone);
	int	  size = length * MAX_CONVERSION_GROWTH + 1;
	char *converted;
	Oid	  conversion;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII || is_ascii(phone))
		return phone;
	conversion = FindDefaultConversionProc(encoding, PG_UTF8);
	if (!OidIsValid(conversion))
		return phone;
	converted = palloc(size);
	if (pg_do_encoding_conversion_buf(conversion, encoding, PG_UTF8,
									  (unsigned char *) unconstify(char *, phone), length,
									  (unsigned char *) converted, size, true) < length)
		return phone;
	return converted;
}

/* Returns the character in ASCII, 0 to remove it, or -1 if it has no equivalent. */
static int
replacement(pg_wchar character)
{
	if (character >= FULL_WIDTH_FIRST && character <= FULL_WIDTH_LAST)
		return character - FULL_WIDTH_FIRST + '!';
	for (int i = 0; i < lengthof(replaced); i++)
	{
		if (character >= replaced[i].first && character <= replaced[i].last)
			return replaced[i].by;
	}
	return -1;
}

/* Converts the phone to ASCII, palloc'd; returns NULL if that is not possible. */
static char *
phone_in_ascii(const char *phone)
{
	StringInfoData ascii;
	int			   length;
	int			   by;
	int			   count = 0;

	phone = phone_in_utf8(phone);
	initStringInfo(&ascii);
	for (; *phone; phone += length)
	{
		if (++count > MAX_PHONE)
			return NULL;
		length = 1;
		by = *phone;
		if (IS_HIGHBIT_SET(*phone))
		{
			length = pg_utf_mblen((const unsigned char *) phone);
			if (strnlen(phone, length) < length ||
				!pg_utf8_islegal((const unsigned char *) phone, length))
				return NULL;
			by = replacement(utf8_to_unicode((const unsigned char *) phone));
		}
		if (by < 0)
			return NULL;
		if (by > 0)
			appendStringInfoChar(&ascii, by);
	}
	return ascii.data;
}

/* Returns the length of "(0)" at the start of the text; 0 if it is not there. */
static int
length_of_zero(const char *text)
{
	const char *at = text;

	if (*at++ != '(')
		return 0;
	at += strspn(at, BLANKS);
	if (*at++ != '0')
		return 0;
	at += strspn(at, BLANKS);
	return *at == ')' ? at + 1 - text : 0;
}

/* Tells whether these digits, with the plus, are a country code after which "(0)" is removed. */
static bool
is_country(const char *digits)
{
	int length = strlen(digits);

	if (digits[0] != '+' || length < 2 || length > 4)
		return false;
	for (int i = 0; i < lengthof(zero_is_dialled); i++)
	{
		if (strcmp(digits, zero_is_dialled[i]) == 0)
			return false;
	}
	return true;
}

/* Replaces a leading 00 by a +. */
static void
replace_prefix(StringInfo digits)
{
	if (digits->len != 2 || strcmp(digits->data, "00") != 0)
		return;
	resetStringInfo(digits);
	appendStringInfoChar(digits, '+');
}

/* Returns what is dialled, palloc'd: digits, possibly after a plus, unless there is more in it. */
static char *
dialled(const char *phone)
{
	StringInfoData digits; /* with the leading + */
	const char	  *at = phone_in_ascii(phone);
	int			   skip;

	initStringInfo(&digits);
	while (at && *at)
	{
		if ((skip = length_of_zero(at)) > 0 && is_country(digits.data))
			at += skip;
		else if (strchr(SEPARATORS, *at))
			at++;
		else
			appendStringInfoChar(&digits, *at++);
		replace_prefix(&digits);
	}
	return digits.data;
}

static bool
has_only_digits(const char *text)
{
	return text[strspn(text, "0123456789")] == '\0';
}

char *
normalize_phone_in(const char *phone, const char *country)
{
	char *number = dialled(phone);
	int	  length = strlen(number);

	if (country && length <= E164_MAX_DIGITS + 1 && has_only_digits(number))
		return national_number(number, country);
	if (number[0] != '+' || number[1] == '0' || length < 3 || length > E164_MAX_DIGITS + 1 ||
		!has_only_digits(number + 1))
		return NULL;
	return number;
}

char *
normalize_phone(const char *phone)
{
	return normalize_phone_in(phone, NULL);
}

char *
require_phone(const char *phone)
{
	char *e164 = phone ? normalize_phone(phone) : NULL;

	if (e164 == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("phone number is not in E.164 form"),
				 errhint("Write it with a plus sign and the country code, such as +15550000001.")));
	return e164;
}

int64
phone_number(const char *e164)
{
	return strtoll(e164 + 1, NULL, 10);
}
