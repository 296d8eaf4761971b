/*-------------------------------------------------------------------------
 *
 * csv_cell.c
 *	  csv_cell(): a text that no spreadsheet takes for a formula.
 *
 * A cell that begins with one of a few characters is a formula, whether the CSV
 * has it in quotation marks or not.  Where the spreadsheet expects another
 * separator than the comma, or does not know what quotation marks mean, cells
 * also begin within the text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_csv_cell);

/* Tells whether formulas begin with it; some programs accept the wide forms, too. */
static bool
begins_formula(pg_wchar c)
{
	return c == '=' || c == '+' || c == '-' || c == '@' || c == 0xFF1D || c == 0xFF0B ||
		   c == 0xFF0D || c == 0xFF20 || c == 0x2212;
}

/* Tells whether a cell may end here, and the next one begin. */
static bool
ends_cell(pg_wchar c)
{
	return c == ',' || c == ';' || c == '|' || c == '\t' || c == '\r' || c == '\n' || c == 0x2028 ||
		   c == 0x2029;
}

/* Tells whether it may precede a formula: blanks, marks that nobody sees, and quotation marks. */
static bool
is_ignored(pg_wchar c)
{
	return c <= ' ' || c == '"' || (c >= 0x7F && c <= 0xA0) || c == 0xAD ||
		   (c >= 0x2000 && c <= 0x200F) || (c >= 0x202A && c <= 0x202F) ||
		   (c >= 0x205F && c <= 0x206F) || c == 0x3000 || c == 0xFEFF;
}

/*
 * Returns the code point of a character of this length; in other encodings than
 * UTF-8, only those of ASCII count.
 */
static pg_wchar
code_point(const char *c, int length)
{
	if (!IS_HIGHBIT_SET(*c))
		return (unsigned char) *c;
	if (GetDatabaseEncoding() != PG_UTF8 || length != pg_mblen(c))
		return 'x';
	return utf8_to_unicode((const unsigned char *) c);
}

/* sendcampaign.csv_cell(value text) returns text */
Datum
sendcampaign_csv_cell(PG_FUNCTION_ARGS)
{
	const char	  *c = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char	  *end = c + strlen(c);
	bool		   at_start = true; /* of what may be a cell */
	StringInfoData cell;

	initStringInfo(&cell);
	/* some programs remove these, and look again */
	if (*c == '\t' || *c == '\r' || *c == '\n')
		appendStringInfoChar(&cell, '\'');
	while (c < end)
	{
		int		 length = Min(pg_mblen(c), end - c);
		pg_wchar point = code_point(c, length);

		if (at_start && begins_formula(point))
			appendStringInfoChar(&cell, '\'');
		at_start = ends_cell(point) || (at_start && is_ignored(point));
		appendBinaryStringInfo(&cell, c, length);
		c += length;
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(cell.data, cell.len));
}
