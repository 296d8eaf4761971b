/*-------------------------------------------------------------------------
 *
 * new_rows.c
 *	  Rows that calls insert into the application's tables: lists, their users,
 *	  campaigns.
 *
 * The statements have the values as parameters, so that they say nothing about
 * persons.  An INSERT may be whatever a trigger or a rule makes of it, so its
 * result is compared with the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "database/columns.h"
#include "database/new_rows.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

void
new_row_begin(NewRow *row, Oid table)
{
	memset(row, 0, sizeof(*row));
	row->table = table;
	initStringInfo(&row->columns);
	initStringInfo(&row->values);
	initStringInfo(&row->data);
}

int
new_row_param(NewRow *row, Oid type, Datum value)
{
	Assert(row->num_params < MAX_NEW_VALUES);
	row->types[row->num_params] = type;
	row->params[row->num_params] = value;
	return ++row->num_params;
}

bool
new_row_has(const NewRow *row, const char *column)
{
	ListCell *cell;

	foreach (cell, row->set)
	{
		if (strcmp(lfirst(cell), column) == 0)
			return true;
	}
	return false;
}

static void
set_column(NewRow *row, const char *column, const char *value)
{
	const char *separator = row->set == NIL ? "" : ", ";

	appendStringInfo(&row->columns, "%s%s", separator, quote_identifier(column));
	appendStringInfo(&row->values, "%s%s", separator, value);
	row->set = lappend(row->set, pstrdup(column));
}

static void
add_to_data(NewRow *row, const char *object)
{
	appendStringInfo(&row->data, "%s%s", row->data.len == 0 ? "" : " OPERATOR(pg_catalog.||) ",
					 object);
}

void
new_row_set(NewRow *row, const char *key, const char *expression)
{
	const char *column = column_for(row->table, key);

	if (column)
		set_column(row, column, expression);
	else if (has_column(row->table, "data"))
		add_to_data(row, psprintf("pg_catalog.jsonb_build_object(%s::pg_catalog.text, %s)",
								  quote_literal_cstr(key), expression));
	else
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has no place for \"%s\"", table_title(row->table), key),
				 errdetail("It has neither a column of that name nor a column \"data\"."),
				 errhint("Add one of them, or leave out the value.")));
}

void
new_row_set_text(NewRow *row, const char *key, const char *value)
{
	if (value)
		new_row_set(row, key,
					psprintf("$%d", new_row_param(row, TEXTOID, CStringGetTextDatum(value))));
}

void
new_row_set_int64(NewRow *row, const char *key, int64 value)
{
	new_row_set(row, key, psprintf("$%d", new_row_param(row, INT8OID, Int64GetDatum(value))));
}

/* Not as people write it, such as "integer". */
static char *
type_name(Oid type)
{
	HeapTuple	 tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;
	char		*name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tuple);
	name = quote_qualified_identifier(get_namespace_name(form->typnamespace),
									  NameStr(form->typname));
	ReleaseSysCache(tuple);
	return name;
}

/*
 * The cast leaves out the column's length, so that a value that is too long is an
 * error, and not cut.
 */
void
new_row_set_from_json(NewRow *row, const char *column, const char *json, const char *key)
{
	Oid	  type = column_type(row->table, column);
	bool  is_json = type == JSONOID || type == JSONBOID;
	char *value = psprintf("(%s OPERATOR(pg_catalog.->%s) %s::pg_catalog.text)", json,
						   is_json ? "" : ">", quote_literal_cstr(key));

	set_column(row, column, psprintf("%s::%s", value, type_name(type)));
}

void
further_columns_read(FurtherColumns *further)
{
	Oid		type = JSONBOID;
	SpiCall call = {1, &type, &further->columns, NULL, .read_only = true};
	uint64	count;

	if (!further->given)
		return;
	(void) spi_query("SELECT pg_catalog.jsonb_typeof($1) OPERATOR(pg_catalog.=) 'object'", &call);
	if (!spi_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"columns\" is not a JSON object"),
				 errhint("Write it as {\"user_id\": 1}, with the names of columns.")));
	count = spi_query("SELECT k FROM pg_catalog.jsonb_object_keys($1) k", &call);
	for (uint64 i = 0; i < count; i++)
		further->names = lappend(further->names, spi_string(i, 1));
}

