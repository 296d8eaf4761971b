/*-------------------------------------------------------------------------
 *
 * trust.c
 *	  Whose code runs when a role uses the application's tables.
 *
 * Triggers, views, rules, policies, defaults, constraints, indexes on
 * expressions, casts: all of it runs as the role that uses a table, whoever
 * has written it.  That is the role's own affair if it calls us itself.  It is
 * not if somebody else leads it to the tables: in a SECURITY DEFINER function,
 * or as a superuser, who looks after the campaigns of others.
 *
 * Code is trusted if it belongs to the role itself, to a superuser, or to a
 * role that has this role's rights already and so gains nothing.  A superuser
 * trusts only code that belongs to a superuser.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/own_tables.h"
#include "database/trust.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"

/*
 * Everything that the tables in $1 lead to, by dependencies: what belongs to a
 * table (views' queries, triggers, policies, defaults, constraints, indexes,
 * children) or to a type, and what all of this uses.  Objects of the system
 * itself are in no dependency.  The checks of a foreign key run as the owner
 * of the table that they read, so they are not followed.
 */
static const char *const CODE_OF_TABLES =
	"WITH RECURSIVE code(class, object) AS ("
	"  SELECT 'pg_catalog.pg_class'::regclass::oid, t FROM unnest($1) t"
	" UNION"
	"  SELECT n.class, n.object FROM code c CROSS JOIN LATERAL ("
	"    SELECT d.refclassid, d.refobjid FROM pg_depend d"
	"    WHERE d.classid = c.class AND d.objid = c.object AND d.deptype IN ('n', 'i')"
	"    AND (c.class <> 'pg_catalog.pg_type'::regclass"
	"      OR d.refclassid <> 'pg_catalog.pg_class'::regclass)"
	"   UNION ALL"
	"    SELECT d.classid, d.objid FROM pg_depend d"
	"    LEFT JOIN pg_class i ON d.classid = 'pg_catalog.pg_class'::regclass AND i.oid = d.objid"
	"    LEFT JOIN pg_constraint k"
	"     ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid"
	"    WHERE d.refclassid = c.class AND d.refobjid = c.object"
	"    AND c.class IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_type'::regclass,"
	"     'pg_catalog.pg_constraint'::regclass)"
	"    AND d.deptype IN ('a', 'i', 'P', 'S')"
	"    AND (d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_attrdef'::regclass,"
	"      'pg_catalog.pg_policy'::regclass)"
	"     OR (d.classid = 'pg_catalog.pg_trigger'::regclass"
	"      AND c.class = 'pg_catalog.pg_class'::regclass)"
	"     OR i.relkind IN ('i', 'I') OR k.contype <> 'f')"
	"   UNION ALL"
	"    SELECT 'pg_catalog.pg_class'::regclass, h.inhrelid FROM pg_inherits h"
	"    WHERE c.class = 'pg_catalog.pg_class'::regclass AND h.inhparent = c.object"
	"   ) n(class, object)),"
	" owned AS (SELECT c.class, c.object, coalesce("
	"   (SELECT r.relowner FROM pg_class r WHERE c.class = 'pg_catalog.pg_class'::regclass"
	"     AND r.oid = c.object AND r.relkind IN ('r', 'p', 'v', 'm', 'f')),"
	"   (SELECT p.proowner FROM pg_proc p WHERE c.class = 'pg_catalog.pg_proc'::regclass"
	"     AND p.oid = c.object),"
	"   (SELECT t.typowner FROM pg_type t WHERE c.class = 'pg_catalog.pg_type'::regclass"
	"     AND t.oid = c.object)) AS owner FROM code c)"
	" SELECT DISTINCT ON (o.owner) o.owner::int8, pg_describe_object(o.class, o.object, 0)"
	" FROM owned o WHERE o.owner IS NOT NULL"
	" ORDER BY o.owner, o.class = 'pg_catalog.pg_class'::regclass DESC, o.object";

/* The only member of pg_database_owner is the owner of the database. */
static Oid
who_owns(Oid owner)
{
	HeapTuple tuple;

	if (owner != ROLE_PG_DATABASE_OWNER)
		return owner;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
	return owner;
}

static bool
is_trusted_owner(Oid owner, Oid role)
{
	owner = who_owns(owner);
	if (superuser_arg(owner))
		return true;
	return !superuser_arg(role) && (owner == role || compat_can_act_as(owner, role));
}

/* Fills SPI_tuptable, using only the right to read the catalogs. */
static uint64
read_code(const Oid *tables, int count)
{
	static SPIPlanPtr plan = NULL;
	Oid				  type = OIDARRAYOID;
	Datum			 *oids = palloc(count * sizeof(Datum));
	Datum			  array;
	uint64			  rows;
	int				  level = NewGUCNestLevel();

	for (int i = 0; i < count; i++)
		oids[i] = ObjectIdGetDatum(tables[i]);
	array = make_array(oids, NULL, count, OIDOID);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	/* its estimated cost is high, but it ends before JIT would pay off */
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
	plan_by_index();
	if (plan == NULL)
	{
		plan = spi_prepare(CODE_OF_TABLES, 1, &type);
	}
	rows = spi_execute(plan, &array, NULL, 0);
	AtEOXact_GUC(true, level);
	return rows;
}

bool
find_foreign_code(Oid role, const Oid *tables, int count, ForeignCode *found)
{
	bool   is_foreign = false;
	uint64 rows;

	/* a superuser must run only what was checked; others need not wait for locks */
	for (int i = 0; superuser_arg(role) && i < count; i++)
		LockRelationOid(tables[i], RowExclusiveLock);
	rows = read_code(tables, count);
	for (uint64 i = 0; i < rows && !is_foreign; i++)
	{
		Oid owner = (Oid) spi_int64(i, 1);

		is_foreign = !is_trusted_owner(owner, role);
		if (is_foreign)
			*found = (ForeignCode){spi_string(i, 2), GetUserNameFromId(owner, false)};
	}
	SPI_freetuptable(SPI_tuptable);
	return is_foreign;
}

void
check_code_is_trusted(Oid role, const Oid *tables, int count, const char *schema)
{
	ForeignCode foreign;

	if (!find_foreign_code(role, tables, count, &foreign))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the tables in schema \"%s\" cannot be used with the rights of role \"%s\"",
					schema, GetUserNameFromId(role, false)),
			 errdetail("%s belongs to role \"%s\", whose code would run with these rights.",
					   foreign.object, foreign.owner),
			 superuser_arg(role)
				? errhint("Make one role the owner of all tables and of the functions that they"
						  " use.")
				: errhint("Add SET sendcampaign.schema to the SECURITY DEFINER function, or make"
						  " its owner, or a member of its owner, the owner of the tables and of"
						  " the functions that they use.")));
}

/*
 * The locks are held to the end of the (sub)transaction, so one check is
 * enough, even for many runs on the same tables.
 */
void
check_code_once(const Oid *tables, int count, const char *schema)
{
	static LocalTransactionId transaction = InvalidLocalTransactionId;
	static SubTransactionId	  subtransaction = InvalidSubTransactionId;
	static Oid				  checked[NUM_TABLES];
	Size					  size = count * sizeof(Oid);

	Assert(count <= NUM_TABLES);
	if (transaction == compat_local_transaction() &&
		subtransaction == GetCurrentSubTransactionId() && memcmp(checked, tables, size) == 0)
		return;
	check_code_is_trusted(GetUserId(), tables, count, schema);
	transaction = compat_local_transaction();
	subtransaction = GetCurrentSubTransactionId();
	memcpy(checked, tables, size);
}
