/*-------------------------------------------------------------------------
 *
 * check.c
 *	  Checks that the application's tables are suitable for sending a campaign.
 *
 * Problems must be found before the first message leaves: that sentCount
 * cannot be written must not become known after something has been sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/check.h"
#include "database/columns.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static const Oid integer_types[] = {INT2OID, INT4OID, INT8OID, InvalidOid};
static const Oid number_types[] = {INT2OID,	  INT4OID,	 INT8OID,	NUMERICOID,
								   FLOAT4OID, FLOAT8OID, InvalidOid};
static const Oid json_types[] = {JSONOID, JSONBOID, InvalidOid};
static const Oid text_types[] = {TEXTOID, VARCHAROID, InvalidOid};

static bool
is_among(Oid type, const Oid *types)
{
	for (; OidIsValid(*types); types++)
	{
		if (type == *types)
			return true;
	}
	return false;
}

/* Returns the types as people write them: "smallint, integer, bigint". */
static char *
type_names(const Oid *types)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; OidIsValid(types[i]); i++)
		appendStringInfo(&buf, "%s%s", i == 0 ? "" : ", ", format_type_be(types[i]));
	return buf.data;
}

static void
check_type(Oid table, const char *column, const Oid *types)
{
	Oid type = column_type(table, column);

	if (!is_among(type, types))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of \"%s\" is of type %s",
						column, table_title(table), format_type_be(type)),
				 errhint("Change it to one of these types: %s.", type_names(types))));
}

static void
check_column(Oid table, const char *column, const Oid *types)
{
	if (!has_column(table, column))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of \"%s\" does not exist", column, table_title(table)),
				 errhint("Add it, or set \"sendcampaign.schema\" to the schema of the"
						 " application's tables.")));
	check_type(table, column, types);
}

/* Checks a value that is in a column of its own, or else a key of data. */
static void
check_value(Oid table, const char *key)
{
	if (column_for(table, key) == NULL && !has_column(table, "data"))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has neither a column \"%s\" nor a column \"data\"",
						table_title(table), key),
				 errhint("Add one of them, or set \"sendcampaign.schema\" to the schema of the"
						 " application's tables.")));
	if (has_column(table, "data"))
		check_type(table, "data", json_types);
}

/* Generated columns, and expressions in views, are not updatable. */
static bool
is_updatable(Oid table, const char *column)
{
	HeapTuple  tuple = SearchSysCacheAttName(table, column);
	AttrNumber number;
	bool	   generated;

	if (!HeapTupleIsValid(tuple))
		return false;
	number = ((Form_pg_attribute) GETSTRUCT(tuple))->attnum;
	generated = ((Form_pg_attribute) GETSTRUCT(tuple))->attgenerated != '\0';
	ReleaseSysCache(tuple);
	return !generated &&
		   relation_is_updatable(table, NIL, true,
								 bms_make_singleton(number - FirstLowInvalidHeapAttributeNumber)) &
			   (1 << CMD_UPDATE);
}

static void
check_updatable(Oid table, const char *column)
{
	if (!is_updatable(table, column))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of \"%s\" cannot be updated", column, table_title(table)),
				 errdetail("The column is generated or an expression of a view, or the view is not"
						   " updatable."),
				 errhint("Make it an ordinary column, or give the view an INSTEAD OF UPDATE"
						 " trigger.")));
}

static void
check_groups(Oid groups)
{
	bool has_private = has_column(groups, "private_access_configuration");

	check_column(groups, "id", integer_types);
	if (has_private)
		check_type(groups, "private_access_configuration", json_types);
	if (!has_private || has_column(groups, "configuration"))
		check_column(groups, "configuration", json_types);
}

static void
check_list_users(Oid list_users)
{
	const char *count = count_column(list_users);

	check_column(list_users, "id", integer_types);
	check_column(list_users, "ac_list_id", integer_types);
	check_value(list_users, "sms");
	check_value(list_users, "sentCount");
	if (count)
		check_type(list_users, count, number_types);
	check_updatable(list_users, count ? count : "data");
}

