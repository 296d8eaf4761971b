/*-------------------------------------------------------------------------
 *
 * chart.c
 *	  Drawings of a report, in SVG.
 *
 * Drawings are stretched to the width that there is, so they have no texts:
 * these are HTML beside them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report/chart.h"
#include "report/html.h"

double
share_of(int64 part, int64 whole)
{
	return whole > 0 ? (double) Max(part, 0) / whole : 0;
}

void
add_bar(StringInfo page, int64 part, int64 whole, const char *class)
{
	add_html(page,
			 "<svg class=\"bar $m\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\""
			 " aria-hidden=\"true\"><rect class=\"track\" width=\"100\" height=\"10\"/>"
			 "<rect class=\"fill\" width=\"$f\" height=\"10\"/></svg>",
			 class, Min(share_of(part, whole), 1) * 100);
}

#define CHART_WIDTH	 600.0
#define CHART_HEIGHT 200.0

/* Adds the points of one of the counts, added up, as coordinates. */
static void
add_points(StringInfo page, const Figure *lines, int num_lines, int count, const Period *period,
		   int64 most)
{
	int64 sum = 0;

	for (int i = 0; i < num_lines; i++)
	{
		double step = (double) (lines[i].time - period->start) / period->step;
		double y = CHART_HEIGHT * (1 - share_of(sum, most));

		/* nothing happens between two steps that are apart */
		add_html(page, "$f,$f ", CHART_WIDTH * step / period->num_steps, y);
		sum += lines[i].counts[count];
		add_html(page, "$f,$f ", CHART_WIDTH * (step + 1) / period->num_steps,
				 CHART_HEIGHT * (1 - share_of(sum, most)));
	}
	add_html(page, "$f,$f", CHART_WIDTH, CHART_HEIGHT * (1 - share_of(sum, most)));
}

static int64
sum_of(const Figure *lines, int num_lines, int count)
{
	int64 sum = 0;

	for (int i = 0; i < num_lines; i++)
		sum += lines[i].counts[count];
	return sum;
}

void
add_time_chart(StringInfo page, const Figure *lines, int num_lines, const Period *period)
{
	int64 sent = sum_of(lines, num_lines, 0);
	int64 delivered = sum_of(lines, num_lines, 1);
	int64 most = Max(Max(sent, delivered), 1);

	add_html(page,
			 "<p class=\"top\" aria-hidden=\"true\">$n</p><div class=\"chart\">"
			 "<svg viewBox=\"0 0 600 200\" preserveAspectRatio=\"none\" role=\"img\""
			 " aria-labelledby=\"time-title time-text\"><title id=\"time-title\">"
			 "Messages sent and delivered by each time</title><desc id=\"time-text\">"
			 "From $d to $d. At the end, $t were sent and $t delivered.</desc>"
			 "<path class=\"grid\" d=\"M0 0H600M0 50H600M0 100H600M0 150H600\"/>"
			 "<polygon class=\"sent\" points=\"0,200 ",
			 most, period->start, period->end, number_text(sent), number_text(delivered));
	add_points(page, lines, num_lines, 0, period, most);
	add_html(page, " 600,200\"/><polyline class=\"delivered\" points=\"0,200 ");
	add_points(page, lines, num_lines, 1, period, most);
	add_html(page,
			 "\"/></svg></div><div class=\"axis\" aria-hidden=\"true\"><span>$c</span>"
			 "<span>$c</span><span>$c</span></div>",
			 period->start, period->start + (period->end + 1 - period->start) / 2, period->end + 1);
}

/* Adds a column from the height "below" up, of a number. */
static void
add_column(StringInfo page, const Figure *hour, int64 below, int64 number, int64 most,
		   const char *class)
{
	add_html(page, "<rect class=\"$m\" x=\"$f\" y=\"$f\" width=\"8\" height=\"$f\"/>", class,
			 hour->code * 10.0 + 1, 100 * (1 - share_of(below + number, most)),
			 100 * share_of(number, most));
}

void
add_hours_chart(StringInfo page, const Figures *hours)
{
	int64 most = 1;

	for (int i = 0; i < hours->n; i++)
		most = Max(most, hours->lines[i].counts[0] + hours->lines[i].counts[2]);
	add_html(page,
			 "<p class=\"top\" aria-hidden=\"true\">$n</p><div class=\"chart hours\">"
			 "<svg viewBox=\"0 0 240 100\" preserveAspectRatio=\"none\" role=\"img\""
			 " aria-labelledby=\"hours-title hours-text\"><title id=\"hours-title\">"
			 "Answers by the hour of the day</title><desc id=\"hours-text\">"
			 "Columns for 24 hours; the table below has their numbers.</desc>",
			 most);
	for (int i = 0; i < hours->n; i++)
	{
		const Figure *hour = &hours->lines[i];

		add_column(page, hour, 0, hour->counts[2], most, "a");
		add_column(page, hour, hour->counts[2], hour->counts[0], most, "b");
	}
	add_html(page, "</svg></div><div class=\"axis\" aria-hidden=\"true\"><span>0</span>"
				   "<span>6</span><span>12</span><span>18</span><span>24</span></div>");
}
