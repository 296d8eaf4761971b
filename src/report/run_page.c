/*-------------------------------------------------------------------------
 *
 * run_page.c
 *	  The page of a run, from its list to those who have completed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/advice.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/page.h"

#define MAX_REPLIES 100

/* What a page is made from. */
typedef struct RunPage
{
	StringInfo		   html;
	const ReportedRun *run;
	Period			   period;
	Figures			   messages;
	Figures			   hours;
	bool			   phones;
} RunPage;

/* Returns the first line of a part, which are together, and sets their number. */
static const Figure *
lines_of(const Figures *figures, const char *part, int *count)
{
	const Figure *first = NULL;

	*count = 0;
	for (int i = 0; i < figures->n; i++)
	{
		if (strcmp(figures->lines[i].part, part) != 0)
			continue;
		if (*count == 0)
			first = &figures->lines[i];
		(*count)++;
	}
	return first;
}

static int64
sum_of_hours(const RunPage *page, int count)
{
	int64 sum = 0;

	for (int i = 0; i < page->hours.n; i++)
		sum += page->hours.lines[i].counts[count];
	return sum;
}

static int64
list_of(const ReportedRun *run)
{
	return Max(run->total, 0);
}

/* Adds what happened in a sentence. */
static void
add_lead(const RunPage *page)
{
	const ReportedRun *run = page->run;

	add_html(page->html, "<p class=\"lead\">");
	if (run->total < 0)
		add_html(page->html, "This run has not started yet.");
	else
		add_html(page->html, "Twilio took $n of $n messages, and $n of these were delivered.",
				 run->sent, run->total, run->delivered);
	if (run->failed + run->undelivered > 0)
		add_html(page->html,
				 " $n did not get through: the reasons are <a href=\"#causes\">below</a>.",
				 run->failed + run->undelivered);
	add_html(page->html, "</p>\n<p><span class=\"state $t\">$t</span></p>\n", run->state,
			 run->state);
}

static void
add_key_numbers(const RunPage *page)
{
	const ReportedRun *run = page->run;

	add_html(page->html, "<dl class=\"key\">\n");
	add_key_number(page->html, "On the list", list_of(run));
	add_key_share(page->html, "Sent", run->sent, run->total, "of the list");
	add_key_share(page->html, "Delivered", run->delivered, run->sent, "of those sent");
	add_key_share(page->html, "Opened", run->opened, run->sent, "of those sent");
	add_key_share(page->html, "Completed", run->completed, run->sent, "of those sent");
	add_key_share(page->html, "Replied", run->replies, run->sent, "of those sent");
	add_html(page->html, "</dl>\n");
}

static void
add_heading(const RunPage *page)
{
	const ReportedRun *run = page->run;

	begin_page(page->html, "Campaign", run->campaign_id);
	add_html(page->html, "<p class=\"eyebrow\">$m &middot; job $i</p>\n<h1>Campaign $i</h1>\n",
			 run->is_test ? "Test message" : "Report", run->job_id, run->campaign_id);
	add_lead(page);
	if (run->message || run->base_url)
		add_html(page->html, "<blockquote dir=\"auto\">$t<small>$t</small></blockquote>\n",
				 run->message, run->base_url);
	add_key_numbers(page);
	add_html(page->html, "</header>\n<main>\n");
}

static void
add_funnel_step(const RunPage *page, const char *label, int64 count)
{
	int64 whole = list_of(page->run);

	add_html(page->html, "<li><span>$t</span><b>$n</b><span class=\"share\">", label, count);
	if (whole > 0)
		add_html(page->html, "$p", share_of(count, whole));
	add_html(page->html, "</span>");
	add_bar(page->html, count, whole, "");
	add_html(page->html, "</li>\n");
}

