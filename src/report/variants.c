/*-------------------------------------------------------------------------
 *
 * variants.c
 *	  What was sent to one list, beside each other: variants of a text, and
 *	  campaigns that followed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/chart.h"
#include "report/html.h"
#include "report/page.h"

#define MAX_VARIANTS 20

static void
add_share_cell(StringInfo html, int64 count, int64 whole)
{
	if (whole > 0)
		add_html(html, "<td>$p</td>", share_of(count, whole));
	else
		add_html(html, "<td>&ndash;</td>");
}

static void
add_variant(StringInfo html, const ReportedRun *run, bool is_this)
{
	add_html(html,
			 "<tr$m><th scope=\"row\">$i$m</th><td>$i</td><td class=\"text\" dir=\"auto\">$t</td>",
			 is_this ? " aria-current=\"true\"" : "", run->campaign_id,
			 is_this ? " (this one)" : "", run->job_id, run->message);
	add_html(html, "<td>$n</td>", run->sent);
	add_share_cell(html, run->delivered, run->sent);
	add_share_cell(html, run->opened, run->sent);
	add_share_cell(html, run->completed, run->sent);
	add_share_cell(html, run->replies, run->sent);
	add_share_cell(html, run->opted_out, run->sent);
	add_html(html, "</tr>\n");
}

void
add_variants(StringInfo html, const ReportedRun *run)
{
	int			 count;
	ReportedRun *runs = run->is_test ? NULL : read_runs_of_list(run->id, MAX_VARIANTS, &count);

	if (runs == NULL || count < 2)
		return;
	add_html(html,
			 "<section aria-labelledby=\"variants\"><h2 id=\"variants\">Beside each other</h2>\n"
			 "<p class=\"note\">What was sent to the same list, newest first. The"
			 " percentages are those of the messages that Twilio took.</p>\n");
	add_table_start(html, "Campaigns of the same list");
	add_html(html, "<thead><tr>"
				   "<th scope=\"col\">Campaign</th><th scope=\"col\">Job</th>"
				   "<th class=\"text\" scope=\"col\">Text</th><th scope=\"col\">Sent</th>"
				   "<th scope=\"col\">Delivered</th><th scope=\"col\">Opened</th>"
				   "<th scope=\"col\">Completed</th><th scope=\"col\">Replied</th>"
				   "<th scope=\"col\">Opted out</th></tr></thead><tbody>\n");
	for (int i = 0; i < count; i++)
		add_variant(html, &runs[i], runs[i].id == run->id);
	add_table_end(html);
	add_html(html, "</section>\n");
}
