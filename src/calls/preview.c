/*-------------------------------------------------------------------------
 *
 * preview.c
 *	  What a campaign would send: preview(), estimate(), send_test().
 *
 * Texts, phone numbers and reasons come from the same functions that the
 * worker uses, with the rights that it would have.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "calls/audience.h"
#include "calls/caller.h"
#include "campaign/message_limit.h"
#include "campaign/phone.h"
#include "campaign/recipients.h"
#include "campaign/smart_encoding.h"
#include "campaign/unreachable.h"
#include "database/check.h"
#include "database/rehearse.h"
#include "database/run_table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "twilio/classify.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/tuplestore.h"
#include "worker/batch.h"
#include "worker/start_worker.h"

PG_FUNCTION_INFO_V1(sendcampaign_preview);
PG_FUNCTION_INFO_V1(sendcampaign_estimate);
PG_FUNCTION_INFO_V1(sendcampaign_send_test);

/* What a call works on, and as whom. */
typedef struct Call
{
	Campaign	campaign;
	char	   *query; /* that selects its recipients; or NULL */
	Oid			role;
	ActingScope scope;
} Call;

/* Returns that argument, a query, or NULL. */
static char *
query_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

/* Reads the campaign as the role that would send it, and connects to SPI. */
static void
begin_call(Call *call, int64 campaign_id, char *recipients)
{
	Audience audience;

	memset(call, 0, sizeof(*call));
	spi_connect();
	call->campaign.id = campaign_id;
	call->campaign.tables = open_tables_of_caller(&call->role);
	tables_check_columns(call->campaign.tables);
	act_as(call->role, &call->scope);
	tables_rehearse(call->campaign.tables, false);
	check_campaign(call->campaign.tables, campaign_id);
	audience = find_audience(call->campaign.tables, campaign_id, recipients);
	call->campaign.query_list = audience.list_id;
	campaign_read(&call->campaign);
	call->campaign.group = read_group(call->campaign.tables, campaign_id, call->campaign.list_id);
	call->campaign.country = call->campaign.group->country;
	campaign_sign_links(&call->campaign, call->campaign.tables->schema,
						call->campaign.group->sign_links);
	call->query = audience.query;
	if (call->query)
		call->campaign.recipients = list_query_prepare(call->query);
}

static void
end_call(Call *call)
{
	act_as_caller(call->role, &call->scope);
	tables_close(call->campaign.tables);
	spi_finish();
}

static const char *
sender_of(const Campaign *campaign, const Recipient *recipient)
{
	return sender_of_phone(campaign->group, recipient->phone);
}

/* The rows for sendcampaign.preview(). */
typedef struct Preview
{
	Campaign		*campaign;
	ChosenDuplicates chosen;
	ReturnSetInfo	*result;
	int64			 left; /* rows that are still to be shown */
} Preview;

static Datum
utf8_datum(const char *text)
{
	return CStringGetTextDatum(pg_any_to_server(text, strlen(text), PG_UTF8));
}

/* Fills in the text and what it costs; encoding and units only if it is an SMS. */
static void
show_text(const Campaign *campaign, const Recipient *recipient, Datum *values, bool *nulls)
{
	SegmentCount count;
	bool is_sms = campaign_count_segments(campaign, sender_of(campaign, recipient), recipient->text,
										  &count);

	values[3] = utf8_datum(recipient->text);
	values[4] = CStringGetTextDatum(count.ucs2 ? "UCS-2" : "GSM-7");
	values[5] = Int32GetDatum(count.units);
	values[6] = Int32GetDatum(count.segments);
	nulls[3] = nulls[6] = false;
	nulls[4] = nulls[5] = !is_sms;
}

static void
show_recipient(const Preview *preview, const Recipient *recipient)
{
	Datum values[10] = {Int64GetDatum(recipient->list_user_id), optional_text(recipient->phone)};
	bool  nulls[10] = {false, recipient->phone == NULL, true, true, true, true, true, true, true};

	if (recipient->text && recipient->skip == NOT_SKIPPED)
		values[2] = CStringGetTextDatum(sender_of(preview->campaign, recipient));
	nulls[2] = values[2] == 0;
	if (recipient->text)
		show_text(preview->campaign, recipient, values, nulls);
	values[7] = optional_text(recipient->reason);
	nulls[7] = recipient->reason == NULL;
	values[8] = TimestampTzGetDatum(recipient->due);
	nulls[8] = recipient->due == 0 || recipient->skip != NOT_SKIPPED;
	nulls[9] = recipient->unreachable == 0;
	if (!nulls[9])
		values[9] = CStringGetTextDatum(
			psprintf("%d %s", recipient->unreachable, describe_error_code(recipient->unreachable)));
	tuplestore_putvalues(preview->result->setResult, preview->result->setDesc, values, nulls);
}

