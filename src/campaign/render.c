/*-------------------------------------------------------------------------
 *
 * render.c
 *	  Texts in the encoding that Twilio uses, UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/render.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

char *
to_utf8(char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

bool
is_utf8(const char *text)
{
	return pg_verify_mbstr(PG_UTF8, text, strlen(text), true);
}

bool
is_convertible(const char *text)
{
	int	  encoding = GetDatabaseEncoding();
	int	  length = strlen(text);
	int	  size = length * MAX_CONVERSION_GROWTH + 1;
	Oid	  conversion;
	char *converted;

	if (encoding == PG_UTF8)
		return true;
	if (encoding == PG_SQL_ASCII)
		return is_utf8(text);
	conversion = FindDefaultConversionProc(encoding, PG_UTF8);
	if (!OidIsValid(conversion))
		return false;
	converted = palloc(size);
	return pg_do_encoding_conversion_buf(conversion, encoding, PG_UTF8,
										 (unsigned char *) unconstify(char *, text), length,
										 (unsigned char *) converted, size, true) == length;
}

/*
 * In a database whose encoding is not UTF-8, characters other than ASCII may
 * have been converted to something else.
 */
bool
is_comparable(const char *text)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		return true;
	for (const char *c = text; *c; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			return false;
	}
	return true;
}
