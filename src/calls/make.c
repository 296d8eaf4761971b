/*-------------------------------------------------------------------------
 *
 * make.c
 *	  create_list(), create_campaign(), add_list_users(), send_message(): makes
 *	  what send_campaign() sends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/caller.h"
#include "campaign/group.h"
#include "campaign/new_users.h"
#include "database/check.h"
#include "database/columns.h"
#include "database/new_rows.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

extern Datum send_campaign(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(sendcampaign_create_list);
PG_FUNCTION_INFO_V1(sendcampaign_create_campaign);
PG_FUNCTION_INFO_V1(sendcampaign_add_phones);
PG_FUNCTION_INFO_V1(sendcampaign_add_users);
PG_FUNCTION_INFO_V1(sendcampaign_send_to_phones);
PG_FUNCTION_INFO_V1(sendcampaign_send_to_users);

/* What a call works on, and as whom. */
typedef struct Making
{
	AppTables	  *tables;
	Oid			   role;
	ActingScope	   scope;
	bool		   has_user;
	int64		   user_id;
	FurtherColumns further;
} Making;

/* Begins a call whose arguments from that one on are user_id and columns. */
static void
begin_making(Making *making, FunctionCallInfo fcinfo, int user_id, const char *function)
{
	memset(making, 0, sizeof(*making));
	check_writable(function);
	spi_connect();
	making->tables = open_tables_anywhere(&making->role);
	tables_check_columns(making->tables);
	making->has_user = !PG_ARGISNULL(user_id);
	if (making->has_user)
		making->user_id = PG_GETARG_INT64(user_id);
	making->further.given = !PG_ARGISNULL(user_id + 1);
	if (making->further.given)
		making->further.columns = PG_GETARG_DATUM(user_id + 1);
	act_as(making->role, &making->scope);
	further_columns_read(&making->further);
}

static void
end_making(Making *making)
{
	act_as_caller(making->role, &making->scope);
	tables_close(making->tables);
	spi_finish();
}

static void
require_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errhint("Pass a value for it.")));
}

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

/* Begins a row, with what the call sets in each table. */
static void
begin_row(Making *making, NewRow *row, Oid table, const char *reference, int64 target)
{
	const char *column;

	new_row_begin(row, table);
	new_row_set_int64(row, reference, target);
	if (!making->has_user)
		return;
	column = has_column(table, "user_id") ? "user_id" : "userId";
	if (has_column(table, column))
		new_row_set_int64(row, column, making->user_id);
	else if (!making->further.for_some)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has no column \"user_id\"", table_title(table)),
				 errhint("Leave user_id out.")));
}

static int64
make_list(Making *making, int64 group_id, const char *name)
{
	NewRow row;

	check_group(making->tables, group_id);
	begin_row(making, &row, making->tables->lists, "group_id", group_id);
	new_row_set_text(&row, "name", name);
	new_row_set_further(&row, &making->further);
	return new_row_insert(making->tables, &row, "group_id", group_id);
}

static int64
make_campaign(Making *making, int64 list_id, const char *message, const char *base_url)
{
	NewRow row;

	begin_row(making, &row, making->tables->campaigns, "ac_list_id", list_id);
	new_row_set_text(&row, "message", message);
	new_row_set_text(&row, "baseUrl", base_url);
	new_row_set_further(&row, &making->further);
	return new_row_insert(making->tables, &row, "ac_list_id", list_id);
}

/* The list is read with a snapshot that is newer than its lock. */
static int64
compare_with_list(Making *making, NewUsers *users, int64 list_id)
{
	int64 known;

	/* whoever may not add anything need not keep others from doing so */
	if (users->count > 0 && may_use_column(making->tables->list_users, "ac_list_id", ACL_INSERT))
		lock_list(making->tables, list_id);
	PushActiveSnapshot(GetTransactionSnapshot());
	check_new_users(users, read_country_of_list(making->tables, list_id));
	known = refuse_known_users(users, making->tables, list_id);
	PopActiveSnapshot();
	return known;
}

