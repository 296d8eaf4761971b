/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  With preload: brings unfinished runs back, in every database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LAUNCHER_H
#define SENDCAMPAIGN_LAUNCHER_H

/* To be called while shared_preload_libraries are loaded. */
extern void register_launcher(void);

#endif /* SENDCAMPAIGN_LAUNCHER_H */
