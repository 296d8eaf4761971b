/*
 * receipts.c
 *		What Twilio reports comes from its list, or by callbacks.  This lets a
 *		test report whatever it wants, on behalf of any role.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "database/receipt_table.h"
#include "database/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

bool sendcampaign_receipts = false; /* a setting of the extension */

PG_FUNCTION_INFO_V1(store_receipts);
PG_FUNCTION_INFO_V1(take_early_receipts);
PG_FUNCTION_INFO_V1(close_receipts);

/* Arguments from 0 on: role, account, schema (or null), group. */
static ReceiptScope
scope_of(FunctionCallInfo fcinfo)
{
	return (ReceiptScope){PG_GETARG_OID(0), text_to_cstring(PG_GETARG_TEXT_PP(1)),
						  PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2)),
						  PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3)};
}

/* A report in JSON: an object of Receipt's members, all strings; here as text by row. */
static Receipt *
read_receipts(Datum reports, int *count)
{
	Oid		 type = JSONBOID;
	Receipt *receipts;

	*count = (int) spi_query(
		"SELECT e->>'sid', e->>'status', (e->>'code')::int, (e->>'segments')::int, e->>'price',"
		" e->>'unit', (e->>'at')::timestamptz FROM jsonb_array_elements($1) e",
		&(SpiCall){1, &type, &reports});
	receipts = palloc0(Max(*count, 1) * sizeof(Receipt));
	for (int i = 0; i < *count; i++)
		receipts[i] = (Receipt){spi_string(i, 1), spi_string(i, 2), spi_int32(i, 3),
								spi_int32(i, 4),  spi_string(i, 5), spi_string(i, 6),
								spi_timestamptz(i, 7)};
	return receipts;
}

/* How many were known, and what is to be announced. */
static text *
told(const StoredReceipts *stored, MemoryContext context)
{
	StringInfoData buf;
	ListCell	  *lc;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%d", stored->num_known);
	foreach (lc, stored->announcements)
		appendStringInfo(&buf, " %s", (char *) lfirst(lc));
	MemoryContextSwitchTo(context);
	return cstring_to_text(buf.data);
}

/* Arguments: the scope, reports (jsonb), whether they are early. */
Datum
store_receipts(PG_FUNCTION_ARGS)
{
	MemoryContext  context = CurrentMemoryContext;
	ReceiptScope   scope = scope_of(fcinfo);
	StoredReceipts stored = {0};
	int			   count;
	Receipt		  *receipts;
	text		  *result;

	spi_connect();
	receipts = read_receipts(PG_GETARG_DATUM(4), &count);
	if (PG_GETARG_BOOL(5))
		stored.num_known = receipts_store_early(&scope, receipts, count);
	else
		stored = receipts_store(&scope, receipts, count);
	result = told(&stored, context);
	spi_finish();
	PG_RETURN_TEXT_P(result);
}

/* Argument: the scope. */
Datum
take_early_receipts(PG_FUNCTION_ARGS)
{
	MemoryContext  context = CurrentMemoryContext;
	ReceiptScope   scope = scope_of(fcinfo);
	StoredReceipts stored;
	text		  *result;

	spi_connect();
	stored = receipts_take_early(&scope);
	result = told(&stored, context);
	spi_finish();
	PG_RETURN_TEXT_P(result);
}

/* Argument: the run. */
Datum
close_receipts(PG_FUNCTION_ARGS)
{
	MemoryContext  context = CurrentMemoryContext;
	StoredReceipts stored = {0};
	int64		   after = PG_INT64_MIN;
	text		  *result;

	spi_connect();
	do
		stored.num_known++;
	while (receipts_close(PG_GETARG_INT64(0), DT_NOEND, &after, 10000, &stored.announcements));
	result = told(&stored, context);
	spi_finish();
	PG_RETURN_TEXT_P(result);
}
