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
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

char *
to_utf8(char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

/* Returns the length in bytes of the character in UTF-8; 0 if it is none. */
static int
utf8_length(const char *at)
{
	int length = pg_utf_mblen((const unsigned char *) at);

	return strnlen(at, length) == length && pg_utf8_islegal((const unsigned char *) at, length)
			   ? length
			   : 0;
}

/* Appends the character, in the encoding that the conversion leads to. */
static void
append_converted(StringInfo buf, const char *character, int length, Oid conversion)
{
	unsigned char converted[MAX_CONVERSION_GROWTH * 4 + 1];

	if (!IS_HIGHBIT_SET(*character) || !OidIsValid(conversion))
		appendBinaryStringInfo(buf, character, length);
	else if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, GetDatabaseEncoding(),
										   (unsigned char *) unconstify(char *, character), length,
										   converted, sizeof(converted), true) == length)
		appendStringInfoString(buf, (char *) converted);
	else
		appendStringInfoChar(buf, '?');
}

char *
storable_text(const char *text, int max_length)
{
	int			   encoding = GetDatabaseEncoding();
	Oid			   conversion = InvalidOid;
	StringInfoData buf;
	int			   length;

	if (encoding != PG_UTF8 && encoding != PG_SQL_ASCII)
		conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	initStringInfo(&buf);
	for (int i = 0; i < max_length && *text; i++, text += Max(length, 1))
	{
		length = utf8_length(text);
		if (length == 0)
			appendStringInfoChar(&buf, '?');
		else if (((unsigned char) *text < ' ' && strchr("\t\r\n", *text) == NULL) || *text == 0x7F)
			appendStringInfoChar(&buf, ' ');
		else
			append_converted(&buf, text, length, conversion);
	}
	return buf.data;
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
