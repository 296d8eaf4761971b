/*-------------------------------------------------------------------------
 *
 * listed_table.c
 *	  Twilio's list of messages as a table of one call, and how it differs
 *	  from what is recorded.
 *
 * PostgreSQL lets a connection to SPI name a tuplestore like a table, as it
 * does for the transition tables of triggers.  So a list of any length is
 * compared by ordinary joins, within work_mem.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/listed_table.h"
#include "database/own_tables.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#define TABLE_NAME	"listed"
#define NUM_COLUMNS 9

struct ListedTable
{
	EphemeralNamedRelationData relation;
	Tuplestorestate			  *rows;
	MemoryContext			   row_context; /* of the row that is being added */
};

static TupleDesc
listed_columns(void)
{
	static const struct
	{
		const char *name;
		Oid			type;
	} columns[NUM_COLUMNS] = {{"sid", TEXTOID},
							  {"phone", TEXTOID},
							  {"status", TEXTOID},
							  {"segments", INT4OID},
							  {"price", TEXTOID},
							  {"price_unit", TEXTOID},
							  {"created_at", TIMESTAMPTZOID},
							  {"listed_as", INT4OID},
							  {"list_user_id", INT8OID}};
	TupleDesc desc = CreateTemplateTupleDesc(NUM_COLUMNS);

	for (int i = 0; i < NUM_COLUMNS; i++)
		TupleDescInitEntry(desc, i + 1, columns[i].name, columns[i].type, -1, 0);
	TupleDescFinalize(desc);
	return desc;
}

ListedTable *
listed_create(void)
{
	ListedTable *table = palloc0(sizeof(ListedTable));

	table->rows = tuplestore_begin_heap(false, false, work_mem);
	table->row_context = AllocSetContextCreate(CurrentMemoryContext, "sendcampaign listed row",
											   ALLOCSET_DEFAULT_SIZES);
	table->relation.md.name = TABLE_NAME;
	table->relation.md.tupdesc = listed_columns();
	table->relation.md.enrtype = ENR_NAMED_TUPLESTORE;
	table->relation.reldata = table->rows;
	spi_check(SPI_register_relation(&table->relation), SPI_OK_REL_REGISTER,
			  "SPI_register_relation");
	return table;
}

void
listed_free(ListedTable *table)
{
	spi_check(SPI_unregister_relation(TABLE_NAME), SPI_OK_REL_UNREGISTER,
			  "SPI_unregister_relation");
	tuplestore_end(table->rows);
}

