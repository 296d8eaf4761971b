/*-------------------------------------------------------------------------
 *
 * home.h
 *	  Where a run belongs, and how we know that it has stayed there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_HOME_H
#define SENDCAMPAIGN_HOME_H

/*
 * SQL condition on a row of a table with written_in: only the extension has
 * written the row, in this place.  False if it comes from a dump, from another
 * cluster, or from a copy of the table.
 */
#define IS_CONTINUOUS "(xmin = written_in)"

/*
 * SQL condition on a row of sendcampaign.run_data: the run was queued here.
 * The parameters are home_identifier() (numeric) and the database (oid).
 * Never true for rows that the owner of the database has loaded, whatever they
 * contain.
 */
#define IS_AT_HOME(system, database_)                                                              \
	"(system_identifier = " system " AND database = " database_ " AND written_in <> '0'::xid)"

/*
 * SQL expression on such a row: the OID of the role that the run belongs to,
 * or null if there is none.  In another cluster an OID may be that of any
 * role, and loaded rows may contain anything, so there the role is identified
 * by its name.
 */
#define ROLE_HERE(system, database_)                                                               \
	"CASE WHEN " IS_AT_HOME(                                                                       \
		system,                                                                                    \
		database_) " THEN role_oid"                                                                \
				   " ELSE (SELECT named.oid FROM pg_roles named WHERE named.rolname = role) END"

/*
 * Runs a query, as the extension's owner, about the run of a job: its parameters
 * are the job ($1), the schema ($2, text), and those of IS_AT_HOME and
 * ROLE_HERE ($3, $4).  Returns the number of rows, which are in SPI_tuptable.
 */
extern uint64 query_run_of_job(const char *sql, int64 job_id, const char *schema);

/* The same condition for all of these queries. */
#define IS_RUN_OF_JOB " job_id = $1 AND schema = $2::name"

/* Returns the cluster's system identifier as a numeric, palloc'd. */
extern Datum system_identifier(void);

/*
 * Returns what a run's row has as its system identifier: the same, and on a node
 * of Citus that is not the coordinator, the node's group behind the point.
 * Palloc'd.
 */
extern Datum home_identifier(void);

/* Returns what the row of a job has whose campaign is sent here, palloc'd; NULL without Citus. */
extern char *home_mark(void);

/*
 * Tells whether a run that is not at home (IS_AT_HOME) was queued on another
 * node of this Citus cluster, which may go on with it.
 */
extern bool is_of_other_node(int64 run_id);

/* Returns the name of the run's node, palloc'd; NULL if that is no longer in the cluster. */
extern char *node_of_run(int64 run_id);

/*
 * Returns what changes when commits may have been lost: the timeline, and a
 * hash of the label of the backup that was restored.  Palloc'd.
 */
extern char *cluster_timeline(void);

/*
 * Makes the run's batches and claims the extension's own from now on, wherever
 * they come from.  SPI must be connected.  Throws.
 */
extern void accept_loaded_rows(int64 run_id);

#endif /* SENDCAMPAIGN_HOME_H */
