/*-------------------------------------------------------------------------
 *
 * home.c
 *	  Where a run belongs, and how we know that it has stayed there.
 *
 * What the tables say about a run is true only as long as no older state of
 * them has come back.  Three marks reveal that:
 *
 *	  system identifier, database	another cluster or database: a dump of the
 *									run, or a copy; it must not send anything
 *	  group of Citus				the same for nodes of one cluster: a clone of
 *									a node has its system identifier and database
 *	  timeline, backup label		a promotion, or a restored base backup
 *	  written_in					a dump that was loaded in place, or rows
 *									that were replicated there and back
 *
 * written_in is the transaction that wrote a row, so it equals xmin until the
 * row is loaded from a dump: then xmin is the transaction that loaded it.  The
 * mark survives VACUUM and freezing, which keep xmin, and needs no table, no
 * lock and no lookup.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "database/citus.h"
#include "database/home.h"
#include "database/own_tables.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(sendcampaign_current_xid);
PG_FUNCTION_INFO_V1(sendcampaign_keep_xid);

static Datum
make_numeric(char *digits)
{
	return DirectFunctionCall3(numeric_in, CStringGetDatum(digits), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

Datum
system_identifier(void)
{
	return make_numeric(psprintf(UINT64_FORMAT, GetSystemIdentifier()));
}

Datum
home_identifier(void)
{
	int32 group = citus_local_group();

	if (group <= 0)
		return system_identifier();
	return make_numeric(psprintf(UINT64_FORMAT ".%010d", GetSystemIdentifier(), group));
}

char *
home_mark(void)
{
	if (!citus_is_here())
		return NULL;
	return psprintf(UINT64_FORMAT "/%u/%d", GetSystemIdentifier(), MyDatabaseId,
					citus_local_group());
}

uint64
query_run_of_job(const char *sql, int64 job_id, const char *schema)
{
	Oid	  types[] = {INT8OID, TEXTOID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(job_id), CStringGetTextDatum(schema), home_identifier(),
					  ObjectIdGetDatum(MyDatabaseId)};

	return own_query(sql, 4, types, values, NULL);
}

bool
is_of_other_node(int64 run_id)
{
	Oid	  types[] = {INT8OID, NUMERICOID, OIDOID};
	Datum values[] = {Int64GetDatum(run_id), system_identifier(), ObjectIdGetDatum(MyDatabaseId)};

	return citus_is_here() && own_query("SELECT FROM sendcampaign.run_data WHERE id = $1"
										" AND trunc(system_identifier) = $2 AND database = $3"
										" AND written_in <> '0'::xid",
										3, types, values, NULL) > 0;
}

/*
 * The timeline changes at a promotion and at a point-in-time recovery.  A
 * restored base backup that is merely started stays on its timeline, but the
 * server leaves the backup's label in the data directory.
 */
char *
cluster_timeline(void)
{
	FILE  *file = AllocateFile("backup_label.old", "r");
	char   label[1024];
	uint32 hash = 0;

	if (file)
	{
		size_t length = fread(label, 1, sizeof(label), file);

		for (size_t i = 0; i < length; i++)
			hash = hash * 31 + (unsigned char) label[i];
		FreeFile(file);
	}
	return psprintf("%u/%08X", GetWALInsertionTimeLine(), hash);
}

/*
 * Leaves each recipient in one batch only.  Batches that the extension wrote
 * take precedence, and after these, batches that list the recipient among
 * their duplicates: only they know who else has the same phone number.  What
 * remains of a loaded batch becomes the extension's own.
 */
