/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  If the library is preloaded: visits all databases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LAUNCHER_H
#define SENDCAMPAIGN_LAUNCHER_H

/* Registers it.  Must be called while shared_preload_libraries are being loaded. */
extern void register_launcher(void);

#endif /* SENDCAMPAIGN_LAUNCHER_H */
