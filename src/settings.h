/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings sendcampaign.*; docs/operations.md tells what each does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SETTINGS_H
#define SENDCAMPAIGN_SETTINGS_H

extern bool sendcampaign_enabled;
extern char *sendcampaign_api_url;
extern char *sendcampaign_ca_file;
extern char *sendcampaign_schema;
extern int	sendcampaign_max_concurrency;
extern int	sendcampaign_request_timeout;	/* ms */
extern int	sendcampaign_connect_timeout;	/* ms */
extern int	sendcampaign_lookup_delay;	/* ms */
extern int	sendcampaign_max_attempts;
extern int	sendcampaign_launcher_interval; /* s */

/* To be called once, when the library is loaded. */
extern void define_settings(void);

#endif							/* SENDCAMPAIGN_SETTINGS_H */
