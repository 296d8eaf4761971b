/*-------------------------------------------------------------------------
 *
 * audience.c
 *	  Whom a call means: a campaign's list, or what a query selects of one.
 *
 * A list with a query has no users of its own: it selects some of another list,
 * which it names.  So where such queries are not allowed, nobody gets what is
 * meant for a few.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "calls/audience.h"
#include "miscadmin.h"
#include "settings.h"

/* It would run with all rights whatever those who may write lists have written. */
static void
check_no_superuser(int64 list_id)
{
	if (superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the query of list %lld cannot run with the rights of a superuser",
						(long long) list_id),
				 errhint("Make another role the owner of the application's tables, or pass the"
						 " query to send_campaign().")));
}

static void
check_base(const ListQueryRow *row)
{
	if (row->deleted)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("list %lld, which has a query, is deleted", (long long) row->list_id),
				 errdetail("The application has marked it as deleted."),
				 errhint("Remove that mark if the campaign is to be sent.")));
	if (!row->has_base)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("list %lld has a query, but does not say of which list",
						(long long) row->list_id),
				 errhint("Write the id of the list whose users the query selects into \"data\", as"
						 " the value of the key \"listId\".")));
	if (!row->same_group)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the query of list %lld selects users of list %lld, which is of another"
						" group",
						(long long) row->list_id, (long long) row->base_id),
				 errhint("Use a list of the same group.")));
}

Audience
find_audience(const AppTables *tables, int64 campaign_id, char *query)
{
	Audience	 audience = {query, 0};
	ListQueryRow row;

	if (!sendcampaign_list_queries || !tables_read_list_query(tables, campaign_id, &row))
		return audience;
	check_base(&row);
	audience.list_id = row.base_id;
	if (query)
		return audience;
	check_no_superuser(row.list_id);
	audience.query = row.query;
	return audience;
}
