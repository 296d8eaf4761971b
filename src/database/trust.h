/*-------------------------------------------------------------------------
 *
 * trust.h
 *	  Whose code runs when a role uses the application's tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TRUST_H
#define SENDCAMPAIGN_TRUST_H

/* The application's. */
#define NUM_TABLES 5

/*
 * What the role would run that belongs to somebody whom it has no reason to
 * trust, when it uses these tables: a palloc'd sentence, or NULL.  Locks the
 * tables against changes of that to the end of the transaction.  SPI must be
 * connected.
 */
extern char *find_foreign_code(Oid role, const Oid *tables, int count);

/* Throws where there is such code. */
extern void check_code_is_trusted(Oid role, const Oid *tables, int count, const char *schema);

/* Likewise for the current role, a superuser, once a (sub)transaction. */
extern void check_code_once(const Oid *tables, int count, const char *schema);

#endif /* SENDCAMPAIGN_TRUST_H */
