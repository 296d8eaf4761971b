/*
 * request.h
 *		A request to the API, and its answer.
 */
#ifndef TWILIO_REQUEST_H
#define TWILIO_REQUEST_H

#include "accounts.h"
#include "faults.h"
#include "form.h"
#include "text.h"
#include "waits.h"

typedef enum route_kind
{
	ROUTE_UNKNOWN,
	ROUTE_ACCOUNT, /* GET the account: checks credentials */
	ROUTE_CREATE,
	ROUTE_LIST,
	ROUTE_FETCH,
	ROUTE_UPDATE /* POST to a message: cancels it */
} route_kind;

typedef struct route
{
	route_kind kind;
	text	   prefix; /* what precedes /2010-04-01 */
	text	   account;
	text	   sid;
} route;

/* how the answer leaves, if at all */
typedef enum reply_style
{
	REPLY_WHOLE,
	REPLY_DROP,	 /* closes the connection without sending a byte */
	REPLY_NEVER, /* is silent until the client leaves */
	REPLY_SLOW,
	REPLY_TRUNCATED,
	REPLY_HUGE
} reply_style;

typedef struct reply
{
	unsigned	status; /* 0: not decided yet */
	reply_style style;
	const char *content_type;
	buf			body;
	int			retry_after_s;
	long		concurrent; /* create requests in flight; 0: not a create request */
	bool		at_once;	/* without latency */
} reply;

/* the stage of a request; each is entered once */
typedef enum request_stage
{
	STAGE_READ,
	STAGE_BEGUN,	/* a hold before accepting comes here */
	STAGE_FINISHED, /* a hold after accepting comes here */
	STAGE_ANSWERED, /* latency comes here */
	STAGE_DUE
} request_stage;

typedef struct request
{
	waiter		  wait;
	request_stage stage;
	const char	 *method;
	const char	 *url;
	const char	 *authorization;
	const char	 *host; /* header; NULL if there is none */
	bool		  tls;
	bool		  has_form;
	bool		  too_large;
	bool		  in_flight; /* counted in stats.in_flight */
	bool		  is_list;	 /* counted in stats.lists_in_flight */
	route		  route;
	login_id	  login;
	fault		  fault;
	buf			  input;  /* body, decoded in place by params */
	form		  params; /* of the body, or of the query of a GET */
	int64_t		  delay_us;
	int64_t		  skew_s;
	reply		  reply;
} request;

#define MEDIA_PARAM "MediaUrl"
#define MEDIA_MAX	10

/* Called by server.c, in this order; they lock the world. */
extern void api_begin(request *r);
extern void api_finish(request *r);
extern void api_done(request *r);

/* Called by api.c, with the world lock held. */
extern void create_begin(request *r);
extern void create_finish(request *r);

/* Returns 0, or the code of the first error in a create request. */
extern int	create_check(const request *r);
extern void list_answer(request *r);

extern void reply_error(request *r, int code);

/* Returns true if a fault has decided the answer to a request that reads. */
extern bool reply_read_fault(request *r);

#endif
