/*-------------------------------------------------------------------------
 *
 * page.c
 *	  What the pages of a report have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "report/html.h"
#include "report/page.h"
#include "report/style.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

/*
 * A page loads nothing and runs nothing.  Browsers are told so too, in case a
 * text should ever get past add_html().
 */
void
begin_page(StringInfo page, const char *kind, int64 number)
{
	add_html(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
				   "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';"
				   " style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
				   " form-action 'none'\">\n"
				   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
				   "<meta name=\"color-scheme\" content=\"light dark\">\n"
				   "<meta name=\"referrer\" content=\"no-referrer\">\n"
				   "<meta name=\"robots\" content=\"noindex\">\n"
				   "<link rel=\"icon\" href=\"data:,\">\n<title>");
	if (number >= 0)
		add_html(page, "$t $i", kind, number);
	else
		add_html(page, "$t", kind);
	add_html(page, "</title>\n<style>\n$m</style>\n</head>\n<body>\n<header>\n", report_style);
}

void
end_page(StringInfo page)
{
	add_html(page,
			 "</main>\n<footer><p>As of $d, seen by role $t. Times are in the time zone $t."
			 " Made by sendcampaign " SENDCAMPAIGN_VERSION ".</p></footer>\n</body>\n</html>\n",
			 GetCurrentStatementStartTimestamp(), GetUserNameFromId(GetUserId(), false),
			 GetConfigOption("timezone", false, false));
}

/* A group, as a further landmark beside each heading would only be in the way. */
void
add_table_start(StringInfo page, const char *label)
{
	add_html(page, "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"$t\"><table>",
			 label);
}

void
add_table_end(StringInfo page)
{
	add_html(page, "</tbody></table></div>");
}

void
add_key_number(StringInfo page, const char *label, int64 number)
{
	add_html(page, "<div><dt>$t</dt><dd>$n</dd></div>\n", label, number);
}

void
add_key_share(StringInfo page, const char *label, int64 part, int64 whole, const char *of_what)
{
	if (whole <= 0)
		add_key_number(page, label, part);
	else
		add_html(page, "<div><dt>$t</dt><dd>$n <small>$p $t</small></dd></div>\n", label, part,
				 (double) part / whole, of_what);
}
