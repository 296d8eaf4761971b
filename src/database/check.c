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

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/check.h"
#include "database/columns.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

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

/* Other tables have keys that are no numbers, and often cannot change them. */
static void
check_key(Oid table, const char *column)
{
	Oid type = column_type(table, column);

	if (OidIsValid(type) && !is_among(type, integer_types))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of \"%s\" is of type %s",
						column, table_title(table), format_type_be(type)),
				 errdetail("Rows are identified by integers, in links and in what is recorded."),
				 errhint("Change it to one of these types: %s. If it has to stay as it is, add a"
						 " column of type bigint GENERATED ALWAYS AS IDENTITY beside it, with a"
						 " unique index, and have a view show that one as \"%s\".",
						 type_names(integer_types), column)));
	check_column(table, column, integer_types);
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

static void
check_updatable(Oid table, const char *column)
{
	if (!can_write_column(table, column, CMD_UPDATE))
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

	check_key(groups, "id");
	if (has_private)
		check_type(groups, "private_access_configuration", json_types);
	if (!has_private || has_column(groups, "configuration"))
		check_column(groups, "configuration", json_types);
}

static void
check_list_users(Oid list_users)
{
	const char *count = count_column(list_users);

	check_key(list_users, "id");
	check_key(list_users, "ac_list_id");
	check_value(list_users, "sms");
	check_value(list_users, "sentCount");
	if (count)
		check_type(list_users, count, number_types);
	check_updatable(list_users, count ? count : "data");
}

static void
check_jobs(Oid jobs)
{
	check_key(jobs, "id");
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
	check_key(tables->lists, "id");
	check_key(tables->lists, "group_id");
	check_key(tables->campaigns, "id");
	check_key(tables->campaigns, "ac_list_id");
	check_value(tables->campaigns, "message");
	check_list_users(tables->list_users);
	check_jobs(tables->jobs);
}

static void
check_column_right(Oid table, const char *column, Oid role, AclMode mode, const char *privilege)
{
	if (pg_class_aclcheck(table, role, mode) != ACLCHECK_OK &&
		pg_attribute_aclcheck(table, get_attnum(table, column), role, mode) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(table)),
				 errdetail("Role \"%s\" needs the %s privilege on column \"%s\" to send a"
						   " campaign.",
						   GetUserNameFromId(role, false), privilege, column),
				 errhint("Use GRANT %s (%s) ON %s TO %s.",
						 privilege, quote_identifier(column), table_name(table),
						 quote_identifier(GetUserNameFromId(role, false)))));
}

/* Checks that the role may read the column, or data if there is none of that name. */
static void
check_readable(Oid table, const char *key, Oid role)
{
	const char *column = has_column(table, key) ? key : column_for(table, key);

	if (column == NULL && has_column(table, "data"))
		column = "data";
	if (column)
		check_column_right(table, column, role, ACL_SELECT, "SELECT");
}

/* The columns that the statements of every run read; those of texts are not known yet. */
static void
check_columns_are_readable(const AppTables *tables, Oid role)
{
	static const char *const of_campaigns[] = {"id",		"ac_list_id",	   "message",
											   "baseUrl",	"contentSid",	   "mediaUrl",
											   "sendUntil", "contentVariables"};
	static const char *const of_list_users[] = {"id", "ac_list_id", "sms", "sentCount", "timeZone"};

	check_readable(tables->groups, "id", role);
	if (!has_column(tables->groups, "private_access_configuration"))
		check_readable(tables->groups, "configuration", role);
	check_readable(tables->lists, "id", role);
	check_readable(tables->lists, "group_id", role);
	for (int i = 0; i < lengthof(of_campaigns); i++)
		check_readable(tables->campaigns, of_campaigns[i], role);
	for (int i = 0; i < lengthof(of_list_users); i++)
		check_readable(tables->list_users, of_list_users[i], role);
	check_readable(tables->jobs, "id", role);
	check_readable(tables->jobs, "progress", role);
	check_readable(tables->jobs, "data", role);
}

void
tables_check_column_rights(const AppTables *tables, Oid role)
{
	const char *count = count_column(tables->list_users);

	check_column_right(tables->list_users, count ? count : "data", role, ACL_UPDATE, "UPDATE");
	check_column_right(tables->jobs, "progress", role, ACL_UPDATE, "UPDATE");
	check_column_right(tables->jobs, "error", role, ACL_UPDATE, "UPDATE");
	if (has_column(tables->jobs, "data"))
		check_column_right(tables->jobs, "data", role, ACL_UPDATE, "UPDATE");
	check_columns_are_readable(tables, role);
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