static void
drop_double_recipients(int64 run_id)
{
	static const char *const sql =
		"WITH b AS MATERIALIZED (SELECT number, list_user_ids AS ids, duplicates, xmin = written_in AS ours"
		"  FROM sendcampaign.batch WHERE run_id = $1),"
		" one AS (SELECT DISTINCT ON (u.id) u.id, b.number FROM b, unnest(b.ids) u(id)"
		"  WHERE u.id IS NOT NULL ORDER BY u.id, b.ours DESC,"
		"  coalesce(u.id = ANY (b.duplicates), false) DESC, b.number),"
		" good AS (SELECT number, array_agg(id ORDER BY id) AS ids FROM one GROUP BY number)"
		" UPDATE sendcampaign.batch t SET list_user_ids = coalesce(good.ids, '{}'),"
		"  written_in = DEFAULT FROM b LEFT JOIN good USING (number)"
		" WHERE t.run_id = $1 AND t.number = b.number AND NOT b.ours";

	(void) own_query_by_id(sql, run_id);
}

void
accept_loaded_rows(int64 run_id)
{
	drop_double_recipients(run_id);
	(void) own_query_by_id("UPDATE sendcampaign.claim SET written_in = DEFAULT WHERE run_id = $1",
						   run_id);
}

/* sendcampaign.current_xid() returns xid: the default of written_in */
Datum
sendcampaign_current_xid(PG_FUNCTION_ARGS)
{
	PG_RETURN_TRANSACTIONID(GetCurrentTransactionId());
}

char *
node_of_run(int64 run_id)
{
	if (own_query_by_id("SELECT ((system_identifier % 1) * 10000000000)::int8"
						" FROM sendcampaign.run_data WHERE id = $1",
						run_id) == 0)
		return NULL;
	return citus_node_name((int32) spi_int64(0, 1));
}

static TransactionId
written_in(HeapTuple tuple, TupleDesc descriptor, int column)
{
	bool isnull;

	return DatumGetTransactionId(heap_getattr(tuple, column, descriptor, &isnull));
}

/*
 * Returns the value that written_in is to have.  If anybody else may write the
 * row, such as the owner of the database who loads a dump, that does not make
 * it the extension's.
 */
static TransactionId
next_written_in(const TriggerData *data, int column, TransactionId wanted)
{
	TransactionId current = GetCurrentTransactionId();
	TupleDesc	  descriptor = data->tg_relation->rd_att;
	bool		  is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	TransactionId old;

	if (!superuser_arg(GetUserId())) /* the extension's owner is one */
		return InvalidTransactionId;
	if (!is_update || wanted == current)
		return wanted;
	old = written_in(data->tg_trigtuple, descriptor, column);
	return old == HeapTupleHeaderGetRawXmin(data->tg_trigtuple->t_data) ? current : old;
}

/* sendcampaign.keep_xid() returns trigger, before INSERT or UPDATE for each row */
Datum
sendcampaign_keep_xid(PG_FUNCTION_ARGS)
{
	TriggerData	 *data = (TriggerData *) fcinfo->context;
	HeapTuple	  tuple;
	TransactionId wanted;
	TransactionId next;
	Datum		  value;
	int			  column;
	bool		  isnull = false;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) || TRIGGER_FIRED_BY_DELETE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("sendcampaign.keep_xid() was not called by a trigger before INSERT or"
						" UPDATE for each row"),
				 errhint("This function is for the extension's own tables.")));
	tuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
	column = SPI_fnumber(data->tg_relation->rd_att, "written_in");
	if (column <= 0 || SPI_gettypeid(data->tg_relation->rd_att, column) != XIDOID)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("table \"%s\" has no column \"written_in\" of type xid",
						RelationGetRelationName(data->tg_relation)),
				 errhint("sendcampaign.keep_xid() is for the extension's own tables.")));
	wanted = written_in(tuple, data->tg_relation->rd_att, column);
	next = next_written_in(data, column, wanted);
	if (next == wanted)
		return PointerGetDatum(tuple);
	value = TransactionIdGetDatum(next);
	return PointerGetDatum(
		heap_modify_tuple_by_cols(tuple, data->tg_relation->rd_att, 1, &column, &value, &isnull));
}