static bool
show_batch(void *arg, Datum ids, Duplicates duplicates, int count)
{
	Preview	  *preview = arg;
	Recipient *recipients;

	ids = part_of_ids(ids, 0, (int) Min(preview->left, count));
	recipients = read_recipients(preview->campaign, DatumGetArrayTypeP(ids), GetCurrentTimestamp(),
								 &count);
	skip_duplicates_in_memory(preview->chosen, recipients, count, duplicates);
	skip_over_limit(preview->campaign, 0, recipients, count);
	find_unreachable(&(RecipientList){preview->campaign, NULL, count, recipients}, 1);
	for (int i = 0; i < count; i++)
		show_recipient(preview, &recipients[i]);
	preview->left -= count;
	return preview->left > 0;
}

/* sendcampaign.preview(campaign_id bigint, "limit" bigint, recipients text) */
Datum
sendcampaign_preview(PG_FUNCTION_ARGS)
{
	Call	call;
	Preview preview = {&call.campaign, choose_in_memory(CurrentMemoryContext),
					   (ReturnSetInfo *) fcinfo->resultinfo,
					   PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1)};

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	begin_call(&call, PG_GETARG_INT64(0), query_argument(fcinfo, 2));
	if (preview.left > 0)
		(void) each_batch(&call.campaign, PG_INT64_MAX, show_batch, &preview);
	end_call(&call);
	PG_RETURN_NULL();
}

/* The totals for sendcampaign.estimate(). */
typedef struct Estimate
{
	Campaign		*campaign;
	ChosenDuplicates chosen;
	int64			 recipients;
	int64			 kinds[SKIP_OVER_LIMIT + 1]; /* by SkipKind */
	int64			 deferred;
	int64			 messages_ucs2;
	int64			 segments_gsm7;
	int64			 segments_ucs2;
	int64			 segments_other; /* of messages that are not SMS */
	StringInfoData	 characters;	 /* that force UCS-2, each once */
} Estimate;

/* Enough characters to see what the problem is. */
#define MAX_CHARACTERS_BYTES 200

static void
add_characters(Estimate *estimate, const char *text)
{
	char *all;

	if (estimate->characters.len >= MAX_CHARACTERS_BYTES)
		return;
	all = ucs2_characters(psprintf("%s%s", estimate->characters.data, text));
	resetStringInfo(&estimate->characters);
	appendStringInfoString(&estimate->characters, all);
}

static void
add_recipient(Estimate *estimate, const Recipient *recipient)
{
	SegmentCount count;

	estimate->recipients++;
	estimate->kinds[recipient->skip]++;
	if (recipient->skip != NOT_SKIPPED)
		return;
	if (recipient->due != 0)
		estimate->deferred++;
	if (!campaign_count_segments(estimate->campaign, sender_of(estimate->campaign, recipient),
								 recipient->text, &count))
		estimate->segments_other += count.segments;
	else if (count.ucs2)
	{
		estimate->messages_ucs2++;
		estimate->segments_ucs2 += count.segments;
		add_characters(estimate, estimate->campaign->group->smart_encoded
									 ? smart_text(recipient->text)
									 : recipient->text);
	}
	else
		estimate->segments_gsm7 += count.segments;
}

static bool
add_batch(void *arg, Datum ids, Duplicates duplicates, int count)
{
	Estimate  *estimate = arg;
	Recipient *recipients = read_recipients(estimate->campaign, DatumGetArrayTypeP(ids),
											GetCurrentTimestamp(), &count);

	skip_duplicates_in_memory(estimate->chosen, recipients, count, duplicates);
	skip_over_limit(estimate->campaign, 0, recipients, count);
	for (int i = 0; i < count; i++)
		add_recipient(estimate, &recipients[i]);
	return true;
}

static int64
num_segments(const Estimate *estimate)
{
	return estimate->segments_gsm7 + estimate->segments_ucs2 + estimate->segments_other;
}

/* In seconds; as good as forever, and within the range of an interval. */
#define MAX_DURATION 1e12

/* Returns how long the senders need, if their rate is known. */
static Datum
duration(const Estimate *estimate, bool *isnull)
{
	const GroupConfig *group = estimate->campaign->group;
	Interval		  *interval = palloc0(sizeof(Interval));
	int64			   segments = num_segments(estimate);

	*isnull = group->rate <= 0;
	if (!*isnull)
		interval->time = (TimeOffset) (Min(segments / (group->rate * group->num_senders),
										   MAX_DURATION) *
									   USECS_PER_SEC);
	return IntervalPGetDatum(interval);
}

