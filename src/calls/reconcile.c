/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *	  reconcile(): whether Twilio's list has what is recorded of a run, and
 *	  nothing else of it.
 *
 * The list is read here, in the caller's process: nothing else in sendcampaign
 * waits for Twilio within a transaction.  The caller asks for it, and holds a
 * snapshot for as long as that takes, as a dump does; but no row is locked, and
 * what is compared is what the tables have afterwards.
 *
 * The list may lag, and it changes while it is read.  So a message that it does
 * not show is asked for by its SID.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "calls/control.h"
#include "campaign/campaign.h"
#include "campaign/render.h"
#include "campaign/smart_encoding.h"
#include "catalog/pg_type.h"
#include "database/home.h"
#include "database/listed_table.h"
#include "database/own_tables.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "settings.h"
#include "twilio/receipt.h"
#include "twilio/request.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "worker/receipt_reader.h"

PG_FUNCTION_INFO_V1(sendcampaign_reconcile);

/* More messages than these are not asked for one by one: then the list has to do. */
#define MAX_ASKED 1000

/* How long to wait for the network before interrupts are processed. */
#define WAIT_MS 100

/* What is compared. */
typedef struct Reconciliation
{
	int64	 run_id;
	int64	 job_id;
	Oid		 role;
	char	*schema;
	bool	 at_home;
	char	*account; /* SID; NULL if nothing has been sent */
	Campaign campaign;
	Template *template; /* of its texts, likewise */
	TimestampTz	 since; /* no message of the run is older */
	TimestampTz	 until; /* or newer */
	ListedTable *table;
	bool		 is_redacted; /* true if the list has messages without text or number */
	/* of the answer that is being read */
	MemoryContext context; /* of the rows and what they point to */
	ListedRow	 *rows;
	int			  num_rows;
} Reconciliation;

/* Reads the run, without locking it; throws if the caller may not see it. */
static void
find_run(Reconciliation *r)
{
	CampaignText text = {0};

	if (query_run_of_job(
			"SELECT id, (" ROLE_HERE(
				"$3", "$4") ")::int8, schema::text, account, campaign_id, list_id,"
							" coalesce(message, ''), base_url, content_sid,"
							" least(coalesce(started_at, queued_at),"
							"  (SELECT min(m.created_at) FROM sendcampaign.message_data m"
							"   WHERE m.run_id = run_data.id AND m.status = 'sent')),"
							" coalesce(finished_at, 'infinity'), " IS_AT_HOME(
								"$3", "$4") " FROM sendcampaign.run_data"
											" WHERE" IS_RUN_OF_JOB,
			r->job_id, sendcampaign_schema) == 0 ||
		!is_for_caller((Oid) spi_int64(0, 2)))
		fail_no_run(r->job_id);
	r->run_id = spi_int64(0, 1);
	r->role = (Oid) spi_int64(0, 2);
	r->schema = spi_string(0, 3);
	r->at_home = spi_bool(0, 12);
	r->account = spi_string(0, 4);
	r->campaign.id = spi_int64(0, 5);
	r->campaign.list_id = spi_int64(0, 6);
	text.message = spi_string(0, 7);
	text.base_url = spi_string(0, 8);
	text.content_sid = spi_string(0, 9);
	r->since = spi_timestamptz(0, 10);
	r->until = spi_timestamptz(0, 11);
	campaign_set_text(&r->campaign, &text);
	r->template = template_parse(smart_text(template_text(r->campaign.template)));
}

/* Throws unless the run's role exists, and may be acted for. */
static void
check_role(const Reconciliation *r, const AppTables *tables)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(r->role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the role of the run of background job %lld does not exist",
						(long long) r->job_id),
				 errhint("Its messages can only be compared with Twilio's list by hand.")));
	if (superuser_arg(r->role) || !r->at_home)
		tables_check_trust(tables, r->role);
}

/* Reads the group's configuration, with the rights of the role, as for sending. */
static void
read_credentials(Reconciliation *r)
{
	AppTables  *tables = tables_open(r->schema);
	ActingScope scope;

	check_role(r, tables);
	act_as(r->role, &scope);
	r->campaign.group = read_group(tables, r->campaign.id, r->campaign.list_id);
	act_as_caller(r->role, &scope);
	tables_close(tables);
	if (strcmp(r->campaign.group->account_sid, r->account) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the group no longer has the Twilio account to which the messages were"
						" sent"),
				 errdetail("They were sent with the account %s.", r->account),
				 errhint("Compare them with that account's list while the group has its"
						 " credentials.")));
}

/* Tells by what the message shows that it is of the run, and whose link it has. */
static ListedAs
recognize(const Reconciliation *r, const ListedMessage *listed, int64 *list_user_id)
{
	const char *text;
	int64		id;
	bool		found = false;

	if (listed->body == NULL)
		return LISTED_AS_OTHER;
	text = smart_text(listed->body);
	if (!campaign_has_links(&r->campaign))
		return r->campaign.text.content_sid == NULL && template_matches(r->template, text)
				   ? LISTED_AS_TEXT
				   : LISTED_AS_OTHER;
	while (link_next(r->campaign.listed_form, &text, &id))
	{
		if (found && id != *list_user_id)
			return LISTED_AS_CAMPAIGN;
		*list_user_id = id;
		found = true;
	}
	return found ? LISTED_AS_LINK : LISTED_AS_OTHER;
}

/* Tells whether the run can have sent a message then; 0: it is not known when. */
static bool
is_in_time(const Reconciliation *r, TimestampTz created)
{
	TimestampTz slack = LIST_TIME_SLACK * USECS_PER_SEC;

	return created == 0 ||
		   (created >= r->since - slack && (r->until == DT_NOEND || created <= r->until + slack));
}

