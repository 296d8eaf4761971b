/*-------------------------------------------------------------------------
 *
 * citus.c
 *	  Citus: which node of a cluster this is, and which one has a table.
 *
 * Only Citus' catalogs are read, which every role may read, so nothing of it is
 * needed to build the extension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/citus.h"
#include "database/columns.h"
#include "database/own_tables.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(sendcampaign_name_is_common);

/* The only row of pg_dist_local_group has one column. */
#define GROUP_COLUMN 1

static Oid
local_group_table(void)
{
	return get_relname_relid("pg_dist_local_group", PG_CATALOG_NAMESPACE);
}

bool
citus_is_here(void)
{
	return OidIsValid(local_group_table());
}

int32
citus_local_group(void)
{
	Oid			table = local_group_table();
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	int32		group = -1;
	bool		isnull = true;

	if (!OidIsValid(table))
		return -1;
	rel = table_open(table, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		group = DatumGetInt32(heap_getattr(tuple, GROUP_COLUMN, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return isnull ? -1 : group;
}

/* What is known of a table's place. */
enum
{
	TABLE = 1,
	BY_COLUMN,	  /* distributed by a column, so on any number of nodes */
	ON_ALL_NODES, /* a reference table */
	IS_WRITTEN,
	GROUP
};

/*
 * The relations ($1) and what they read as views.  A table of a tenant's schema
 * has one shard; a table that Citus does not know is on the coordinator.
 */
#define PLACES                                                                                     \
	"WITH RECURSIVE used(relation, n) AS (SELECT u.r, u.n"                                         \
	"  FROM unnest($1) WITH ORDINALITY u(r, n)"                                                    \
	" UNION SELECT d.refobjid, used.n FROM used JOIN pg_rewrite w ON w.ev_class = used.relation"   \
	"  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid"                 \
	"   AND d.refclassid = 'pg_class'::regclass)"                                                  \
	" SELECT c.oid::int8, coalesce(p.partmethod <> 'n', false),"                                   \
	"  coalesce(p.partmethod = 'n' AND p.repmodel = 't', false), used.n <= $2,"                    \
	"  coalesce(l.groupid, 0)::int8"                                                               \
	" FROM used JOIN pg_class c ON c.oid = used.relation"                                          \
	"  AND c.relkind IN ('r', 'p', 'f')"                                                           \
	"  AND c.relnamespace <> 'pg_catalog'::regnamespace"                                           \
	" LEFT JOIN pg_dist_partition p ON p.logicalrelid = c.oid"                                     \
	" LEFT JOIN pg_dist_shard s ON s.logicalrelid = c.oid"                                         \
	" LEFT JOIN pg_dist_placement l ON l.shardid = s.shardid AND l.shardstate = 1"                 \
	" ORDER BY used.n, c.oid, l.groupid"

pg_noreturn static void fail_by_column(Oid table);

static void
fail_by_column(Oid table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is distributed by a column", table_title(table)),
			 errdetail("A campaign is sent by the node that has all of its tables."),
			 errhint("Give each tenant a schema with the five tables, and distribute it with"
					 " citus_schema_distribute(), or leave the tables undistributed on the"
					 " coordinator.")));
}

pg_noreturn static void fail_mixed(Oid table);

static void
fail_mixed(Oid table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is not on one node with the others", table_title(table)),
			 errdetail("A campaign is sent by the node that has all of its tables."),
			 errhint("Keep the five tables in one schema, and distribute that with"
					 " citus_schema_distribute(), or leave all of them undistributed on the"
					 " coordinator.")));
}

int32
citus_group_of(const Oid *relations, int count, int num_written)
{
	Datum *oids = palloc(count * sizeof(Datum));
	Oid	   types[] = {OIDARRAYOID, INT4OID};
	Datum  values[] = {0, Int32GetDatum(num_written)};
	int32  group = -1;
	uint64 rows;

	for (int i = 0; i < count; i++)
		oids[i] = ObjectIdGetDatum(relations[i]);
	values[0] = make_array(oids, NULL, count, OIDOID);
	rows = own_query(PLACES, 2, types, values, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		Oid	  table = (Oid) spi_int64(i, TABLE);
		int32 here = (int32) spi_int64(i, GROUP);

		if (spi_bool(i, BY_COLUMN))
			fail_by_column(table);
		if (spi_bool(i, ON_ALL_NODES) && !spi_bool(i, IS_WRITTEN))
			continue;
		if (spi_bool(i, ON_ALL_NODES) || (group >= 0 && here != group))
			fail_mixed(table);
		group = here;
	}
	return Max(group, 0);
}

/* Tells whether a catalog of Citus has a row with these keys. */
static bool
catalog_has_row(const char *catalog, const char *index, ScanKeyData *keys, int num_keys)
{
	Oid			table = get_relname_relid(catalog, PG_CATALOG_NAMESPACE);
	Oid			index_oid = get_relname_relid(index, PG_CATALOG_NAMESPACE);
	Relation	rel;
	SysScanDesc scan;
	bool		found;

	if (!OidIsValid(table))
		return false;
	rel = table_open(table, AccessShareLock);
	scan = systable_beginscan(rel, index_oid, OidIsValid(index_oid), NULL, num_keys, keys);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* The columns by which rows are looked up, the first ones of their catalogs. */
enum
{
	PARTITION_RELATION = 1, /* pg_dist_partition.logicalrelid */
	OBJECT_CLASS = 1,		/* pg_dist_object.classid */
	OBJECT_ID				/* pg_dist_object.objid */
};

bool
citus_has_table(Oid table)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], PARTITION_RELATION, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	if (catalog_has_row("pg_dist_partition", "pg_dist_partition_logical_relid_index", keys, 1))
		return true;
	ScanKeyInit(&keys[0], OBJECT_CLASS, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], OBJECT_ID, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(table));
	return catalog_has_row("pg_dist_object", "pg_dist_object_pkey", keys, 2);
}

bool
citus_name_is_common(Oid table)
{
	return citus_local_group() <= 0 || citus_has_table(table);
}

/* sendcampaign.name_is_common(relation oid) returns boolean */
Datum
sendcampaign_name_is_common(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(citus_name_is_common(PG_GETARG_OID(0)));
}

char *
citus_node_name(int32 group)
{
	Oid	  type = INT4OID;
	Datum value = Int32GetDatum(group);

	if (own_query("SELECT nodename || ':' || nodeport FROM pg_dist_node"
				  " WHERE groupid = $1 AND noderole = 'primary'",
				  1, &type, &value, NULL) == 0)
		return NULL;
	return spi_string(0, 1);
}

/* Versions of Citus before 13.2 have no clones, and no such column. */
bool
citus_has_clone(void)
{
	Oid	  nodes = get_relname_relid("pg_dist_node", PG_CATALOG_NAMESPACE);
	Oid	  type = INT4OID;
	Datum value = Int32GetDatum(citus_local_group());

	return OidIsValid(nodes) && has_column(nodes, "nodeisclone") &&
		   own_query(
			   "SELECT FROM pg_dist_node c JOIN pg_dist_node p ON p.nodeid = c.nodeprimarynodeid"
			   " WHERE c.nodeisclone AND p.groupid = $1",
			   1, &type, &value, NULL) > 0;
}
