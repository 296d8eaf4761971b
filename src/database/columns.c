/*-------------------------------------------------------------------------
 *
 * columns.c
 *	  Columns of the application's tables, and the parts of statements that are
 *	  made from them.
 *
 * Others may create operators in a schema that is on a role's search path, and
 * PostgreSQL prefers one that fits the types exactly.  So all operators are
 * qualified, and constructs that use one implicitly (IN, BETWEEN, NULLIF, IS
 * DISTINCT FROM, CASE with an operand, USING) are avoided.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "database/columns.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define NO_TEXT "NULL::pg_catalog.text"

bool
has_column(Oid table, const char *column)
{
	return get_attnum(table, column) > 0; /* no system column */
}

Oid
column_type(Oid table, const char *column)
{
	return has_column(table, column) ? getBaseType(get_atttype(table, get_attnum(table, column)))
									 : InvalidOid;
}

/* Returns "base_url" for "baseUrl"; palloc'd. */
static char *
snake_case(const char *camel)
{
	StringInfoData snake;

	initStringInfo(&snake);
	for (; *camel; camel++)
	{
		if (*camel >= 'A' && *camel <= 'Z')
			appendStringInfo(&snake, "_%c", *camel - 'A' + 'a');
		else
			appendStringInfoChar(&snake, *camel);
	}
	return snake.data;
}

const char *
column_for(Oid table, const char *key)
{
	char *snake = snake_case(key);

	if (strcmp(key, "data") == 0)
		return NULL;
	return has_column(table, key) ? key : has_column(table, snake) ? snake : NULL;
}

const char *
count_column(Oid table)
{
	return column_for(table, "sentCount");
}

static void
get_names(Oid table, char **schema, char **name)
{
	*name = get_rel_name(table);
	*schema = *name ? get_namespace_name(get_rel_namespace(table)) : NULL;
	if (*schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("a table of the application has been dropped"),
				 errhint("Create it again. sendcampaign.create_tables() creates missing tables.")));
}

char *
table_name(Oid table)
{
	char *schema;
	char *name;

	get_names(table, &schema, &name);
	return quote_qualified_identifier(schema, name);
}

char *
table_title(Oid table)
{
	char *schema;
	char *name;

	get_names(table, &schema, &name);
	return psprintf("%s.%s", schema, name);
}

char *
json_value(const char *json, const char *key)
{
	return psprintf("%s OPERATOR(pg_catalog.->>) %s::pg_catalog.text", json,
					quote_literal_cstr(key));
}

char *
value_expression(Oid table, const char *alias, const char *key)
{
	const char *column = column_for(table, key);

	if (column)
		return psprintf("%s.%s::pg_catalog.text", alias, quote_identifier(column));
	if (has_column(table, "data"))
		return json_value(psprintf("%s.data", alias), key);
	return pstrdup(NO_TEXT);
}

char *
json_expression(Oid table, const char *alias, const char *key)
{
	const char *column = column_for(table, key);
	Oid			type = column ? column_type(table, column) : InvalidOid;
	const char *cast = type == JSONOID || type == JSONBOID ? "jsonb"
					   : type_is_array(type)			   ? "text[]"
														   : "text";

	if (column)
		return psprintf("pg_catalog.to_jsonb(%s.%s::pg_catalog.%s)", alias,
						quote_identifier(column), cast);
	if (has_column(table, "data"))
		return psprintf("pg_catalog.to_jsonb(%s.data OPERATOR(pg_catalog.->) %s::pg_catalog.text)",
						alias, quote_literal_cstr(key));
	return pstrdup("NULL::pg_catalog.jsonb");
}

/* A JSON value as people read it; null for an array or an object, which is no text. */
static char *
json_text(const char *value)
{
	return psprintf("CASE WHEN pg_catalog.jsonb_typeof((%s)::pg_catalog.jsonb)"
					" OPERATOR(pg_catalog.<>) ALL ('{array,object}'::pg_catalog.text[])"
					" THEN (%s)::pg_catalog.jsonb"
					" OPERATOR(pg_catalog.#>>) '{}'::pg_catalog.text[] END",
					value, value);
}

char *
text_expression(Oid table, const char *alias, const char *key)
{
	const char *column = column_for(table, key);
	Oid			type = column ? column_type(table, column) : InvalidOid;

	if (column == NULL)
		return has_column(table, "data")
				   ? json_text(psprintf("%s.data::pg_catalog.jsonb"
										" OPERATOR(pg_catalog.->) %s::pg_catalog.text",
										alias, quote_literal_cstr(key)))
				   : pstrdup(NO_TEXT);
	if (type == JSONOID || type == JSONBOID)
		return json_text(psprintf("%s.%s", alias, quote_identifier(column)));
	if (type_is_array(type) || type_is_rowtype(type))
		return pstrdup(NO_TEXT);
	return value_expression(table, alias, key);
}