static void
fail_no_column(const char *name, Oid table)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 OidIsValid(table)
				? errmsg("column \"%s\" of \"%s\" does not exist", name, table_title(table))
				: errmsg("none of the tables has a column \"%s\"", name),
			 errhint("Remove it from \"columns\". Values that have no column of their own belong"
					 " into its \"data\", if there is such a column.")));
}

static void
fail_is_set(const char *name, Oid table)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"columns\" must not contain \"%s\"", name),
			 errdetail("The function sets this column of \"%s\" itself.", table_title(table)),
			 errhint("Remove it from \"columns\".")));
}

/* Values of the caller's own object come first: those that the function sets take precedence. */
static void
set_data_first(NewRow *row, const char *columns)
{
	char *rest = pstrdup(row->data.data);
	char *given = psprintf("(%s OPERATOR(pg_catalog.->) 'data'::pg_catalog.text)", columns);

	resetStringInfo(&row->data);
	add_to_data(row,
				psprintf("CASE WHEN pg_catalog.jsonb_typeof(%s) OPERATOR(pg_catalog.=) 'object'"
						 " THEN %s ELSE '{}'::pg_catalog.jsonb END",
						 given, given));
	if (rest[0])
		add_to_data(row, rest);
}

void
new_row_set_further(NewRow *row, FurtherColumns *further)
{
	ListCell *cell;
	char	 *columns;

	if (further->names == NIL)
		return;
	columns = psprintf("$%d", new_row_param(row, JSONBOID, further->columns));
	foreach (cell, further->names)
	{
		char	   *name = lfirst(cell);
		bool		is_data = strcmp(name, "data") == 0 && has_column(row->table, "data");
		const char *column = is_data ? name : column_for(row->table, name);

		if (column == NULL && further->for_some)
			continue;
		if (column == NULL)
			fail_no_column(name, row->table);
		if (strcmp(column, "id") == 0 || new_row_has(row, column))
			fail_is_set(name, row->table);
		further->used = lappend(further->used, name);
		if (is_data)
			set_data_first(row, columns);
		else
			new_row_set_from_json(row, column, columns, name);
	}
}

void
further_columns_check_used(const FurtherColumns *further)
{
	ListCell *cell;

	foreach (cell, further->names)
	{
		if (further->for_some && !list_member_ptr(further->used, lfirst(cell)))
			fail_no_column(lfirst(cell), InvalidOid);
	}
}

/* Sequelize sets these itself, so that they have no default. */
static void
set_times(NewRow *row, bool created)
{
	ListCell *cell;

	foreach (cell, time_columns(row->table, created, CMD_INSERT))
	{
		if (!new_row_has(row, lfirst(cell)) && may_use_column(row->table, lfirst(cell), ACL_INSERT))
			set_column(row, lfirst(cell), "pg_catalog.now()");
	}
}

static void
set_data(NewRow *row)
{
	if (!has_column(row->table, "data") || new_row_has(row, "data"))
		return;
	if (row->data.len == 0 && !may_use_column(row->table, "data", ACL_INSERT))
		return;
	set_column(row, "data",
			   psprintf("(%s)::pg_catalog.%s",
						row->data.len == 0 ? "'{}'::pg_catalog.jsonb" : row->data.data,
						column_type(row->table, "data") == JSONOID ? "json" : "jsonb"));
}

static void
fail_no_value(Oid table, const char *column)
{
	bool is_user = strcmp(column, "user_id") == 0 || strcmp(column, "userId") == 0;

	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("column \"%s\" of \"%s\" needs a value", column, table_title(table)),
			 errdetail("It is NOT NULL and has no default."),
			 is_user
				? errhint("Pass the application's user as user_id => ...")
				: errhint("Pass a value for it in columns => '{\"%s\": ...}'.", column)));
}

/* A trigger may set what nobody else does. */
static void
check_not_null(const NewRow *row)
{
	Relation rel = relation_open(row->table, AccessShareLock);
	bool	 has_trigger = rel->trigdesc && (rel->trigdesc->trig_insert_before_row ||
										 rel->trigdesc->trig_insert_instead_row);

	for (int i = 0; !has_trigger && i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), i);

		if (column->attnotnull && !column->atthasdef && !column->attisdropped &&
			column->attidentity == '\0' && !new_row_has(row, NameStr(column->attname)))
			fail_no_value(row->table, NameStr(column->attname));
	}
	relation_close(rel, NoLock);
}