static Datum
estimate_row(const Estimate *estimate, TupleDesc descriptor, Datum price, bool has_price)
{
	int64 segments = num_segments(estimate);
	bool  nulls[18] = {false};
	Datum values[] = {
		Int64GetDatum(estimate->recipients),
		Int64GetDatum(estimate->kinds[NOT_SKIPPED]),
		Int64GetDatum(estimate->deferred),
		Int64GetDatum(estimate->kinds[SKIP_DUPLICATE]),
		Int64GetDatum(estimate->kinds[SKIP_OPTED_OUT]),
		Int64GetDatum(estimate->kinds[SKIP_NO_PHONE]),
		Int64GetDatum(estimate->kinds[SKIP_BAD_PHONE]),
		Int64GetDatum(estimate->kinds[SKIP_NO_VALUE]),
		Int64GetDatum(estimate->kinds[SKIP_EXPIRED]),
		Int64GetDatum(estimate->kinds[SKIP_UNREACHABLE]),
		Int64GetDatum(estimate->kinds[SKIP_OVER_LIMIT]),
		Int64GetDatum(segments),
		Int64GetDatum(estimate->segments_gsm7),
		Int64GetDatum(estimate->segments_ucs2),
		Int64GetDatum(estimate->messages_ucs2),
		utf8_datum(estimate->characters.data),
		has_price
			? DirectFunctionCall2(numeric_mul, NumericGetDatum(int64_to_numeric(segments)), price)
			: (Datum) 0,
		duration(estimate, &nulls[17]),
	};

	nulls[16] = !has_price;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

/* sendcampaign.estimate(campaign_id bigint, price_per_segment numeric, recipients text) */
Datum
sendcampaign_estimate(PG_FUNCTION_ARGS)
{
	Call		  call;
	Estimate	  estimate = {&call.campaign, choose_in_memory(CurrentMemoryContext)};
	TupleDesc	  descriptor;
	MemoryContext context = CurrentMemoryContext;
	Datum		  row;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	initStringInfo(&estimate.characters);
	begin_call(&call, PG_GETARG_INT64(0), query_argument(fcinfo, 2));
	(void) each_batch(&call.campaign, PG_INT64_MAX, add_batch, &estimate);
	MemoryContextSwitchTo(context); /* SPI's memory context is freed at its end */
	row = estimate_row(&estimate, descriptor, PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1),
					   !PG_ARGISNULL(1));
	end_call(&call);
	PG_RETURN_DATUM(row);
}

/* For send_test(): whether there is a first recipient. */
typedef struct Test
{
	Campaign *campaign;
	bool	  has_recipient;
} Test;

/* If the first recipient would be skipped, the author must know at once. */
static bool
check_first(void *arg, Datum ids, Duplicates duplicates, int count)
{
	Test	  *test = arg;
	Recipient *recipient = read_recipients(
		test->campaign, DatumGetArrayTypeP(part_of_ids(ids, 0, 1)), GetCurrentTimestamp(), &count);

	if (recipient->skip != NOT_SKIPPED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot send a test message: %s", recipient->reason),
				 errdetail("A test message is the message to the first user of the list, which is"
						   " list user %lld.",
						   (long long) recipient->list_user_id),
				 errhint("Change that list user. sendcampaign.preview() shows what each list user"
						 " would get.")));
	test->has_recipient = true;
	return false;
}

static void
check_test(Campaign *campaign)
{
	Test test = {campaign};

	(void) each_batch(campaign, PG_INT64_MAX, check_first, &test);
	if (!test.has_recipient && campaign->recipients)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the query that selects the recipients has returned no list user"),
				 errhint("A test message is the message to the first one that it returns.")));
	if (!test.has_recipient)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("list %lld has no users", (long long) campaign->list_id),
				 errhint("A test message is the message to the first user of the list.")));
}

/* Queues a run for which the application has no background job. */
static int64
queue_test(const Call *call)
{
	NewRun run = {.campaign_id = call->campaign.id,
				  .role = call->role,
				  .schema = call->campaign.tables->schema,
				  .list_users = call->campaign.tables->list_users,
				  .test_phone = call->campaign.test_phone,
				  .recipients = call->query,
				  .query_list = call->campaign.query_list};

	return runs_insert_test(&run);
}

/* sendcampaign.send_test(campaign_id bigint, phone text, recipients text) */
Datum
sendcampaign_send_test(PG_FUNCTION_ARGS)
{
	Call  call;
	char *recipients = query_argument(fcinfo, 2);
	char *phone;
	int64 job_id;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	check_writable("sendcampaign.send_test()");
	phone = require_phone(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	begin_call(&call, PG_GETARG_INT64(0), recipients);
	check_sender(call.campaign.tables, call.role, false);
	tables_rehearse(call.campaign.tables, true);
	call.campaign.test_phone = phone;
	check_test(&call.campaign);
	job_id = queue_test(&call);
	start_worker_at_commit(call.role);
	end_call(&call);
	PG_RETURN_INT64(job_id);
}