void
listed_add(ListedTable *table, const ListedRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(table->row_context);
	Datum values[NUM_COLUMNS] = {optional_text(row->sid),			optional_text(row->phone),
								 optional_text(row->status),		Int32GetDatum(row->segments),
								 optional_text(row->price),			optional_text(row->price_unit),
								 TimestampTzGetDatum(row->created), Int32GetDatum(row->as),
								 Int64GetDatum(row->list_user_id)};
	bool  nulls[NUM_COLUMNS] = {false,
								row->phone == NULL,
								row->status == NULL,
								row->segments == 0,
								row->price == NULL,
								row->price_unit == NULL,
								row->created == 0,
								false,
								row->as != LISTED_AS_LINK};

	tuplestore_putvalues(table->rows, table->relation.md.tupdesc, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(table->row_context);
	table->relation.md.enrtuples++;
}

RecordedMessages
listed_find_missing(ListedTable *table, int64 run_id)
{
	RecordedMessages missing = {0};

	(void) own_query_by_id(
		"SELECT coalesce(array_agg(m.list_user_id), '{}'), coalesce(array_agg(m.phone), '{}'),"
		" coalesce(array_agg(m.sid), '{}') FROM sendcampaign.message_data m"
		" WHERE m.run_id = $1 AND m.status = 'sent' AND m.sid IS NOT NULL"
		" AND NOT EXISTS (SELECT FROM " TABLE_NAME " l WHERE l.sid = m.sid)",
		run_id);
	missing.list_user_ids = PointerGetDatum(spi_array(0, 1));
	missing.phones = PointerGetDatum(spi_array(0, 2));
	missing.sid_array = PointerGetDatum(spi_array(0, 3));
	missing.sids = spi_strings(0, 3, &missing.count);
	return missing;
}

/* SQL: the list, each message once, and what is recorded of the run's messages. */
#define BOTH                                                                                       \
	"WITH l AS MATERIALIZED (SELECT DISTINCT ON (sid) * FROM " TABLE_NAME " ORDER BY sid),"        \
	" r AS MATERIALIZED (SELECT m.list_user_id, m.phone, m.sid,"                                   \
	"   coalesce(d.segments, m.segments) AS segments, d.price, d.price_unit, d.status"             \
	"  FROM sendcampaign.message_data m LEFT JOIN sendcampaign.receipt_data d"                     \
	"   ON d.run_id = m.run_id AND d.list_user_id = m.list_user_id AND d.sid = m.sid"              \
	"  WHERE m.run_id = $1 AND m.status = 'sent'),"

/*
 * SQL: messages of the run that are not recorded.  There are few, if any: the
 * ones left after the join with the run's own messages are looked up by SID and
 * by phone, whatever the planner believes of the tables, for which OFFSET is
 * there.  What a worker is about to record is not one of them.  Of several runs
 * of the campaign, a message is of the latest one that had begun by then; the
 * list has whole seconds.
 */
#define STRAYS                                                                                     \
	" begun AS MATERIALIZED (SELECT o.id, coalesce(o.started_at, o.queued_at) AS at"               \
	"  FROM sendcampaign.run_data o JOIN sendcampaign.run_data p ON o.campaign_id = p.campaign_id" \
	"   AND o.schema = p.schema WHERE p.id = $1),"                                                 \
	" unknown AS MATERIALIZED (SELECT l.* FROM l WHERE l.listed_as <> 0"                           \
	"  AND NOT EXISTS (SELECT FROM r WHERE r.sid = l.sid)),"                                       \
	" stray AS MATERIALIZED (SELECT u.* FROM unknown u"                                            \
	"  WHERE NOT EXISTS (SELECT FROM sendcampaign.message_data m"                                  \
	"    WHERE m.sid = u.sid AND m.status <> 'skipped' OFFSET 0)"                                  \
	"   AND $1 = coalesce((SELECT b.id FROM begun b WHERE b.at < u.created_at + interval '1 s'"    \
	"    ORDER BY b.at DESC, b.id DESC LIMIT 1), $1)"                                              \
	"   AND NOT EXISTS (SELECT FROM sendcampaign.receipt_data d"                                   \
	"    WHERE d.first_sid = u.sid OFFSET 0)"                                                      \
	"   AND NOT EXISTS (SELECT FROM sendcampaign.claim c"                                          \
	"    JOIN sendcampaign.run_data o ON o.id = c.run_id"                                          \
	"    WHERE o.finished_at IS NULL AND o.state <> 'paused' AND u.phone = ANY (c.phones)"         \
	"    OFFSET 0)),"

/* SQL: the same, with the recipient, and what is recorded of that one's message. */
#define STRAYS_OF_RECIPIENTS                                                                        \
	" found AS (SELECT s.sid, s.phone, s.status AS listed, s.created_at,"                           \
	"   coalesce(m.list_user_id, s.list_user_id) AS list_user_id, m.status, m.sid AS recorded_sid," \
	"   row_number() OVER (PARTITION BY coalesce(m.list_user_id, s.list_user_id)"                   \
	"    ORDER BY s.created_at, s.sid) AS n"                                                        \
	"  FROM stray s LEFT JOIN LATERAL"                                                              \
	"   ((SELECT a.* FROM sendcampaign.message_data a WHERE s.listed_as = 3 AND a.run_id = $1"      \
	"     AND a.list_user_id = s.list_user_id OFFSET 0)"                                            \
	"    UNION ALL"                                                                                 \
	"    (SELECT b.* FROM sendcampaign.message_data b WHERE s.listed_as < 3 AND b.phone = s.phone"  \
	"      AND b.run_id = $1 ORDER BY b.status = 'skipped', b.list_user_id LIMIT 1)) m ON true"     \
	"  WHERE s.listed_as <> 1 OR m.list_user_id IS NOT NULL)"

/* SQL: a price with its currency. */
#define PRICE(row) "concat_ws(' ', " row ".price, " row ".price_unit)"

/* SQL: what a final status comes to. */
#define IS_DELIVERED(row)                                                                          \
	"CASE WHEN " row ".status IN ('delivered', 'read') THEN true"                                  \
	" WHEN " row ".status IN ('undelivered', 'failed', 'canceled') THEN false END"

/*
 * A message that a person has settled as sent, or whose number is forgotten,
 * has no SID: the first one of that recipient is that message.
 */
static const char compare[] = BOTH STRAYS STRAYS_OF_RECIPIENTS
	" SELECT * FROM ("
	"SELECT CASE WHEN f.recorded_sid IS NULL AND f.n = 1 THEN 'unrecorded' ELSE 'twice' END"
	"  AS difference, f.list_user_id, f.phone, f.sid, coalesce(f.recorded_sid, f.status) AS recorded,"
	"  f.listed, f.created_at FROM found f"
	" WHERE f.status IS DISTINCT FROM 'sent' OR f.recorded_sid IS NOT NULL OR f.n > 1"
	" UNION ALL SELECT 'missing', u.id, u.phone, u.sid, 'sent', NULL, NULL"
	"  FROM unnest($2, $3, $4) u(id, phone, sid) WHERE NOT EXISTS (SELECT FROM l WHERE l.sid = u.sid)"
	" UNION ALL SELECT 'shared', r.list_user_id, r.phone, r.sid,"
	"   'list user ' || o.list_user_id || ' of job ' || o.job_id, l.status, l.created_at"
	"  FROM r JOIN l ON l.sid = r.sid CROSS JOIN LATERAL (SELECT m.list_user_id, n.job_id"
	"   FROM sendcampaign.message_data m JOIN sendcampaign.run_data n ON n.id = m.run_id"
	"   WHERE m.sid = r.sid AND m.status = 'sent'"
	"    AND (m.run_id <> $1 OR m.list_user_id <> r.list_user_id)"
	"    AND n.role_oid = (SELECT p.role_oid FROM sendcampaign.run_data p WHERE p.id = $1)"
	"   ORDER BY n.job_id, m.list_user_id LIMIT 1) o"
	" UNION ALL SELECT 'segments', r.list_user_id, r.phone, r.sid, r.segments::text,"
	"   l.segments::text, l.created_at FROM r JOIN l ON l.sid = r.sid WHERE r.segments <> l.segments"
	" UNION ALL SELECT 'price', r.list_user_id, r.phone, r.sid, " PRICE("r") ", " PRICE(
		"l") ","
			 "   l.created_at FROM r JOIN l ON l.sid = r.sid"
			 "  WHERE r.price <> l.price::numeric OR (l.price IS NOT NULL AND r.price_unit <> l.price_unit)"
			 " UNION ALL SELECT 'status', r.list_user_id, r.phone, r.sid, r.status, l.status, l.created_at"
			 "  FROM r JOIN l ON l.sid = r.sid WHERE " IS_DELIVERED("r") " <> " IS_DELIVERED(
				 "l") ") d ORDER BY d.list_user_id, d.difference, d.sid";

uint64
listed_compare(ListedTable *table, int64 run_id, const RecordedMessages *missing)
{
	Oid	  types[] = {INT8OID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum values[] = {Int64GetDatum(run_id), missing->list_user_ids, missing->phones,
					  missing->sid_array};

	return own_query(compare, lengthof(types), types, values, NULL);
}