static uint64
insert_users(Making *making, NewUsers *users, int64 list_id, bool all)
{
	NewRow row;
	int	   first;
	int64  expected = all ? users->count : users->count - count_refused(users, &first);
	uint64 inserted;

	if (expected == 0)
		return 0;
	begin_row(making, &row, making->tables->list_users, "ac_list_id", list_id);
	new_row_set_further(&row, &making->further);
	inserted = insert_new_users(users, making->tables, &row, all);
	if (inserted < expected)
		ereport(WARNING,
				(errmsg("of %lld users, %llu were inserted into \"%s\"",
						(long long) expected, (unsigned long long) inserted,
						table_title(making->tables->list_users)),
				 errdetail("The others were suppressed by a trigger or rule."),
				 errhint("Change the trigger or rule if it was not meant to do so.")));
	return inserted;
}

/* sendcampaign.create_list(group_id bigint, name text, user_id bigint, columns jsonb) */
Datum
sendcampaign_create_list(PG_FUNCTION_ARGS)
{
	Making making;
	int64  list_id;

	require_argument(fcinfo, 0, "group_id");
	begin_making(&making, fcinfo, 2, "sendcampaign.create_list()");
	list_id = make_list(&making, PG_GETARG_INT64(0), text_argument(fcinfo, 1));
	end_making(&making);
	PG_RETURN_INT64(list_id);
}

/*
 * sendcampaign.create_campaign(list_id bigint, message text, base_url text,
 *	user_id bigint, columns jsonb)
 */
Datum
sendcampaign_create_campaign(PG_FUNCTION_ARGS)
{
	Making making;
	int64  campaign_id;

	require_argument(fcinfo, 0, "list_id");
	/* a content template has no message; it is in "columns" then */
	if (PG_ARGISNULL(4))
		require_argument(fcinfo, 1, "message");
	begin_making(&making, fcinfo, 3, "sendcampaign.create_campaign()");
	check_list(making.tables, PG_GETARG_INT64(0));
	campaign_id = make_campaign(&making, PG_GETARG_INT64(0), text_argument(fcinfo, 1),
								text_argument(fcinfo, 2));
	end_making(&making);
	PG_RETURN_INT64(campaign_id);
}

static NewUsers *
users_argument(FunctionCallInfo fcinfo, int number, bool are_phones)
{
	require_argument(fcinfo, number, are_phones ? "phones" : "users");
	return are_phones ? users_of_phones(PG_GETARG_ARRAYTYPE_P(number))
					  : users_of_objects(PG_GETARG_DATUM(number));
}

static void
tell_added(const NewUsers *users, uint64 added, int64 list_id)
{
	int first;
	int refused = count_refused(users, &first);

	ereport(NOTICE,
			(errmsg_plural("%llu user was added to list %lld",
						   "%llu users were added to list %lld",
						   (unsigned long) added, (unsigned long long) added, (long long) list_id),
			 refused > 0
				? errdetail_plural("%d was refused: it is in the result, with the reason.",
								   "%d were refused: they are in the result, with the reasons.",
								   refused, refused)
				: 0));
}

