/*-------------------------------------------------------------------------
 *
 * once.h
 *	  Once a phone: of list users with the same phone, one gets the message.
 *
 * Which have the same phone is found by one sort of the list.  They are known
 * by the first of them.  The one that gets the message is chosen when they
 * are looked at, in the order of the list: the first who is not skipped for
 * another reason.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ONCE_H
#define SENDCAMPAIGN_ONCE_H

#include "campaign/recipient.h"
#include "database/app_tables.h"

/* List users whose phone others of the list have, too: bigint[]. */
typedef struct Twins
{
	ArrayType *ids;	   /* ascending; NULL for none */
	ArrayType *firsts; /* of each, the first one with that phone */
} Twins;

typedef struct TwinStream TwinStream;

/* Reads the whole list.  SPI must be connected; throws. */
extern TwinStream *open_twins(const AppTables *tables, int64 list_id);
/* The next ones, at most so many, not beyond an id.  Palloc'd. */
extern Twins take_twins(TwinStream *stream, int most, int64 last);
extern void	 close_twins(TwinStream *stream);

/*
 * Skips those of a run's recipients whose message another one with the same
 * phone gets.  In a transaction with SPI connected; throws.
 */
extern void skip_twins_of_run(int64 run_id, Recipient *recipients, int count, Twins twins);

/*
 * The same for recipients that are only shown: who has been chosen is in
 * memory, of the context given.
 */
typedef struct HTAB *ChosenTwins;
extern ChosenTwins	 choose_in_memory(MemoryContext context);
extern void			 skip_twins(ChosenTwins chosen, Recipient *recipients, int count, Twins twins);

#endif /* SENDCAMPAIGN_ONCE_H */
