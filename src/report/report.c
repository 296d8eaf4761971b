/*-------------------------------------------------------------------------
 *
 * report.c
 *	  report(): what became of a run, or of all runs, as a page of HTML.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "database/spi.h"
#include "fmgr.h"
#include "report/page.h"
#include "settings.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sendcampaign_report);

static void
write_page_of_job(StringInfo page, int64 job_id, bool phones)
{
	ReportedRun *run = read_run_of_job(job_id);

	if (run == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no run of background job %lld to report on", (long long) job_id),
				 errdetail("Schema \"%s\" has none that your role may see.", sendcampaign_schema),
				 errhint("Call sendcampaign.report() without a job for an overview of those that"
						 " you may see, or set sendcampaign.schema to another schema.")));
	write_run_page(page, run, phones);
}

/* sendcampaign.report(job_id bigint, phones boolean) returns text */
Datum
sendcampaign_report(PG_FUNCTION_ARGS)
{
	StringInfoData page;
	bool		   phones = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);

	initStringInfo(&page);
	spi_connect();
	if (PG_ARGISNULL(0))
		write_overview(&page);
	else
		write_page_of_job(&page, PG_GETARG_INT64(0), phones);
	spi_finish();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(page.data, page.len));
}