static void
check_jobs(Oid jobs)
{
	check_column(jobs, "id", integer_types);
	check_column(jobs, "progress", number_types);
	check_column(jobs, "error", text_types);
	check_updatable(jobs, "progress");
	check_updatable(jobs, "error");
	if (!has_column(jobs, "data"))
		return;
	check_type(jobs, "data", json_types);
	check_updatable(jobs, "data");
}

void
tables_check_columns(const AppTables *tables)
{
	check_groups(tables->groups);
	check_column(tables->lists, "id", integer_types);
	check_column(tables->lists, "group_id", integer_types);
	check_column(tables->campaigns, "id", integer_types);
	check_column(tables->campaigns, "ac_list_id", integer_types);
	check_value(tables->campaigns, "message");
	check_list_users(tables->list_users);
	check_jobs(tables->jobs);
}

static void
check_column_right(Oid table, const char *column, Oid role)
{
	if (pg_class_aclcheck(table, role, ACL_UPDATE) != ACLCHECK_OK &&
		pg_attribute_aclcheck(table, get_attnum(table, column), role, ACL_UPDATE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(table)),
				 errdetail("Role \"%s\" needs the UPDATE privilege on column \"%s\" to send a"
						   " campaign.",
						   GetUserNameFromId(role, false), column),
				 errhint("Use GRANT UPDATE (%s) ON %s TO %s.",
						 quote_identifier(column), table_name(table),
						 quote_identifier(GetUserNameFromId(role, false)))));
}

void
tables_check_column_rights(const AppTables *tables, Oid role)
{
	const char *count = count_column(tables->list_users);

	check_column_right(tables->list_users, count ? count : "data", role);
	check_column_right(tables->jobs, "progress", role);
	check_column_right(tables->jobs, "error", role);
	if (has_column(tables->jobs, "data"))
		check_column_right(tables->jobs, "data", role);
}

/* Tells whether the role has this privilege on the table, or on one of its columns. */
static bool
has_right(Oid table, Oid role, AclMode mode)
{
	return pg_class_aclcheck(table, role, mode) == ACLCHECK_OK ||
		   pg_attribute_aclcheck_all(table, role, mode, ACLMASK_ANY) == ACLCHECK_OK;
}

static void
check_right(Oid table, Oid role, AclMode mode, const char *privilege)
{
	char *name = get_rel_name(table);
	char *qualified = quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
												 name);

	if (!has_right(table, role, mode))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", name),
				 errdetail("Role \"%s\" needs the %s privilege on it to send a campaign.",
						   GetUserNameFromId(role, false), privilege),
				 errhint("Use GRANT %s ON %s TO %s.",
						 privilege, qualified, quote_identifier(GetUserNameFromId(role, false)))));
}

static void
check_schema_right(const char *schema, Oid role)
{
	if (!compat_can_use_schema(get_namespace_oid(schema, false), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", schema),
				 errdetail("Role \"%s\" needs the USAGE privilege on it to send a campaign.",
						   GetUserNameFromId(role, false)),
				 errhint("Use GRANT USAGE ON SCHEMA %s TO %s.",
						 quote_identifier(schema),
						 quote_identifier(GetUserNameFromId(role, false)))));
}

void
tables_check_rights(const AppTables *tables, Oid role, bool creates_job)
{
	check_schema_right(tables->schema, role);
	check_right(tables->groups, role, ACL_SELECT, "SELECT");
	check_right(tables->lists, role, ACL_SELECT, "SELECT");
	check_right(tables->campaigns, role, ACL_SELECT, "SELECT");
	check_right(tables->list_users, role, ACL_SELECT, "SELECT");
	check_right(tables->list_users, role, ACL_UPDATE, "UPDATE");
	check_right(tables->jobs, role, ACL_SELECT, "SELECT");
	check_right(tables->jobs, role, ACL_UPDATE, "UPDATE");
	tables_check_columns(tables);
	tables_check_column_rights(tables, role);
	if (creates_job)
		check_right(tables->jobs, role, ACL_INSERT, "INSERT");
}