/* Returns the statement up to FROM. */
static char *
insert_statement(NewRow *row)
{
	set_data(row);
	set_times(row, true);
	set_times(row, false);
	check_not_null(row);
	return psprintf("INSERT INTO %s AS r (%s) SELECT %s", table_name(row->table), row->columns.data,
					row->values.data);
}

static void
fail_suppressed(Oid table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not insert a row into \"%s\"", table_title(table)),
			 errdetail("The INSERT was suppressed by a trigger or rule."),
			 errhint("Change the trigger or rule, or insert the row yourself.")));
}

/* Throws unless there is exactly one row with this id, and its reference is the one wanted. */
static void
check_inserted(const AppTables *tables, Oid table, int64 id, const char *reference, int64 target)
{
	Oid		types[] = {INT8OID, INT8OID};
	Datum	values[] = {Int64GetDatum(id), Int64GetDatum(target)};
	SpiCall call = {2, types, values, NULL, .limit = 2};
	char   *sql = psprintf("SELECT r.%s OPERATOR(pg_catalog.=) $2 FROM %s r"
							 " WHERE r.id OPERATOR(pg_catalog.=) $1",
						   quote_identifier(reference), table_name(table));

	if (tables_query(tables, sql, &call) != 1 || !spi_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("the row that was inserted into \"%s\" cannot be found", table_title(table)),
				 errdetail("The INSERT returned id %lld, but role \"%s\" sees no row, or more than"
						   " one, that has this id and whose \"%s\" is %lld.",
						   (long long) id, GetUserNameFromId(GetUserId(), false), reference,
						   (long long) target),
				 errhint("Check the triggers, rules and policies of the table.")));
}

int64
new_row_insert(const AppTables *tables, NewRow *row, const char *reference, int64 target)
{
	char   *sql = psprintf("%s RETURNING r.id::pg_catalog.int8", insert_statement(row));
	SpiCall call = {row->num_params, row->types, row->params, NULL};
	int64	id;

	if (tables_query(tables, sql, &call) != 1 || SPI_tuptable == NULL || spi_isnull(0, 1))
		fail_suppressed(row->table);
	id = spi_int64(0, 1);
	check_inserted(tables, row->table, id, reference, target);
	return id;
}

uint64
new_rows_insert(const AppTables *tables, NewRow *row, const char *from)
{
	char   *sql = psprintf("%s %s", insert_statement(row), from);
	SpiCall call = {row->num_params, row->types, row->params, NULL};

	return tables_query(tables, sql, &call);
}

/* Runs a statement on the row with this id; returns false if there is none. */
static bool
find(const AppTables *tables, const char *sql, int64 id)
{
	Oid		type = INT8OID;
	Datum	value = Int64GetDatum(id);
	SpiCall call = {1, &type, &value, NULL, .limit = 1};

	return tables_query(tables, sql, &call) > 0;
}

void
check_group(const AppTables *tables, int64 group_id)
{
	if (!find(tables,
			  psprintf("SELECT FROM %s g WHERE g.id OPERATOR(pg_catalog.=) $1",
					   table_name(tables->groups)),
			  group_id))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("group %lld does not exist", (long long) group_id),
				 errhint("Check that it is in \"%s.groups\" and that your role may see it.",
						 tables->schema)));
}

void
check_list(const AppTables *tables, int64 list_id)
{
	if (!find(tables,
			  psprintf("SELECT %s FROM %s l WHERE l.id OPERATOR(pg_catalog.=) $1",
					   deleted_expression(tables->lists, "l"), table_name(tables->lists)),
			  list_id))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("list %lld does not exist", (long long) list_id),
				 errhint("Check that it is in \"%s.ac_lists\" and that your role may see it.",
						 tables->schema)));
	if (spi_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("list %lld is deleted", (long long) list_id),
				 errdetail("The application has marked it as deleted."),
				 errhint("Use another list, or remove that mark.")));
}

/* Not a lock of the row, which would require the right to update it. */
void
lock_list(const AppTables *tables, int64 list_id)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, tables->lists, (uint32) list_id, 0);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}