/* As in Sequelize's models; "deletedAt" comes from its option "paranoid". */
List *
deleted_columns(Oid table)
{
	static const char *const times[] = {"deleted_at", "deletedAt"};
	List					*columns = NIL;

	if (column_type(table, "deleted") == BOOLOID)
		columns = lappend(columns, "deleted");
	for (int i = 0; i < lengthof(times); i++)
	{
		if (has_column(table, times[i]))
			columns = lappend(columns, unconstify(char *, times[i]));
	}
	return columns;
}

char *
deleted_expression(Oid table, const char *alias)
{
	StringInfoData buf;
	ListCell	  *cell;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "(false");
	foreach (cell, deleted_columns(table))
	{
		const char *column = lfirst(cell);

		if (strcmp(column, "deleted") == 0)
			appendStringInfo(&buf, " OR coalesce(%s.deleted, false)", alias);
		else
			appendStringInfo(&buf, " OR %s.%s IS NOT NULL", alias, quote_identifier(column));
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * The private configuration, which takes precedence, without keys whose value
 * is null or blank, since these configure nothing.
 */
#define PRIVATE_CONFIGURATION                                                                      \
	"CASE WHEN pg_catalog.jsonb_typeof(%1$s.private_access_configuration::pg_catalog.jsonb)"       \
	"  OPERATOR(pg_catalog.=) 'object' THEN (SELECT coalesce(pg_catalog.jsonb_object_agg("         \
	"   e.key, e.value), '{}'::pg_catalog.jsonb)"                                                  \
	"  FROM pg_catalog.jsonb_each(%1$s.private_access_configuration::pg_catalog.jsonb) e"          \
	"  WHERE pg_catalog.btrim(coalesce(e.value OPERATOR(pg_catalog.#>>) '{}'::pg_catalog.text[],"  \
	"   ''), E' \\t\\r\\n') OPERATOR(pg_catalog.<>) '')"                                           \
	" ELSE '{}'::pg_catalog.jsonb END"

/*
 * A secret from one configuration and an account from the other would not fit
 * together: if the private one has a secret, those of the other are ignored.
 */
#define BOTH_CONFIGURATIONS                                                                        \
	"(SELECT CASE WHEN p.c OPERATOR(pg_catalog.?|) '{twilioAuthToken,twilioApiKeySecret}'"         \
	"::pg_catalog.text[] THEN o.c OPERATOR(pg_catalog.-)"                                          \
	" '{twilioAuthToken,twilioApiKeySid,twilioApiKeySecret}'::pg_catalog.text[]"                   \
	" ELSE o.c END OPERATOR(pg_catalog.||) p.c"                                                    \
	" FROM (SELECT " PRIVATE_CONFIGURATION ") p(c),"                                               \
	" (SELECT CASE WHEN pg_catalog.jsonb_typeof(%1$s.configuration::pg_catalog.jsonb)"             \
	"  OPERATOR(pg_catalog.=) 'object' THEN %1$s.configuration::pg_catalog.jsonb"                  \
	"  ELSE '{}'::pg_catalog.jsonb END) o(c))"

/* A role that may not read the private configuration uses the other one. */
char *
configuration_expression(Oid groups, const char *alias)
{
	bool has_private = has_column(groups, "private_access_configuration") &&
					   may_use_column(groups, "private_access_configuration", ACL_SELECT);

	if (!has_private)
		return psprintf("%s.configuration::pg_catalog.jsonb", alias);
	if (!has_column(groups, "configuration"))
		return psprintf(PRIVATE_CONFIGURATION, alias);
	return psprintf(BOTH_CONFIGURATIONS, alias);
}

/* How a row can be found by its id alone. */
typedef enum IdIndex
{
	NO_INDEX,
	INDEXED,
	UNIQUE /* at most one row has the id */
} IdIndex;

static IdIndex
index_with_id(Oid index, AttrNumber id)
{
	HeapTuple	  tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	IdIndex		  result = NO_INDEX;

	if (!HeapTupleIsValid(tuple))
		return NO_INDEX;
	form = (Form_pg_index) GETSTRUCT(tuple);
	if (form->indisvalid && form->indkey.values[0] == id &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL))
		result = form->indisunique && form->indimmediate && form->indnkeyatts == 1 ? UNIQUE
																				   : INDEXED;
	ReleaseSysCache(tuple);
	return result;
}

