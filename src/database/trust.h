/*-------------------------------------------------------------------------
 *
 * trust.h
 *	  Whose code runs when a role uses the application's tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TRUST_H
#define SENDCAMPAIGN_TRUST_H

/* The number of the application's tables. */
#define NUM_TABLES 5

/* Code of somebody else, and who that is. */
typedef struct ForeignCode
{
	char *object; /* "trigger t on table x" */
	char *owner;
} ForeignCode;

/*
 * Finds code that would run with the role's rights when it uses these tables,
 * and that belongs to somebody whom it has no reason to trust; palloc'd.  False
 * if there is none.  If the role is a superuser, locks the tables against
 * changes of that to the end of the transaction.  SPI must be connected.
 */
extern bool find_foreign_code(Oid role, const Oid *tables, int count, ForeignCode *found);

/* Throws if there is such code. */
extern void check_code_is_trusted(Oid role, const Oid *tables, int count, const char *schema);

/* Does the same for the current role, a superuser, once per (sub)transaction. */
extern void check_code_once(const Oid *tables, int count, const char *schema);

#endif /* SENDCAMPAIGN_TRUST_H */