static void
return_refused(const NewUsers *users, ReturnSetInfo *result)
{
	for (int i = 0; i < users->count; i++)
	{
		const NewUser *user = &users->users[i];
		Datum		   values[] = {Int64GetDatum(i + 1), optional_text(user->given),
								   optional_text(user->refused)};
		bool		   nulls[] = {false, user->given == NULL, false};

		if (user->refused)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

static Datum
add_list_users(FunctionCallInfo fcinfo, bool are_phones)
{
	Making	  making;
	NewUsers *users;
	int64	  list_id;
	uint64	  added;

	InitMaterializedSRF(fcinfo, 0);
	require_argument(fcinfo, 0, "list_id");
	list_id = PG_GETARG_INT64(0);
	begin_making(&making, fcinfo, 2, "sendcampaign.add_list_users()");
	users = users_argument(fcinfo, 1, are_phones);
	check_list(making.tables, list_id);
	(void) compare_with_list(&making, users, list_id);
	added = insert_users(&making, users, list_id, false);
	return_refused(users, (ReturnSetInfo *) fcinfo->resultinfo);
	tell_added(users, added, list_id);
	end_making(&making);
	PG_RETURN_NULL();
}

/* sendcampaign.add_list_users(list_id bigint, phones text[], user_id bigint, columns jsonb) */
Datum
sendcampaign_add_phones(PG_FUNCTION_ARGS)
{
	return add_list_users(fcinfo, true);
}

/* sendcampaign.add_list_users(list_id bigint, users jsonb, user_id bigint, columns jsonb) */
Datum
sendcampaign_add_users(PG_FUNCTION_ARGS)
{
	return add_list_users(fcinfo, false);
}

/* Those that cannot be sent to are in the list, and the run says why it has skipped them. */
static void
check_any_can_be_sent_to(const NewUsers *users)
{
	int first;
	int refused = count_refused(users, &first);

	if (users->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is nobody to send the message to"),
				 errhint("Pass at least one phone number.")));
	if (refused == users->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("none of the phone numbers can be sent to"),
				 errdetail("Position %d: %s.", first + 1, users->users[first].refused),
				 errhint("Write each with a plus sign and the country code, such as +15550000001,"
						 " or set \"countryCode\" in the group's configuration.")));
	if (refused > 0)
		ereport(WARNING,
				(errmsg_plural("%d of %d recipients will be skipped",
							   "%d of %d recipients will be skipped",
							   refused, refused, users->count),
				 errdetail("Position %d: %s.", first + 1, users->users[first].refused),
				 errhint("sendcampaign.message has each of them, with the reason, once the run has"
						 " begun.")));
}

static void
fill_new_list(Making *making, NewUsers *users, int64 list_id)
{
	if (compare_with_list(making, users, list_id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("the new list %lld has users already", (long long) list_id),
				 errhint("Check the triggers and rules of \"%s.ac_lists\", and that no list users"
						 " are left of a list that had this id before.",
						 making->tables->schema)));
	check_any_can_be_sent_to(users);
	(void) insert_users(making, users, list_id, true);
}

/* Calls the function, whatever parameters it has after the first one, all of which are null. */
static int64
send_to_all(int64 campaign_id)
{
	LOCAL_FCINFO(call, 8);

	InitFunctionCallInfoData(*call, NULL, 8, InvalidOid, NULL, NULL);
	for (int i = 0; i < 8; i++)
		call->args[i] = (NullableDatum){(Datum) 0, true};
	call->args[0] = (NullableDatum){Int64GetDatum(campaign_id), false};
	return DatumGetInt64(send_campaign(call));
}

static Datum
send_message(FunctionCallInfo fcinfo, bool are_phones)
{
	Making	  making;
	NewUsers *users;
	int64	  list_id;
	int64	  campaign_id;

	require_argument(fcinfo, 0, "group_id");
	require_argument(fcinfo, 1, "message");
	begin_making(&making, fcinfo, 4, "sendcampaign.send_message()");
	making.further.for_some = true;
	users = users_argument(fcinfo, 2, are_phones);
	list_id = make_list(&making, PG_GETARG_INT64(0), NULL);
	campaign_id = make_campaign(&making, list_id, text_argument(fcinfo, 1),
								text_argument(fcinfo, 3));
	fill_new_list(&making, users, list_id);
	further_columns_check_used(&making.further);
	end_making(&making);
	PG_RETURN_INT64(send_to_all(campaign_id));
}

/*
 * sendcampaign.send_message(group_id bigint, message text, phones text[],
 *	base_url text, user_id bigint, columns jsonb)
 */
Datum
sendcampaign_send_to_phones(PG_FUNCTION_ARGS)
{
	return send_message(fcinfo, true);
}

/*
 * sendcampaign.send_message(group_id bigint, message text, users jsonb,
 *	base_url text, user_id bigint, columns jsonb)
 */
Datum
sendcampaign_send_to_users(PG_FUNCTION_ARGS)
{
	return send_message(fcinfo, false);
}
