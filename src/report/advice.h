/*-------------------------------------------------------------------------
 *
 * advice.h
 *	  What to do about recipients who were skipped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_ADVICE_H
#define SENDCAMPAIGN_ADVICE_H

/* Returns a sentence for a reason why list users are skipped; NULL if there is none. */
extern const char *advice_for_skipped(const char *reason);

#endif /* SENDCAMPAIGN_ADVICE_H */