static void
add_row(Reconciliation *r, ListedRow row)
{
	if (r->rows == NULL)
		r->rows = palloc(sizeof(ListedRow));
	else if ((r->num_rows & (r->num_rows - 1)) == 0)
		r->rows = repalloc_huge(r->rows, 2 * r->num_rows * sizeof(ListedRow));
	r->rows[r->num_rows++] = row;
}

/* Keeps a message of the list until the answer has been read; does not throw. */
static void
take_listed(void *arg, const ListedMessage *listed)
{
	Reconciliation *r = arg;
	const char	   *status = receipt_status(listed->status);
	TimestampTz		created = listed->created > 0 ? time_t_to_timestamptz(listed->created) : 0;
	MemoryContext	old;
	ListedRow		row = {.status = status, .segments = listed->segments, .created = created};

	if (listed->inbound || status == NULL)
		return;
	old = MemoryContextSwitchTo(r->context);
	row.sid = pstrdup(listed->sid);
	row.phone = listed->to ? pstrdup(number_of_address(listed->to)) : NULL;
	row.price = receipt_price(listed->price);
	row.price_unit = receipt_price_unit(listed->price_unit);
	if (is_in_time(r, created))
	{
		row.as = recognize(r, listed, &row.list_user_id);
		r->is_redacted |= is_redacted(listed);
	}
	add_row(r, row);
	MemoryContextSwitchTo(old);
}

/* Reads an answer, and moves what it says to the table.  Nothing else is left of it. */
static void
take_answer(Reconciliation *r, const HttpResponse *response)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);

	take_receipt_answer(response->tag, response);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < r->num_rows; i++)
		listed_add(r->table, &r->rows[i]);
	r->rows = NULL;
	r->num_rows = 0;
	MemoryContextReset(r->context);
}

/* Asks what there is to be asked, and stores the answers. */
static void
read_answers(Reconciliation *r, ReceiptReader *reader)
{
	HttpResponse response;

	while (reader->under_way > 0 || !receipt_reader_is_through(reader))
	{
		receipt_reader_ask(reader, GetCurrentTimestamp(), true);
		if (reader->problem)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("could not read Twilio's list of messages: %s", reader->problem),
					 errhint("Nothing was compared. Call the function again once Twilio can be"
							 " reached with the group's credentials.")));
		(void) http_wait(WAIT_MS);
		CHECK_FOR_INTERRUPTS();
		while (http_next(&response))
			take_answer(r, &response);
	}
}

static RecordedMessages
read_list(Reconciliation *r, Account *account)
{
	ReceiptReader	*reader = receipt_reader_create(CurrentMemoryContext, account);
	RecordedMessages missing;

	reader->function = take_listed;
	reader->arg = r;
	ask_for_list(reader, r->since);
	read_answers(r, reader);
	missing = listed_find_missing(r->table, r->run_id);
	for (int i = 0; i < Min(missing.count, MAX_ASKED); i++)
		ask_for_message(reader, missing.sids[i]);
	read_answers(r, reader);
	return missing;
}

/* Whatever happens, nothing is left in the caller's process, not even the secret. */
static RecordedMessages
read_with_credentials(Reconciliation *r)
{
	Account			*account = account_get(r->campaign.group);
	RecordedMessages missing;

	PG_TRY();
	{
		http_init();
		missing = read_list(r, account);
	}
	PG_FINALLY();
	{
		http_stop();
		account_free(account);
	}
	PG_END_TRY();
	return missing;
}

/* The proof is not complete if the list does not show which messages are the run's. */
static void
warn_of_unseen(const Reconciliation *r)
{
	bool is_unknown = r->campaign.text.content_sid && !campaign_has_links(&r->campaign);

	if (r->is_redacted)
		ereport(WARNING,
				(errmsg("messages that are not recorded cannot be found"),
				 errdetail("%s.", REDACTED)));
	else if (is_unknown)
		ereport(WARNING,
				(errmsg("messages that are not recorded cannot be found"),
				 errdetail("Twilio's list shows the texts of a content template, which are not"
						   " known here, and they have no tracking link.")));
}

static void
return_rows(const ReturnSetInfo *result, uint64 count)
{
	SPITupleTable *rows = SPI_tuptable;

	for (uint64 i = 0; i < count; i++)
		tuplestore_puttuple(result->setResult, rows->vals[i]);
}

static void
reconcile(Reconciliation *r, const ReturnSetInfo *result)
{
	RecordedMessages missing;

	find_run(r);
	if (r->account == NULL)
		return;
	read_credentials(r);
	r->table = listed_create();
	r->context = AllocSetContextCreate(CurrentMemoryContext, "sendcampaign listed messages",
									   ALLOCSET_DEFAULT_SIZES);
	missing = read_with_credentials(r);
	warn_of_unseen(r);
	return_rows(result, listed_compare(r->table, r->run_id, &missing));
	listed_free(r->table);
}

/* sendcampaign.reconcile(job_id bigint) returns table (...) */
Datum
sendcampaign_reconcile(PG_FUNCTION_ARGS)
{
	Reconciliation r = {.job_id = PG_GETARG_INT64(0)};

	InitMaterializedSRF(fcinfo, 0);
	check_read_committed("sendcampaign.reconcile()",
						 "Otherwise it would not see what is recorded while it reads Twilio's"
						 " list.");
	check_primary("sendcampaign.reconcile()");
	spi_connect();
	reconcile(&r, (ReturnSetInfo *) fcinfo->resultinfo);
	spi_finish();
	PG_RETURN_NULL();
}