static void
add_funnel(const RunPage *page)
{
	const ReportedRun *run = page->run;

	add_html(page->html, "<section aria-labelledby=\"funnel\"><h2 id=\"funnel\">From list to"
						 " completed</h2>\n<figure><figcaption>How many recipients came how far,"
						 " and which share of the list that is.</figcaption>\n"
						 "<ol class=\"funnel\">\n");
	add_funnel_step(page, "On the list", list_of(run));
	add_funnel_step(page, "Sent", run->sent);
	add_funnel_step(page, "Delivered", run->delivered);
	add_funnel_step(page, "Opened the link", run->opened);
	add_funnel_step(page, "Completed", run->completed);
	add_html(page->html, "</ol></figure>\n");
	if (run->unconfirmed > 0)
		add_html(page->html,
				 "<p class=\"note\">Of $n messages nobody says whether they were delivered.</p>\n",
				 run->unconfirmed);
	add_html(page->html, "</section>\n");
}

static void
add_time_table(const RunPage *page, const Figure *lines, int count)
{
	add_html(page->html, "<details><summary>Sent and delivered as a table</summary>");
	add_table_start(page->html, "Sent and delivered by time");
	add_html(page->html, "<thead><tr><th scope=\"col\">From</th><th scope=\"col\">Sent</th>"
						 "<th scope=\"col\">Delivered</th></tr></thead><tbody>\n");
	for (int i = 0; i < count; i++)
		add_html(page->html, "<tr><th scope=\"row\">$d, $c</th><td>$n</td><td>$n</td></tr>\n",
				 lines[i].time, lines[i].time, lines[i].counts[0], lines[i].counts[1]);
	add_table_end(page->html);
	add_html(page->html, "</details>\n");
}

static void
add_times(const RunPage *page)
{
	int			  count;
	const Figure *lines = lines_of(&page->messages, "time", &count);

	if (page->period.start == 0)
		return;
	add_html(page->html,
			 "<section aria-labelledby=\"times\"><h2 id=\"times\">Sending and delivery</h2>\n"
			 "<figure><figcaption>From $d to $d. <span class=\"swatch pale\"></span>sent,"
			 " <span class=\"swatch\"></span>delivered; what was delivered later counts at the"
			 " end.</figcaption>\n",
			 page->period.start, page->period.end);
	add_time_chart(page->html, lines, count, &page->period);
	add_time_table(page, lines, count);
	add_html(page->html, "</figure></section>\n");
}

static void
add_cause(StringInfo html, const Figure *line, int64 whole, const char *class)
{
	const char *advice = line->advice ? line->advice : advice_for_skipped(line->name);

	add_html(html, "<li><p>$t", line->name ? line->name : "No reason is known");
	if (line->code)
		add_html(html, " <code>$i</code>", line->code);
	add_html(html, "</p><span class=\"count\">$n</span>", line->counts[0]);
	if (advice)
		add_html(html, "<p class=\"advice\">$t</p>", advice);
	add_bar(html, line->counts[0], whole, class);
	add_html(html, "</li>\n");
}

/* Adds the reasons for one kind of failure, with the most frequent one first. */
static void
add_causes_of(const RunPage *page, const char *part, const char *heading, const char *class)
{
	int			  count;
	const Figure *lines = lines_of(&page->messages, part, &count);
	int64		  whole = 0;

	if (count == 0)
		return;
	for (int i = 0; i < count; i++)
		whole += lines[i].counts[0];
	add_html(page->html, "<h3>$t: $n</h3>\n<ol class=\"causes\">\n", heading, whole);
	for (int i = 0; i < count; i++)
		add_cause(page->html, &lines[i], whole, class);
	add_html(page->html, "</ol>\n");
}

static void
add_causes(const RunPage *page)
{
	const ReportedRun *run = page->run;

	add_html(page->html, "<section aria-labelledby=\"causes\"><h2 id=\"causes\">What did not get"
						 " through, and what to do</h2>\n");
	if (run->failed + run->undelivered + run->skipped + run->in_doubt == 0)
		add_html(page->html, "<p class=\"note\">Nothing so far.</p>\n");
	add_causes_of(page, "failed", "Refused by Twilio", "bad");
	add_causes_of(page, "undelivered", "Sent, but not delivered", "bad");
	add_causes_of(page, "in_doubt", "In doubt", "warm");
	add_causes_of(page, "skipped", "Skipped", "warm");
	add_html(page->html, "</section>\n");
}

