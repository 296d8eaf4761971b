/*-------------------------------------------------------------------------
 *
 * http.h
 *	  Many HTTP requests in flight at once, for one process.
 *
 * This layer knows nothing of Twilio and nothing of SQL.  It answers the most
 * important question of all: can the server have seen the request?  See
 * HttpResult.
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
	HTTP_ANSWERED, /* a complete answer came, whatever its status */
	HTTP_NOT_SENT, /* no byte of the request left: it may be repeated */
	HTTP_UNKNOWN   /* bytes left, but no complete answer came */
} HttpResult;

/* All strings are copied by http_start(); without a body, the request is a GET. */
typedef struct HttpRequest
{
	const char *url;
	const char *user;
	const char *password;
	const char *body; /* application/x-www-form-urlencoded */
	int			body_length;
	int			timeout;		 /* in ms, for the whole exchange */
	int			connect_timeout; /* in ms, including name lookup and TLS */
	int			max_response;	 /* in bytes; anything beyond is not kept */
	const char *ca_file;		 /* NULL or "": the system's */
	void	   *tag;			 /* returned with the response */
} HttpRequest;

/* Valid until the next call of http_next() or http_start(). */
typedef struct HttpResponse
{
	HttpResult	result;
	void	   *tag;
	long		status; /* 0 if no status line came */
	const char *body;	/* not NUL-terminated */
	int			body_length;
	bool		truncated;	 /* true if the body was longer than max_response */
	int			retry_after; /* in seconds; -1: the server did not say */
	pg_time_t	server_time; /* from its Date header; 0: it had none */
	const char *error;		 /* for people; "" if there was none */
} HttpResponse;

/*
 * Initializes this layer, once per process, or again after http_stop().  Throws
 * if libcurl or the kernel fails.
 */
extern void http_init(void);

/*
 * Gives up all exchanges, closes all connections, and frees everything, even
 * after http_init() has failed.  For a process that goes on with other work;
 * does not throw.
 */
extern void http_stop(void);

/* Starts an exchange.  Returns false if file descriptors or memory have run out. */
extern bool http_start(const HttpRequest *request);

/*
 * Lets transfers proceed, and waits until something happens on the network or
 * the latch is set, at most timeout ms (-1: no limit).  Does not process
 * interrupts; exits if the postmaster dies.  Returns true, and resets the
 * latch, if it was set.
 */
extern bool http_wait(long timeout);

/* Returns the next finished exchange, or false if there is none.  Does not throw. */
extern bool http_next(HttpResponse *response);

/*
 * Returns the number of exchanges that http_start() has started and
 * http_next() has not yet returned.
 */
extern int http_in_flight(void);

/* Appends "key=value", percent-encoded, preceded by "&" if necessary. */
extern void http_append_form(StringInfo form, const char *key, const char *value);

/* Appends a URL path segment or a form value, percent-encoded. */
extern void http_append_escaped(StringInfo buf, const char *value);

/* Tells whether this is an https: URL, or an http: URL of the loopback interface. */
extern bool http_url_is_safe(const char *url);

#endif /* SENDCAMPAIGN_HTTP_H */
