/*-------------------------------------------------------------------------
 *
 * home.h
 *	  Where a run belongs, and how it is known to have stayed there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_HOME_H
#define SENDCAMPAIGN_HOME_H

/*
 * As SQL, of a row of a table with written_in: has nobody
 * but the extension written it, here?  Not where it comes from a dump, from
 * another cluster or from a copy of the table.
 */
#define IS_CONTINUOUS "(xmin = written_in)"

/*
 * Likewise, of a row of sendcampaign.run_data, with the parameters that are
 * the system identifier (numeric) and the database (oid): was it queued here?
 * What the owner of the database has loaded was not, whatever it says.
 */
#define IS_AT_HOME(system, database_)                                                              \
	"(system_identifier = " system " AND database = " database_ " AND written_in <> '0'::xid)"

/*
 * Likewise: the role whose run it is.  In another cluster an OID may be
 * anybody's, and what was loaded says what it likes: a role is known by its
 * name there, and the OID counts for nothing.  Null where there is none.
 */
#define ROLE_HERE(system, database_)                                                               \
	"CASE WHEN " IS_AT_HOME(                                                                       \
		system,                                                                                    \
		database_) " THEN role_oid"                                                                \
				   " ELSE (SELECT named.oid FROM pg_roles named WHERE named.rolname = role) END"

/* The cluster's system identifier as a numeric, palloc'd. */
extern Datum system_identifier(void);

/*
 * What tells that commits may have been lost: the timeline, and the backup
 * that was restored.  Palloc'd.
 */
extern char *cluster_timeline(void);

/*
 * The run's batches and claims are the extension's own from now on, wherever
 * they come from.  With SPI connected; throws.
 */
extern void accept_loaded_rows(int64 run_id);

#endif /* SENDCAMPAIGN_HOME_H */
