/*-------------------------------------------------------------------------
 *
 * unreachable_table.h
 *	  Phone numbers that cannot be reached by SMS, and all SQL that writes them.
 *
 * All functions need a transaction and a connection to SPI, and may throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_UNREACHABLE_TABLE_H
#define SENDCAMPAIGN_UNREACHABLE_TABLE_H

/* SQL: the codes with which Twilio says that a number is unknown, or a landline. */
#define UNREACHABLE_CODES "(30005, 30006)"

/*
 * For the role of the run, marks the phone numbers of those of these list users
 * (bigint[]) whose messages were not delivered with one of these codes, and
 * removes the marks of those to whom a message was delivered since.
 */
extern void unreachable_follow(int64 run_id, Datum list_users);

/* Erases these phone numbers (text[]), for the roles that the caller is a member of. */
extern void unreachable_forget(Datum phones);

#endif /* SENDCAMPAIGN_UNREACHABLE_TABLE_H */