/* Adds a table of what was sent from, or to. */
static void
add_places(const RunPage *page, const char *part, const char *heading, const char *column)
{
	int			  count;
	const Figure *lines = lines_of(&page->messages, part, &count);

	if (count == 0)
		return;
	add_html(page->html, "<section aria-labelledby=\"$m\"><h2 id=\"$m\">$t</h2>\n", part, part,
			 heading);
	add_table_start(page->html, heading);
	add_html(page->html,
			 "<thead><tr><th scope=\"col\">$t</th><th scope=\"col\">Sent</th>"
			 "<th scope=\"col\">Delivered</th><th scope=\"col\">Not delivered</th></tr></thead>"
			 "<tbody>\n",
			 column);
	for (int i = 0; i < count; i++)
	{
		add_html(page->html, "<tr><th scope=\"row\">$t",
				 lines[i].name ? lines[i].name : "Not known");
		add_bar(page->html, lines[i].counts[0], lines[0].counts[0], "");
		add_html(page->html, "</th><td>$n</td><td>$n</td><td>$n</td></tr>\n", lines[i].counts[0],
				 lines[i].counts[1], lines[i].counts[2]);
	}
	add_table_end(page->html);
	add_html(page->html, "</section>\n");
}

static void
add_hours_table(const RunPage *page)
{
	add_html(page->html, "<details><summary>Answers as a table</summary>");
	add_table_start(page->html, "Answers by hour");
	add_html(page->html, "<thead><tr><th scope=\"col\">Hour</th>"
						 "<th scope=\"col\">Replies</th><th scope=\"col\">Opened</th>"
						 "<th scope=\"col\">Completed</th></tr></thead><tbody>\n");
	for (int i = 0; i < page->hours.n; i++)
	{
		const Figure *hour = &page->hours.lines[i];

		add_html(page->html,
				 "<tr><th scope=\"row\">$i&ndash;$i</th><td>$n</td><td>$n</td><td>$n</td></tr>\n",
				 hour->code, hour->code + 1, hour->counts[0], hour->counts[1], hour->counts[2]);
	}
	add_table_end(page->html);
	add_html(page->html, "</details>\n");
}

static void
add_hours(const RunPage *page)
{
	if (page->hours.n == 0)
		return;
	add_html(page->html, "<section aria-labelledby=\"hours\"><h2 id=\"hours\">When people"
						 " answer</h2>\n<figure><figcaption>By the hour of the day:"
						 " <span class=\"swatch\"></span>completed,"
						 " <span class=\"swatch warm\"></span>replied.</figcaption>\n");
	add_hours_chart(page->html, &page->hours);
	add_hours_table(page);
	add_html(page->html, "</figure></section>\n");
}

static void
add_cost(const RunPage *page)
{
	int			  num_segments;
	int			  num_costs;
	const Figure *segments = lines_of(&page->messages, "segments", &num_segments);
	const Figure *costs = lines_of(&page->messages, "cost", &num_costs);

	if (page->run->sent == 0 || num_segments == 0)
		return;
	add_html(page->html,
			 "<section aria-labelledby=\"cost\"><h2 id=\"cost\">Segments and cost</h2>\n"
			 "<dl class=\"key\"><div><dt>Segments</dt><dd>$n <small>of $n messages</small></dd>"
			 "</div>\n",
			 segments->counts[1], segments->counts[0]);
	for (int i = 0; i < num_costs; i++)
		add_html(page->html,
				 "<div><dt>Cost in $t</dt><dd>$t <small>of $n messages</small></dd></div>\n",
				 costs[i].advice ? costs[i].advice : "unknown currency", costs[i].name,
				 costs[i].counts[0]);
	add_html(page->html, "</dl>\n");
	if (num_costs == 0)
		add_html(page->html, "<p class=\"note\">Twilio has not told any price yet.</p>\n");
	add_html(page->html, "</section>\n");
}

