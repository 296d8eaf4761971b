/*-------------------------------------------------------------------------
 *
 * duplicates.h
 *	  Once a phone: of list users with the same phone, one gets the message.
 *
 * Which have the same phone is found by one sort of the list.  They are known
 * by the first of them.  The one that gets the message is chosen when they
 * are looked at, in the order of the list: the first who is not skipped for
 * another reason.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_DUPLICATES_H
#define SENDCAMPAIGN_DUPLICATES_H

#include "campaign/recipient.h"
#include "database/app_tables.h"

/* List users whose phone others of the list have, too: bigint[]. */
typedef struct Duplicates
{
	ArrayType *ids;	   /* ascending; NULL for none */
	ArrayType *firsts; /* of each, the first one with that phone */
} Duplicates;

typedef struct DuplicateStream DuplicateStream;

/* Reads the whole list.  SPI must be connected; throws. */
extern DuplicateStream *open_duplicates(const AppTables *tables, int64 list_id);
/* The next ones, at most so many, not beyond an id.  Palloc'd. */
extern Duplicates take_duplicates(DuplicateStream *stream, int most, int64 last);
extern void		  close_duplicates(DuplicateStream *stream);

/*
 * Skips those of a run's recipients whose message another one with the same
 * phone gets.  In a transaction with SPI connected; throws.
 */
extern void skip_duplicates_of_run(int64 run_id, Recipient *recipients, int count,
								   Duplicates duplicates);

/*
 * The same for recipients that are only shown: who has been chosen is in
 * memory, of the context given.
 */
typedef struct HTAB	   *ChosenDuplicates;
extern ChosenDuplicates choose_in_memory(MemoryContext context);
extern void				skip_duplicates(ChosenDuplicates chosen, Recipient *recipients, int count,
										Duplicates duplicates);

#endif /* SENDCAMPAIGN_DUPLICATES_H */