/* Returns the best index on the id.  Tables that inherit have their own indexes. */
static IdIndex
index_on_id(Oid table)
{
	Relation   rel = relation_open(table, AccessShareLock);
	AttrNumber id = get_attnum(table, "id");
	IdIndex	   best = NO_INDEX;
	ListCell  *cell;

	foreach (cell, RelationGetIndexList(rel))
		best = Max(best, index_with_id(lfirst_oid(cell), id));
	if (best == UNIQUE && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE && has_subclass(table))
		best = INDEXED;
	relation_close(rel, NoLock);
	return best;
}

static bool
is_table(Oid relation)
{
	char relkind = get_rel_relkind(relation);

	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE;
}

/*
 * If the id has an index, the index on ac_list_id must not be used, since a
 * list may have a million rows: COALESCE keeps the planner from using it.  If
 * it has none, for example because partitions have the list in their key, the
 * planner may choose.
 */
char *
in_list_condition(Oid list_users, const char *alias, const char *list)
{
	bool free = is_table(list_users) && index_on_id(list_users) == NO_INDEX;

	return psprintf(free ? "%s.ac_list_id OPERATOR(pg_catalog.=) %s"
						 : "coalesce(%s.ac_list_id OPERATOR(pg_catalog.=) %s, false)",
					alias, list);
}

bool
id_is_unique(Oid table)
{
	return is_table(table) && index_on_id(table) == UNIQUE;
}

char *
same_user_condition(Oid list_users, const char *alias, const char *list)
{
	if (id_is_unique(list_users))
		return pstrdup("true");
	return in_list_condition(list_users, alias, list);
}

/*
 * A count as a key of data.  Other keys are kept, as are concurrent changes to
 * them, since the row's newest version is updated.  A count that is missing or
 * not a number is treated as 0.  Only with immutable functions, so that Citus
 * can pass the statement on to the node that has the row: its planner rejects
 * others in CASE, or crashes on them.
 */
#define COUNT_IN_DATA                                                                              \
	"data = (CASE WHEN u.data IS NULL OR pg_catalog.jsonb_typeof(u.data::pg_catalog.jsonb)"        \
	"  OPERATOR(pg_catalog.=) 'null' THEN '{\"%1$s\": 1}'::pg_catalog.jsonb"                       \
	" WHEN pg_catalog.jsonb_typeof(u.data::pg_catalog.jsonb) OPERATOR(pg_catalog.=) 'object' THEN" \
	"  pg_catalog.jsonb_set(u.data::pg_catalog.jsonb, '{%1$s}'::pg_catalog.text[],"                \
	"  (CASE WHEN pg_catalog.jsonb_typeof(u.data::pg_catalog.jsonb"                                \
	"    OPERATOR(pg_catalog.->) '%1$s'::pg_catalog.text) OPERATOR(pg_catalog.=) 'number'"         \
	"   OR u.data OPERATOR(pg_catalog.->>) '%1$s'::pg_catalog.text"                                \
	"    OPERATOR(pg_catalog.~) '^-?[0-9]{1,99}$'"                                                 \
	"  THEN (u.data OPERATOR(pg_catalog.->>) '%1$s'::pg_catalog.text)::pg_catalog.numeric"         \
	"  ELSE 0 END OPERATOR(pg_catalog.+) 1)::pg_catalog.text::pg_catalog.jsonb)"                   \
	" ELSE u.data::pg_catalog.jsonb END)%2$s"

char *
count_clause(Oid list_users, const char *count)
{
	const char *column = column_for(list_users, count);

	if (column)
		return psprintf("%1$s = coalesce(u.%1$s, 0) OPERATOR(pg_catalog.+) 1",
						quote_identifier(column));
	return psprintf(COUNT_IN_DATA, count,
					column_type(list_users, "data") == JSONOID ? "::pg_catalog.json" : "");
}

/*
 * Counts are merged into the job's data, which keeps what the application has
 * there.  Data that cannot be read are not changed.
 */
