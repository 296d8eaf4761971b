/*-------------------------------------------------------------------------
 *
 * html.c
 *	  Writes HTML: the one place where texts become part of a page.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "report/html.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define REPLACEMENT 0xFFFD

/* Reads a character in UTF-8, and returns its length; what is not one is a byte to be replaced. */
static int
next_character(const char *text, int length, pg_wchar *character)
{
	int size = pg_utf_mblen((const unsigned char *) text);

	if (size > length || !pg_utf8_islegal((const unsigned char *) text, size))
	{
		*character = REPLACEMENT;
		return 1;
	}
	*character = utf8_to_unicode((const unsigned char *) text);
	return size;
}

/* HTML has no control characters, and takes references to some for others. */
static bool
is_control(pg_wchar c)
{
	return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
}

static void
add_character(StringInfo page, pg_wchar c)
{
	if (is_control(c))
		c = REPLACEMENT;
	if (c >= 0x80 || c == '<' || c == '>' || c == '&' || c == '"' || c == '\'' || c == '`')
		appendStringInfo(page, "&#%u;", (unsigned) c);
	else
		appendStringInfoCharMacro(page, (char) c);
}

/* A database in SQL_ASCII may have anything; UTF-8 is the best guess. */
static void
add_text(StringInfo page, const char *text)
{
	int length;

	if (text == NULL)
		return;
	if (GetDatabaseEncoding() != PG_SQL_ASCII)
		text = pg_server_to_any(text, strlen(text), PG_UTF8);
	length = strlen(text);
	while (length > 0)
	{
		pg_wchar character;
		int		 size = next_character(text, length, &character);

		add_character(page, character);
		text += size;
		length -= size;
	}
}

static Datum
text_datum(const char *text)
{
	return PointerGetDatum(cstring_to_text(text));
}

char *
number_text(int64 number)
{
	return TextDatumGetCString(DirectFunctionCall2Coll(int8_to_char, DEFAULT_COLLATION_OID,
													   Int64GetDatum(number),
													   text_datum("FM999G999G999G999G999G990")));
}

char *
time_text(TimestampTz time, const char *format)
{
	if (TIMESTAMP_NOT_FINITE(time))
		return pstrdup("-");
	return TextDatumGetCString(DirectFunctionCall2Coll(
		timestamptz_to_char, DEFAULT_COLLATION_OID, TimestampTzGetDatum(time), text_datum(format)));
}

/* The time for programs. */
static char *
time_of_day_and_zone(TimestampTz time)
{
	Datum in_utc;

	if (TIMESTAMP_NOT_FINITE(time))
		return "";
	in_utc = DirectFunctionCall2(timestamptz_zone, text_datum("UTC"), TimestampTzGetDatum(time));
	return TextDatumGetCString(
		DirectFunctionCall2Coll(timestamp_to_char, DEFAULT_COLLATION_OID, in_utc,
								text_datum("YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"")));
}

static void
add_number(StringInfo page, int64 number)
{
	appendStringInfo(page, "<data value=\"%lld\">", (long long) number);
	add_text(page, number_text(number));
	appendStringInfoString(page, "</data>");
}

/* 100 % is everybody, and nobody but everybody. */
static void
add_percent(StringInfo page, double share)
{
	double tenths = floor(Min(Max(share, 0), 1) * 1000 + 1e-9);
	Datum  percent = DirectFunctionCall2Coll(float8_to_char, DEFAULT_COLLATION_OID,
											 Float8GetDatum(tenths / 10), text_datum("FM990D0"));

	add_text(page, TextDatumGetCString(percent));
	appendStringInfoString(page, "&nbsp;%");
}

static void
add_time(StringInfo page, TimestampTz time, const char *format)
{
	appendStringInfo(page, "<time datetime=\"%s\">", time_of_day_and_zone(time));
	add_text(page, time_text(time, format));
	appendStringInfoString(page, "</time>");
}

/* What va_list is a member of can be passed on to a function that advances it. */
typedef struct Arguments
{
	va_list list;
} Arguments;

static void
add_argument(StringInfo page, char kind, Arguments *arguments)
{
	switch (kind)
	{
		case 't':
			add_text(page, va_arg(arguments->list, const char *));
			break;
		case 'm':
			appendStringInfoString(page, va_arg(arguments->list, const char *));
			break;
		case 'n':
			add_number(page, va_arg(arguments->list, int64));
			break;
		case 'i':
			appendStringInfo(page, "%lld", (long long) va_arg(arguments->list, int64));
			break;
		case 'f':
			appendStringInfo(page, "%.2f", va_arg(arguments->list, double));
			break;
		case 'p':
			add_percent(page, va_arg(arguments->list, double));
			break;
		case 'd':
			add_time(page, va_arg(arguments->list, TimestampTz), "FMDD TMMonth YYYY, HH24:MI");
			break;
		case 'c':
			add_time(page, va_arg(arguments->list, TimestampTz), "HH24:MI:SS");
			break;
		default:
			elog(ERROR, "unknown placeholder $%c", kind);
	}
}

void
add_html(StringInfo page, const char *markup, ...)
{
	Arguments arguments;

	va_start(arguments.list, markup);
	while (*markup)
	{
		size_t length = strcspn(markup, "$");

		appendBinaryStringInfo(page, markup, length);
		markup += length;
		if (*markup == '\0')
			break;
		add_argument(page, markup[1], &arguments);
		markup += 2;
	}
	va_end(arguments.list);
}
