/*-------------------------------------------------------------------------
 *
 * http.h
 *	  Many HTTP requests in flight at once, for one process.
 *
 * This layer knows nothing of Twilio and nothing of SQL.  It answers one
 * question that matters more than any other here: can the server have seen
 * the request?  See HttpResult.
 *
 * None of these functions may be called from within a curl callback.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_HTTP_H
#define SENDCAMPAIGN_HTTP_H

#include "lib/stringinfo.h"
#include "pgtime.h"

typedef enum HttpResult
{
	HTTP_ANSWERED, /* a whole answer came, whatever its status */
	HTTP_NOT_SENT, /* no byte of the request left: safe to repeat */
	HTTP_UNKNOWN   /* bytes left, and no whole answer came */
} HttpResult;

/* All strings are copied by http_start; a NULL body makes it a GET. */
typedef struct HttpRequest
{
	const char *url;
	const char *user;
	const char *password;
	const char *body; /* application/x-www-form-urlencoded */
	int			body_length;
	int			timeout;		 /* ms, for the whole exchange */
	int			connect_timeout; /* ms, name look-up and TLS included */
	int			max_response;	 /* bytes; what is beyond is not kept */
	const char *ca_file;		 /* NULL or "": the system's */
	void	   *tag;			 /* given back with the response */
} HttpRequest;

/* Valid until the next call of http_next or http_start. */
typedef struct HttpResponse
{
	HttpResult	result;
	void	   *tag;
	long		status; /* 0 where no status line came */
	const char *body;	/* not NUL-terminated */
	int			body_length;
	bool		truncated;	 /* the body was longer than max_response */
	int			retry_after; /* s, -1 where the server did not say */
	pg_time_t	server_time; /* its Date header, 0 where there was none */
	const char *error;		 /* for people; "" where there was none */
} HttpResponse;

/* Throws where libcurl or the kernel refuses; to be called once a process. */
extern void http_init(void);

/* Starts an exchange; false where descriptors or memory have run out. */
extern bool http_start(const HttpRequest *request);

/*
 * Waits until something happens on the network or the latch is set, at most
 * timeout ms (-1: no limit), and lets transfers go on.  Does not process
 * interrupts; exits at the postmaster's death.  Returns whether the latch
 * was set; it is reset then.
 */
extern bool http_wait(long timeout);

/* The next finished exchange, or false.  Throws nothing. */
extern bool http_next(HttpResponse *response);

/* Requests started whose response http_next has not yet given. */
extern int http_in_flight(void);

/* Appends "key=value", percent-encoded, with a "&" where one is due. */
extern void http_append_form(StringInfo form, const char *key, const char *value);

/* Appends one percent-encoded URL path segment or form value. */
extern void http_append_escaped(StringInfo buf, const char *value);

/* Is this an https: URL, or an http: one to the loopback interface? */
extern bool http_url_is_safe(const char *url);

#endif /* SENDCAMPAIGN_HTTP_H */
