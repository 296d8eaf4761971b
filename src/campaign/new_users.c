/*-------------------------------------------------------------------------
 *
 * new_users.c
 *	  People who are to be added to a list: which of them, and why not the others.
 *
 * A hundred thousand of them take one statement that reads the list, and one
 * that inserts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/new_users.h"
#include "campaign/phone.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "database/columns.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* Rows fetched at once. */
#define FETCH_SIZE 1000

/* More different keys than columns that a table can have are no names of columns. */
#define MAX_OBJECT_KEYS 1600

NewUsers *
users_of_phones(ArrayType *phones)
{
	NewUsers *users = palloc0(sizeof(NewUsers));
	Datum	 *values;
	bool	 *nulls;

	deconstruct_array(phones, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &users->count);
	users->users = palloc_extended(Max(users->count, 1) * sizeof(NewUser),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < users->count; i++)
	{
		if (!nulls[i])
			users->users[i].given = TextDatumGetCString(values[i]);
	}
	return users;
}

static void
read_keys(NewUsers *users, const SpiCall *call)
{
	uint64 count = spi_query("SELECT DISTINCT k.k FROM pg_catalog.jsonb_array_elements($1) e(u),"
							 " pg_catalog.jsonb_object_keys(CASE"
							 "  WHEN pg_catalog.jsonb_typeof(e.u) OPERATOR(pg_catalog.=) 'object'"
							 "  THEN e.u ELSE '{}'::pg_catalog.jsonb END) k(k)",
							 call);

	if (count > MAX_OBJECT_KEYS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the users have more than %d different keys", MAX_OBJECT_KEYS),
				 errhint("Give all of them the same keys.")));
	for (uint64 i = 0; i < count; i++)
		users->keys = lappend(users->keys, spi_string(i, 1));
	users->have_keys = true;
}

NewUsers *
users_of_objects(Datum objects)
{
	NewUsers *users = palloc0(sizeof(NewUsers));
	Oid		  type = JSONBOID;
	SpiCall	  call = {1, &type, &objects, NULL, .read_only = true};

	(void) spi_query("SELECT pg_catalog.jsonb_typeof($1) OPERATOR(pg_catalog.=) 'array'", &call);
	if (!spi_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"users\" is not a JSON array"),
				 errhint("Write it as [{\"sms\": \"+15550000001\", \"name\": \"Ann\"}], with an object"
						 " for each user.")));
	users->objects = objects;
	read_keys(users, &call);
	users->count = (int) spi_query(
		"SELECT pg_catalog.jsonb_typeof(e.u) OPERATOR(pg_catalog.=) 'object',"
		" e.u OPERATOR(pg_catalog.->>) 'sms'::pg_catalog.text"
		" FROM pg_catalog.jsonb_array_elements($1) WITH ORDINALITY e(u, n)"
		" ORDER BY e.n",
		&call);
	users->users = palloc_extended(Max(users->count, 1) * sizeof(NewUser),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < users->count; i++)
	{
		users->users[i].given = spi_string(i, 2);
		if (!spi_bool(i, 1))
			users->users[i].refused = "not a JSON object";
	}
	return users;
}

/* The user who has a phone number. */
typedef struct PhoneUser
{
	int64 phone;
	int	  user;
} PhoneUser;