char *
merge_clause(Oid table, const char *column, const char *less, const char *more)
{
	char *merged = psprintf("(CASE WHEN pg_catalog.jsonb_typeof(j.%1$s::pg_catalog.jsonb)"
							" OPERATOR(pg_catalog.=) 'object' THEN j.%1$s::pg_catalog.jsonb%2$s"
							" ELSE '{}'::pg_catalog.jsonb END OPERATOR(pg_catalog.||) %3$s)",
							column, less, more);

	if (column_type(table, column) != JSONOID)
		return psprintf("%s = %s", column, merged);
	return psprintf("%1$s = CASE WHEN %2$s THEN %3$s::pg_catalog.json ELSE j.%1$s END", column,
					readable_json(psprintf("j.%s", column)), merged);
}

char *
data_clause(Oid jobs, const char *counts)
{
	if (!has_column(jobs, "data"))
		return pstrdup("");
	return psprintf(
		", %s",
		merge_clause(jobs, "data", " OPERATOR(pg_catalog.-) 'nextAt'::pg_catalog.text", counts));
}

char *
data_lack(Oid jobs, const char *alias, const char *counts)
{
	if (column_type(jobs, "data") == JSONOID)
		return pstrdup("true");
	return psprintf("(NOT COALESCE(%s.data::pg_catalog.jsonb OPERATOR(pg_catalog.@>) %s, false)"
					" OR COALESCE(%s.data::pg_catalog.jsonb OPERATOR(pg_catalog.?)"
					"  'nextAt'::pg_catalog.text, false))",
					alias, counts, alias);
}

static bool
is_generated(Oid table, const char *column)
{
	HeapTuple tuple = SearchSysCacheAttName(table, column);
	bool	  generated;

	if (!HeapTupleIsValid(tuple))
		return false;
	generated = ((Form_pg_attribute) GETSTRUCT(tuple))->attgenerated != '\0';
	ReleaseSysCache(tuple);
	return generated;
}

bool
can_write_column(Oid table, const char *column, CmdType command)
{
	AttrNumber number = get_attnum(table, column);

	return number > 0 && !is_generated(table, column) &&
		   relation_is_updatable(table, NIL, true,
								 bms_make_singleton(number - FirstLowInvalidHeapAttributeNumber)) &
			   (1 << command);
}

/* In snake_case, or as Sequelize names them by default. */
List *
time_columns(Oid table, bool created, CmdType command)
{
	static const char *const names[][2] = {{"updated_at", "updatedAt"},
										   {"created_at", "createdAt"}};
	List					*columns = NIL;

	for (int i = 0; i < lengthof(names[0]); i++)
	{
		const char *column = names[created][i];

		if (can_write_column(table, column, command))
			columns = lappend(columns, unconstify(char *, column));
	}
	return columns;
}

bool
may_use_column(Oid table, const char *column, AclMode mode)
{
	return pg_class_aclcheck(table, GetUserId(), mode) == ACLCHECK_OK ||
		   pg_attribute_aclcheck(table, get_attnum(table, column), GetUserId(), mode) ==
			   ACLCHECK_OK;
}

char *
touch_clause(Oid table)
{
	StringInfoData buf;
	ListCell	  *cell;

	initStringInfo(&buf);
	foreach (cell, time_columns(table, false, CMD_UPDATE))
	{
		if (may_use_column(table, lfirst(cell), ACL_UPDATE))
			appendStringInfo(&buf, ", %s = pg_catalog.now()", quote_identifier(lfirst(cell)));
	}
	return buf.data;
}

/*
 * No character has more than four bytes.  A value that is too long is not cut,
 * since that fails if it contains a byte that belongs to no character.
 */
char *
value_or_too_long(const char *value, int most)
{
	return psprintf("CASE WHEN pg_catalog.octet_length(%s) OPERATOR(pg_catalog.>) %d"
					" THEN pg_catalog.rpad('(longer than %d bytes)', %d, ' ') ELSE %s END",
					value, 4 * most, 4 * most, most + 1, value);
}

#define ESCAPES "pg_catalog.strpos(%1$s::pg_catalog.text, E'\\\\u') OPERATOR(pg_catalog.>) 0"

/* No \u0000, and each half of a surrogate pair followed or preceded by the other. */
#define GOOD_ESCAPES                                                                               \
	"%1$s::pg_catalog.text OPERATOR(pg_catalog.~) E'^(?:[^\\\\\\\\]|\\\\\\\\[^u]"                  \
	"|\\\\\\\\u(?!0000|[dD][89a-fA-F])"                                                            \
	"|\\\\\\\\u[dD][89abAB][0-9a-fA-F]{2}\\\\\\\\u[dD][c-fC-F][0-9a-fA-F]{2})*$'"

char *
readable_json(const char *json)
{
	return psprintf("CASE WHEN " ESCAPES " THEN " GOOD_ESCAPES " ELSE true END", json);
}
