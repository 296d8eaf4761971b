/*-------------------------------------------------------------------------
 *
 * new_users.h
 *	  People who are to be added to a list: which of them, and why not the others.
 *
 * Phone numbers are compared in the form to which messages are sent, by the
 * same functions.  All functions run with the rights of the current role, with
 * SPI connected, palloc their results in the current memory context, and throw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_NEW_USERS_H
#define SENDCAMPAIGN_NEW_USERS_H

#include "database/app_tables.h"
#include "database/new_rows.h"

/* One of those that a caller has given. */
typedef struct NewUser
{
	char	   *given;	 /* the phone number, as it was given; or NULL */
	char	   *e164;	 /* NULL if it cannot be sent to */
	const char *refused; /* why not; NULL if the user is to be added */
} NewUser;

typedef struct NewUsers
{
	NewUser	   *users;
	int			count;
	bool		have_keys; /* true if they have further keys, in "objects" */
	Datum		objects;   /* jsonb, an array in the order of the users */
	List	   *keys;	   /* char *, of all objects */
	const char *country;   /* of phone numbers without a country code; or NULL */
} NewUsers;

/* Make them from phone numbers (text[]), or from objects with a key "sms" (jsonb). */
extern NewUsers *users_of_phones(ArrayType *phones);
extern NewUsers *users_of_objects(Datum objects);

/* Sets the phone numbers in E.164 and refuses users who have none, or that of another one. */
extern void check_new_users(NewUsers *users, const char *country);

/* Refuses those whose phone number a user of the list has already; returns the list's users. */
extern int64 refuse_known_users(NewUsers *users, const AppTables *tables, int64 list_id);

/* Returns the number of those that are refused, and the first of them; -1 if there is none. */
extern int count_refused(const NewUsers *users, int *first);

/*
 * Adds to the list those that are not refused, or all of them, the refused ones
 * with the phone number as it was given.  Returns how many rows there are more.
 */
extern uint64 insert_new_users(const NewUsers *users, const AppTables *tables, NewRow *row,
							   bool all);

#endif /* SENDCAMPAIGN_NEW_USERS_H */