static HTAB *
open_phones(long size)
{
	HASHCTL control = {
		.keysize = sizeof(int64), .entrysize = sizeof(PhoneUser), .hcxt = CurrentMemoryContext};

	return hash_create("sendcampaign phone numbers", Max(size, 16), &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static bool
is_blank(const char *text)
{
	return text == NULL || text[strspn(text, " \t\r\n")] == '\0';
}

/* The same as when it is skipped. */
static const char *
phone_problem(const NewUser *user, const char *country)
{
	if (is_blank(user->given))
		return "no phone number";
	if (country)
		return psprintf("phone number is neither in E.164 form nor clearly one of %s", country);
	return "phone number is not in E.164 form";
}

/* Keeps of what that takes, which is a lot for a hundred thousand users, only the result. */
static char *
e164_of(const char *given, const char *country)
{
	static MemoryContext scratch = NULL;
	MemoryContext		 old;
	char				*e164;

	if (is_blank(given))
		return NULL;
	if (scratch == NULL)
		scratch = AllocSetContextCreate(TopMemoryContext, "sendcampaign phone number",
										ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(scratch);
	e164 = normalize_phone_in(given, country);
	MemoryContextSwitchTo(old);
	e164 = e164 ? pstrdup(e164) : NULL;
	MemoryContextReset(scratch);
	return e164;
}

static void
check_user(NewUsers *users, HTAB *phones, int number)
{
	NewUser	  *user = &users->users[number];
	int64	   phone;
	PhoneUser *entry;
	bool	   known;

	if (user->refused)
		return;
	user->e164 = e164_of(user->given, users->country);
	if (user->e164 == NULL)
	{
		user->refused = phone_problem(user, users->country);
		return;
	}
	phone = phone_number(user->e164);
	entry = hash_search(phones, &phone, HASH_ENTER, &known);
	if (known)
		user->refused = psprintf("duplicate: position %d has the same phone number",
								 entry->user + 1);
	else
		entry->user = number;
}

void
check_new_users(NewUsers *users, const char *country)
{
	HTAB *phones = open_phones(users->count);

	users->country = country;
	for (int i = 0; i < users->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		check_user(users, phones, i);
	}
	hash_destroy(phones);
}

static HTAB *
phones_to_add(const NewUsers *users)
{
	HTAB *phones = open_phones(users->count);

	for (int i = 0; i < users->count; i++)
	{
		int64 phone;

		if (users->users[i].refused)
			continue;
		phone = phone_number(users->users[i].e164);
		((PhoneUser *) hash_search(phones, &phone, HASH_ENTER, NULL))->user = i;
	}
	return phones;
}

static void
refuse_if_known(NewUsers *users, HTAB *phones, const char *known)
{
	char	  *e164 = normalize_phone_in(known, users->country);
	int64	   phone = e164 ? phone_number(e164) : 0;
	PhoneUser *entry = hash_search(phones, &phone, HASH_FIND, NULL);

	if (entry)
		users->users[entry->user].refused = "already in the list";
}

int64
refuse_known_users(NewUsers *users, const AppTables *tables, int64 list_id)
{
	HTAB		 *phones = phones_to_add(users);
	Portal		  portal = tables_open_list(tables, list_id);
	MemoryContext page = AllocSetContextCreate(CurrentMemoryContext, "sendcampaign list users",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(page);
	int64		  total = 0;
	uint64		  count;

	while ((count = spi_fetch(portal, FETCH_SIZE)) > 0)
	{
		for (uint64 i = 0; i < count; i++)
		{
			char *known = spi_string(i, 2);

			if (known)
				refuse_if_known(users, phones, known);
		}
		total += count;
		SPI_freetuptable(SPI_tuptable);
		MemoryContextReset(page);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(page);
	SPI_cursor_close(portal);
	hash_destroy(phones);
	return total;
}

int
count_refused(const NewUsers *users, int *first)
{
	int count = 0;

	*first = -1;
	for (int i = users->count - 1; i >= 0; i--)
	{
		if (users->users[i].refused == NULL)
			continue;
		count++;
		*first = i;
	}
	return count;
}

/* What the application counts of a user, whatever the caller has given. */
static const char *const counts[] = {"sentCount", "openCount", "completeCount"};

static bool
is_same_value(const char *key, const char *value, Oid table)
{
	const char *column = column_for(table, key);
	const char *other = column_for(table, value);

	return strcmp(key, value) == 0 || (column && other && strcmp(column, other) == 0);
}

/* Tells whether the key names what is set for all users in the same way. */
static bool
is_set_for_all(const char *key, Oid table)
{
	for (int i = 0; i < lengthof(counts); i++)
	{
		if (is_same_value(key, counts[i], table))
			return true;
	}
	return is_same_value(key, "sms", table);
}

static void
set_key(NewRow *row, const char *key, const char *column)
{
	if (strcmp(column, "id") == 0 || new_row_has(row, column))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("users must not have the key \"%s\"", key),
				 errdetail("It names column \"%s\" of \"%s\", which is the same for all of them or"
						   " set by the function.",
						   column, table_title(row->table)),
				 errhint("Give it another name.")));
	new_row_set_from_json(row, column, "p.u", key);
}

/* SQL: the user's object; one that is none is refused, and has nothing. */
#define OBJECT                                                                                     \
	"CASE WHEN pg_catalog.jsonb_typeof(p.u) OPERATOR(pg_catalog.=) 'object' THEN p.u"              \
	" ELSE '{}'::pg_catalog.jsonb END"

/* Sets the columns that keys of the objects name; the other keys belong into data. */
static void
set_keys(NewRow *row, const NewUsers *users)
{
	List	 *columns = NIL;
	char	**names;
	int		  count = 0;
	ListCell *cell;

	foreach (cell, users->keys)
	{
		char	   *key = lfirst(cell);
		const char *column = column_for(row->table, key);

		if (is_set_for_all(key, row->table))
			columns = lappend(columns, key);
		else if (column)
		{
			set_key(row, key, column);
			columns = lappend(columns, key);
		}
		else if (!has_column(row->table, "data"))
			new_row_set(row, key, "NULL"); /* says that there is no place for it */
	}
	if (!has_column(row->table, "data"))
		return;
	names = palloc(Max(list_length(columns), 1) * sizeof(char *));
	foreach (cell, columns)
		names[count++] = lfirst(cell);
	appendStringInfo(&row->data, "%s(" OBJECT ") OPERATOR(pg_catalog.-) $%d",
					 row->data.len > 0 ? " OPERATOR(pg_catalog.||) " : "",
					 new_row_param(row, TEXTARRAYOID, make_text_array(names, count)));
}

static void
set_counts(NewRow *row)
{
	for (int i = 0; i < lengthof(counts); i++)
	{
		const char *column = column_for(row->table, counts[i]);

		if (column ? may_use_column(row->table, column, ACL_INSERT) && !new_row_has(row, column)
				   : has_column(row->table, "data"))
			new_row_set(row, counts[i], "0");
	}
}

/* Returns the phone numbers as they are written (text[]), null for those who are left out. */
static Datum
phones_to_write(const NewUsers *users, bool all)
{
	Datum *phones = palloc_extended(Max(users->count, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);
	bool  *nulls = palloc_extended(Max(users->count, 1) * sizeof(bool), MCXT_ALLOC_HUGE);

	for (int i = 0; i < users->count; i++)
	{
		const NewUser *user = &users->users[i];
		const char	  *phone = user->e164 ? user->e164 : user->given ? user->given : "";

		nulls[i] = user->refused && !all;
		phones[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(phone);
	}
	return make_array(phones, nulls, users->count, TEXTOID);
}

/* Both functions return the users in their order, so no join is needed. */
uint64
insert_new_users(const NewUsers *users, const AppTables *tables, NewRow *row, bool all)
{
	int	  phones = new_row_param(row, TEXTARRAYOID, phones_to_write(users, all));
	char *from;

	if (users->have_keys)
		from = psprintf("ROWS FROM (pg_catalog.unnest($%d),"
						" pg_catalog.jsonb_array_elements($%d))",
						phones, new_row_param(row, JSONBOID, users->objects));
	else
		from = psprintf("ROWS FROM (pg_catalog.unnest($%d))", phones);
	if (users->have_keys)
		set_keys(row, users);
	new_row_set(row, "sms", "p.phone");
	set_counts(row);
	return new_rows_insert(tables, row,
						   psprintf("FROM %s WITH ORDINALITY p(phone, %sn)"
									" WHERE p.phone IS NOT NULL ORDER BY p.n",
									from, users->have_keys ? "u, " : ""));
}