static void
add_reply_texts(const RunPage *page)
{
	int	   count;
	Reply *replies = read_replies(page->run->id, MAX_REPLIES, &count);

	add_table_start(page->html, "Latest replies");
	add_html(page->html, "<caption>The latest replies, at"
						 " most 100</caption><thead><tr><th scope=\"col\">When</th>"
						 "<th scope=\"col\" class=\"text\">From</th>"
						 "<th scope=\"col\" class=\"text\">Text</th></tr></thead><tbody>\n");
	for (int i = 0; i < count; i++)
		add_html(page->html,
				 "<tr><td>$d</td><td class=\"text\">$t</td><td class=\"text\" dir=\"auto\">$t</td>"
				 "</tr>\n",
				 replies[i].received_at, replies[i].phone, replies[i].body);
	add_table_end(page->html);
}

static void
add_replies(const RunPage *page)
{
	const ReportedRun *run = page->run;

	add_html(page->html, "<section aria-labelledby=\"replies\"><h2 id=\"replies\">Replies and"
						 " opt-outs</h2>\n<dl class=\"key\">\n");
	add_key_number(page->html, "Replies", run->replies);
	add_key_share(page->html, "Opt-outs by reply", run->opted_out, run->replies, "of the replies");
	add_html(page->html, "</dl>\n");
	if (run->replies > 0 && page->phones)
		add_reply_texts(page);
	else if (run->replies > 0)
		add_html(page->html,
				 "<p class=\"note\">What people have written, and their phone numbers,"
				 " are theirs. They are shown by"
				 " <code>sendcampaign.report($i, phones =&gt; true)</code>.</p>\n",
				 run->job_id);
	add_html(page->html, "</section>\n");
}

static void
add_time_fact(StringInfo html, const char *label, TimestampTz time)
{
	if (time != 0)
		add_html(html, "<dt>$t</dt><dd>$d</dd>\n", label, time);
}

static void
add_facts(const RunPage *page)
{
	const ReportedRun *run = page->run;

	add_html(page->html, "<section aria-labelledby=\"run\"><h2 id=\"run\">The run</h2>\n"
						 "<dl class=\"facts\">\n");
	add_time_fact(page->html, "Queued", run->queued_at);
	add_time_fact(page->html, "Started", run->started_at);
	add_time_fact(page->html, "Ended", run->finished_at);
	add_html(page->html,
			 "<dt>State</dt><dd>$t</dd>\n<dt>Role</dt><dd>$t</dd>\n<dt>Schema</dt><dd>$t</dd>\n"
			 "<dt>Background job</dt><dd>$i</dd>\n<dt>Run</dt><dd>$i</dd>\n</dl></section>\n",
			 run->state, run->role, run->schema, run->job_id, run->id);
}

/* Reads what there is to say; *run gets what recipients have done. */
static void
read_page(RunPage *page, ReportedRun *run)
{
	page->period = read_period(run->id);
	page->messages = read_messages(run->id, &page->period);
	page->hours = read_hours(run->id);
	run->replies = sum_of_hours(page, 0);
	run->opened = sum_of_hours(page, 1);
	run->completed = sum_of_hours(page, 2);
	run->opted_out = sum_of_hours(page, 3);
}

void
write_run_page(StringInfo html, const ReportedRun *shown, bool phones)
{
	ReportedRun run = *shown;
	RunPage		page = {html, &run, .phones = phones};

	read_page(&page, &run);
	add_heading(&page);
	add_funnel(&page);
	add_times(&page);
	add_causes(&page);
	add_html(html, "<div class=\"pair\">\n");
	add_places(&page, "sender", "Senders", "Sender");
	add_places(&page, "country", "Countries", "Country");
	add_html(html, "</div>\n");
	add_variants(html, &run);
	add_hours(&page);
	add_cost(&page);
	add_replies(&page);
	add_facts(&page);
	end_page(html);
}
