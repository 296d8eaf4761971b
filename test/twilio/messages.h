/*
 * messages.h
 *		The messages of Twilio's list.  Those that were accepted from the API
 *		are the ledger: they were sent, whatever the client was told.  The
 *		others are only listed.
 *
 * The caller of any of these functions must hold the world lock (world.h).
 */
#ifndef TWILIO_MESSAGES_H
#define TWILIO_MESSAGES_H

#include "accounts.h"
#include "text.h"

#define SID_LEN 34

typedef enum message_kind
{
	MESSAGE_API,	/* accepted from the API */
	MESSAGE_REPLY,	/* sent by Twilio of its own accord */
	MESSAGE_INBOUND /* received */
} message_kind;

/* the contents of a create request, or of a message that only the list has */
typedef struct new_message
{
	message_kind kind;
	login_id	 login;
	int64_t		 skew_s;	/* how far its dates are off */
	int64_t		 send_at_s; /* 0: not scheduled */
	int			 media;		/* number of MediaUrl */
	bool		 has_callback;
	text		 from;
	text		 service;
	text		 to;
	text		 body;
	text		 extra; /* other parameters, form-encoded; see callbacks.h */
	text		 shown; /* the text as it is sent; NULL: the body */
} new_message;

typedef struct message
{
	int64_t	 created_us;
	int64_t	 send_at_s;
	int64_t	 canceled_us; /* by a request; 0: it was not */
	int32_t	 skew_s;
	uint32_t index;
	uint32_t older; /* the next one in its bucket of recipients */
	uint32_t body_len;
	uint32_t extra_len;
	uint32_t shown_len;
	uint16_t login;
	uint16_t segments;
	uint8_t	 from_len;
	uint8_t	 service_len;
	uint8_t	 to_len;
	uint8_t	 kind; /* a message_kind */
	uint8_t	 media;
	uint8_t	 called_back; /* how many of its statuses are in the log of callbacks.c */
	bool	 has_callback;
	bool	 has_shown;
	char	 data[]; /* from, service, to, body, extra, shown */
} message;

/* the longest From, MessagingServiceSid and To that are accepted */
#define SENDER_MAX 255

#define NO_MESSAGE UINT32_MAX

extern void messages_open_ledger(const char *path);
extern void messages_init(void);

/* Removes all messages, also from the ledger file, and begins a new generation. */
extern void		messages_reset(void);
extern uint32_t messages_count(void);
extern uint32_t messages_accepted(void); /* of kind MESSAGE_API */
extern uint32_t messages_inbound(void);
extern uint32_t messages_generation(void);

/* Stores a message, of whose texts it makes copies. */
extern message *message_add(const new_message *asked);
extern message *message_at(uint32_t index);

/* Return the message, or NULL. */
extern message *message_by_sid(text sid);
extern message *message_newest_to(text to);

/* Parts of a message; texts belong to it. */
extern message *message_older_to(const message *m);

extern void message_sid(const message *m, char sid[SID_LEN + 1]);
extern text message_from(const message *m);
extern text message_service(const message *m);
extern text message_to(const message *m);
extern text message_body(const message *m);
extern text message_extra(const message *m);
extern text message_shown(const message *m);
extern void message_ledger_line(buf *out, const message *m);

#endif
