/*-------------------------------------------------------------------------
 *
 * duplicates.h
 *	  Of list users with the same phone number, only one gets the message.
 *
 * One sort of the list finds those who share a number; they are identified by
 * the first of them.  The one that gets the message is chosen when they are
 * read, in the order of the list: the first one who is not skipped for another
 * reason.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_DUPLICATES_H
#define SENDCAMPAIGN_DUPLICATES_H

#include "campaign/recipient.h"
#include "utils/array.h"

/* List users who share their phone number with others of the list: bigint[]. */
typedef struct Duplicates
{
	ArrayType *ids;	   /* ascending; NULL if there are none */
	ArrayType *firsts; /* for each, the first list user with that number */
} Duplicates;

typedef struct DuplicateStream DuplicateStream;

/*
 * Finds the duplicates of a list: its users' phone numbers (as stored) are put
 * in, in any order, and when all have been, they can be taken out.  The country
 * is that of numbers that lack its code, or NULL.  Palloc'd;
 * these functions may throw.
 */
extern DuplicateStream *open_duplicates(const char *country);
extern void				put_phone(DuplicateStream *stream, int64 list_user_id, const char *phone);
extern void				find_duplicates(DuplicateStream *stream);

/*
 * Returns those of these ids, which are ascending and come after those of the
 * last call, that are duplicates.  Palloc'd.
 */
extern Duplicates take_duplicates(DuplicateStream *stream, const Datum *wanted, int num_wanted);
extern void		  close_duplicates(DuplicateStream *stream);

/*
 * Skips those of a run's recipients who share a phone number with the one who
 * gets the message.  In a transaction with SPI connected; throws.
 */
extern void skip_duplicates_of_run(int64 run_id, Recipient *recipients, int count,
								   Duplicates duplicates);

/*
 * The same for recipients that are only shown.  Who has been chosen is kept in
 * memory of the given context.
 */
typedef struct HTAB	   *ChosenDuplicates;
extern ChosenDuplicates choose_in_memory(MemoryContext context);
extern void skip_duplicates_in_memory(ChosenDuplicates chosen, Recipient *recipients, int count,
									  Duplicates duplicates);

#endif /* SENDCAMPAIGN_DUPLICATES_H */
