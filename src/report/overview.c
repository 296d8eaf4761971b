/*-------------------------------------------------------------------------
 *
 * overview.c
 *	  The overview of the runs that a role may see.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/chart.h"
#include "report/html.h"
#include "report/page.h"

#define MAX_RUNS 100

static void
add_totals(StringInfo page, const ReportedRun *all, int64 num_runs)
{
	add_html(page, "<dl class=\"key\">\n");
	add_key_number(page, "Runs", num_runs);
	add_key_number(page, "Recipients", all->total);
	add_key_share(page, "Sent", all->sent, all->total, "of the recipients");
	add_key_share(page, "Delivered", all->delivered, all->sent, "of those sent");
	add_key_number(page, "Not delivered", all->failed + all->undelivered);
	add_html(page, "</dl>\n");
}

static void
add_run(StringInfo page, const ReportedRun *run, bool with_schema)
{
	add_html(page, "<tr><th scope=\"row\">$i", run->campaign_id);
	add_bar(page, run->delivered, Max(run->total, 0), "");
	add_html(page, "</th><td>$i</td>", run->job_id);
	if (with_schema)
		add_html(page, "<td>$t</td>", run->schema);
	add_html(page, "<td class=\"when\">$d</td><td>$t</td>", run->queued_at, run->state);
	if (run->total < 0)
		add_html(page, "<td>not yet known</td>");
	else
		add_html(page, "<td>$n</td>", run->total);
	add_html(page, "<td>$n</td><td>$n</td><td>$n</td><td>$n</td><td>$n</td><td>$n</td></tr>\n",
			 run->sent, run->delivered, run->failed + run->undelivered, run->opened, run->completed,
			 run->replies);
}

static bool
is_of_several_schemas(const ReportedRun *runs, int count)
{
	for (int i = 1; i < count; i++)
		if (strcmp(runs[i].schema, runs[0].schema) != 0)
			return true;
	return false;
}

static void
add_runs(StringInfo page, const ReportedRun *runs, int count)
{
	bool with_schema = is_of_several_schemas(runs, count);

	add_html(page, "<section aria-labelledby=\"runs\"><h2 id=\"runs\">Runs</h2>\n"
				   "<p class=\"note\">Newest first. The bar is the share of the list that the"
				   " message was delivered to. <code>sendcampaign.report(job)</code> shows a run"
				   " in detail.</p>\n");
	add_table_start(page, "Table of runs");
	add_html(page, "<thead><tr><th scope=\"col\">Campaign</th>"
				   "<th scope=\"col\">Job</th>");
	if (with_schema)
		add_html(page, "<th scope=\"col\">Schema</th>");
	add_html(page, "<th scope=\"col\">Queued</th><th scope=\"col\">State</th>"
				   "<th scope=\"col\">Recipients</th><th scope=\"col\">Sent</th>"
				   "<th scope=\"col\">Delivered</th><th scope=\"col\">Not delivered</th>"
				   "<th scope=\"col\">Opened</th><th scope=\"col\">Completed</th>"
				   "<th scope=\"col\">Replies</th></tr></thead><tbody>\n");
	for (int i = 0; i < count; i++)
		add_run(page, &runs[i], with_schema);
	add_table_end(page);
	add_html(page, "</section>\n");
}

void
write_overview(StringInfo page)
{
	int			 count;
	int64		 num_runs;
	ReportedRun *all = read_all_runs(&num_runs);
	ReportedRun *runs = read_latest_runs(MAX_RUNS, &count);

	begin_page(page, "Campaigns", -1);
	add_html(page, "<p class=\"eyebrow\">Report</p>\n<h1>Campaigns</h1>\n<p class=\"lead\">");
	if (num_runs == 0)
		add_html(page, "There are no runs yet that you may see. <code>SELECT"
					   " send_campaign(&hellip;)</code> makes one.</p>\n");
	else if (num_runs > count)
		add_html(page, "The latest $n of $n runs that you may see; the totals are of all.</p>\n",
				 (int64) count, num_runs);
	else if (num_runs == 1)
		add_html(page, "The one run that you may see.</p>\n");
	else
		add_html(page, "All $n runs that you may see.</p>\n", num_runs);
	if (num_runs > 0)
		add_totals(page, all, num_runs);
	add_html(page, "</header>\n<main>\n");
	if (count > 0)
		add_runs(page, runs, count);
	end_page(page);
}
