/*-------------------------------------------------------------------------
 *
 * citus.h
 *	  Citus: which node of a cluster this is, and which one has a table.
 *
 * Each node has workers and runs of its own, so each must know which campaigns
 * are not its own.  Without Citus in the database, all of this costs the lookup
 * of a name that does not exist.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_CITUS_H
#define SENDCAMPAIGN_CITUS_H

/* Tells whether Citus is in this database.  Needs a transaction. */
extern bool citus_is_here(void);

/* Returns this node's group, 0 for the coordinator; -1 without Citus. */
extern int32 citus_local_group(void);

/*
 * Returns the group of the node that has all of these relations, or the tables
 * that they read as views: 0 if they are not distributed.  The first
 * num_written of them are written, so that they must be on that node alone; the
 * others may be reference tables.  Throws if they are distributed by a column,
 * or on several nodes.  SPI must be connected.
 */
extern int32 citus_group_of(const Oid *relations, int count, int num_written);

/*
 * Tells whether Citus has the table or view: it is in a tenant's schema, or
 * distributed otherwise.
 */
extern bool citus_has_table(Oid table);

/*
 * Tells whether the table, or view, is what other nodes know by its name.  What
 * Citus does not have is the coordinator's: on another node, anybody may have
 * created a schema with the name of one that is there.  True without Citus.
 */
extern bool citus_name_is_common(Oid table);

/* Returns "host:port" of the group's node, palloc'd; NULL if there is no such group. */
extern char *citus_node_name(int32 group);

/*
 * Tells whether this may be a clone of a node that has been promoted, but is
 * not yet a node of its own: until then it has that node's group.  True on the
 * node itself as well.  SPI must be connected.
 */
extern bool citus_has_clone(void);

#endif /* SENDCAMPAIGN_CITUS_H */
