/*-------------------------------------------------------------------------
 *
 * group.h
 *	  What a campaign's group configures: account, senders, rate, quiet hours.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_GROUP_H
#define SENDCAMPAIGN_GROUP_H

#include "campaign/stop_words.h"
#include "database/app_tables.h"
#include "pgtime.h"

/* Quiet hours, in seconds of the recipient's day. */
typedef struct QuietHours
{
	int from; /* may be later than "to": over midnight */
	int to;	  /* equal to "from" if there are none */
} QuietHours;

/* How many messages a phone number gets from the group within so many days. */
typedef struct MessageLimit
{
	int messages; /* 0: no limit */
	int days;
} MessageLimit;

/* A group's region cannot be combined with a server that is not Twilio's. */
#define REGION_ELSEWHERE                                                                           \
	"the group configures a region or an edge of Twilio, but \"sendcampaign.api_url\" is not Twilio's"
#define REGION_ELSEWHERE_HINT                                                                      \
	"Remove \"twilioRegion\" and \"twilioEdge\" from the group's configuration, or reset"          \
	" \"sendcampaign.api_url\"."

typedef struct GroupConfig
{
	int64		 id; /* 0 if the list has none */
	char		*account_sid;
	char		*account; /* the SID and, unless it is us1, the region: each has its own messages */
	char		*api_host; /* of the region; NULL: that of sendcampaign.api_url */
	char		*user;	   /* SID of the account or of an API key */
	char		*secret;
	int			 num_senders;
	char	   **senders;		/* E.164, alphanumeric or MG... */
	bool		 smart_encoded; /* true if Twilio is to replace characters that are not in GSM-7 */
	bool		 sign_links;	/* true if tracking links are to be signed */
	double		 rate;			/* segments per second and sender; 0: no limit */
	QuietHours	 quiet_hours;
	pg_tz		*time_zone;	 /* of recipients who have none */
	bool		 says_zone;	 /* true if the group configures the time zone; false: UTC */
	TimestampTz	 send_until; /* of the campaign; 0: none */
	MessageLimit limit;
	char		*auth_token;	  /* or NULL, if only an API key is configured */
	char		*status_callback; /* URL to which Twilio reports statuses; or NULL */
	char		*inbound_url;	  /* URL to which it posts inbound messages; or NULL */
	StopWords	 stop_words;
	const char	*country; /* as find_country() returns it: of numbers without one; or NULL */
} GroupConfig;

/* A configuration to be read: that of a campaign's list. */
typedef struct WantedGroup
{
	int64		  campaign_id;
	int64		  list_id;
	MemoryContext context; /* for the result */
	GroupConfig	 *group;   /* the result */
} WantedGroup;

/*
 * Reads the configurations.  SPI must be connected.  Throws if something is
 * missing or invalid.
 */
extern void read_groups(AppTables *tables, WantedGroup *wanted, int count);

/* Reads one of them; palloc'd in the current memory context. */
extern GroupConfig *read_group(AppTables *tables, int64 campaign_id, int64 list_id);

/*
 * Does the same with what is needed to ask Twilio about messages that the group
 * has sent, whatever has become of the campaign since: account, senders, words.
 * The list is only named in errors.
 */
extern GroupConfig *read_group_of_messages(AppTables *tables, int64 group_id, int64 list_id);

/*
 * Reads what is needed to recognize and take what Twilio has received for a
 * group: account, token, senders, URLs and words; palloc'd.  NULL if it does not
 * exist or is deleted, or has no account.  Throws if something is invalid.
 */
extern GroupConfig *read_group_by_id(AppTables *tables, int64 group_id);

/*
 * Returns the country whose code the group of a list configures for phone
 * numbers without one; NULL if there is none.  SPI must be connected.  Throws if
 * it is invalid.
 */
extern const char *read_country_of_list(const AppTables *tables, int64 list_id);

/*
 * Returns which of these names a phone number gets its messages from.  It is
 * always the same one; with other lists that contain it, it mostly is, too.
 */
extern int choose_sender(char *const *names, int count, const char *phone);

/* Returns the one of the group's senders from which the phone number gets its messages. */
extern const char *sender_of_phone(const GroupConfig *group, const char *phone);

/*
 * Returns a zone of the time zone database, or NULL if it has none of that
 * name.  Blanks are trimmed off the name in place.
 */
extern pg_tz *find_time_zone(char *name);

#endif /* SENDCAMPAIGN_GROUP_H */
