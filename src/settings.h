/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings sendcampaign.*; docs/reference.md describes each.
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
extern double sendcampaign_node_share;			/* a fraction */
extern double sendcampaign_segments_per_second; /* of one sender; 0: no limit */
extern double sendcampaign_request_timeout;		/* in seconds, like the three below */
extern double sendcampaign_connect_timeout;
extern double sendcampaign_lookup_delay;
extern double sendcampaign_lookup_timeout;
extern bool	  sendcampaign_resend_lost;
extern bool	  sendcampaign_receipts;
extern int	  sendcampaign_max_attempts;
extern double sendcampaign_retry_undelivered_after; /* in seconds */
extern bool	  sendcampaign_skip_unreachable;
extern double sendcampaign_query_timeout; /* in seconds; 0: no limit */
extern bool	  sendcampaign_list_queries;
extern int	  sendcampaign_launcher_interval;	 /* in seconds */
extern int	  sendcampaign_worker_idle_timeout;	 /* in ms; 0: a worker leaves at once */
extern int	  sendcampaign_failure_threshold;	 /* in messages; -1: no limit */
extern double sendcampaign_failure_scale_factor; /* a fraction */

/*
 * Limits on segments per second of a sender; the lower one is a segment in 100
 * seconds.  At a lower rate a run would stand still, which nobody wants.
 */
#define MIN_RATE 0.01
#define MAX_RATE 100000

static inline bool
rate_is_valid(double rate)
{
	return rate == 0 || (rate >= MIN_RATE && rate <= MAX_RATE);
}

/* Return what this node has of sendcampaign.max_concurrency and of a sender's rate. */
extern int	  max_concurrency_here(void);
extern double rate_here(double rate);

/*
 * Returns sendcampaign.lookup_timeout, or the default derived from
 * sendcampaign.lookup_delay if that is -1; in seconds.
 */
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

/* Must be called once, when the library is loaded. */
extern void define_settings(void);

/*
 * Tells whether we are in a SECURITY DEFINER function that does not set
 * sendcampaign.schema itself, but has the value of its caller.
 */
extern bool schema_is_of_callers_choice(void);

#endif /* SENDCAMPAIGN_SETTINGS_H */
