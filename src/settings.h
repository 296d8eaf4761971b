/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings sendcampaign.*; docs/reference.md says what each does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_SETTINGS_H
#define SENDCAMPAIGN_SETTINGS_H

extern bool	  sendcampaign_enabled;
extern char	 *sendcampaign_api_url;
extern char	 *sendcampaign_ca_file;
extern char	 *sendcampaign_schema;
extern int	  sendcampaign_max_concurrency;
extern double sendcampaign_segments_per_second; /* segments, of one sender; 0: no limit */
extern double sendcampaign_request_timeout;		/* s, as the three below */
extern double sendcampaign_connect_timeout;
extern double sendcampaign_lookup_delay;
extern double sendcampaign_lookup_timeout;
extern bool	  sendcampaign_resend_lost;
extern int	  sendcampaign_max_attempts;
extern int	  sendcampaign_launcher_interval;	 /* s */
extern int	  sendcampaign_failure_threshold;	 /* messages; -1: no limit */
extern double sendcampaign_failure_scale_factor; /* a fraction */

/*
 * Segments a second that a sender may be held to, one in 100 s at least: less
 * would have a run stand still, and be nobody's wish.
 */
#define MIN_RATE 0.01
#define MAX_RATE 100000

static inline bool
rate_is_valid(double rate)
{
	return rate == 0 || (rate >= MIN_RATE && rate <= MAX_RATE);
}

/* sendcampaign.lookup_timeout, or what goes for it where it is not set; in s. */
extern double lookup_timeout(void);

static inline int
to_ms(double seconds)
{
	return (int) (seconds * 1000);
}

static inline int64
to_us(double seconds)
{
	return (int64) (seconds * 1000000);
}

/* To be called once, when the library is loaded. */
extern void define_settings(void);

/*
 * Are we in a SECURITY DEFINER function, with sendcampaign.schema as whoever
 * calls the function has it, and not as the function sets it?
 */
extern bool schema_is_of_callers_choice(void);

#endif /* SENDCAMPAIGN_SETTINGS_H */
