/*
 * server.c
 *		The API port: converts libmicrohttpd's callbacks to requests, and
 *		answers to responses.
 *
 * libmicrohttpd gets its connections from listener.c, so that the port can be
 * closed and opened again, and serves them with epoll in one thread.  A
 * request that has to wait is suspended (waits.c), and returns to on_request()
 * at its next stage.
 */
#include "server.h"
#include "clock.h"
#include "request.h"
#include "stats.h"
#include "stream.h"
#include "world.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define INPUT_MAX		(1024 * 1024)
#define CONNECTIONS_MAX 8000

/* one per open connection, in a list */
typedef struct peer
{
	struct peer *before;
	struct peer *after;
	int			 fd;
	bool		 served; /* at least one request has come */
} peer;

static struct MHD_Daemon *server;
static bool				  server_has_tls;
static char				 *certificate;
static char				 *private_key;
static peer				  peers = {&peers, &peers, -1, false}; /* world lock */

static char *
read_file(const char *path)
{
	FILE  *file = fopen(path, "r");
	buf	   content = {NULL, 0, 0};
	size_t got;

	if (file == NULL)
		fatal("cannot read %s", path);
	do
	{
		buf_reserve(&content, 4096);
		got = fread(content.data + content.len, 1, 4095, file);
		content.len += got;
	} while (got > 0);
	fclose(file);
	content.data[content.len] = '\0';
	return content.data;
}

static void
peer_add(struct MHD_Connection *connection, void **context)
{
	peer *p = need(malloc(sizeof(peer)));

	*p = (peer){&peers, peers.after, -1, false};
	p->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	p->after->before = p;
	peers.after = p;
	stats.connections++;
	stats.open_connections++;
	*context = p;
}

static void
peer_remove(peer *p)
{
	p->before->after = p->after;
	p->after->before = p->before;
	stats.open_connections--;
	free(p);
}

static void
on_connection(void *unused, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode what)
{
	(void) unused;
	pthread_mutex_lock(&world_lock);
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		peer_add(connection, context);
	else if (*context != NULL)
		peer_remove(*context);
	pthread_mutex_unlock(&world_lock);
}

/* Ends all open connections, like a server that crashes. */
void
server_drop_connections(void)
{
	pthread_mutex_lock(&world_lock);
	for (peer *p = peers.after; p != &peers; p = p->after)
		shutdown(p->fd, SHUT_RDWR);
	pthread_mutex_unlock(&world_lock);
}

/* A connection whose first request has come has completed its TLS handshake. */
static void
count_handshake(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	peer *p = info->socket_context;

	if (p == NULL || p->served)
		return;
	p->served = true;
	pthread_mutex_lock(&world_lock);
	if (server_has_tls)
		stats.tls_handshakes++;
	pthread_mutex_unlock(&world_lock);
}

static bool
is_form(struct MHD_Connection *connection)
{
	static const char type[] = "application/x-www-form-urlencoded";
	const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type");

	return value != NULL && strncasecmp(value, type, sizeof(type) - 1) == 0;
}

static request *
request_new(struct MHD_Connection *connection, const char *url, const char *method)
{
	request *r = need(malloc(sizeof(request)));

	*r = (request){
		.wait = {.connection = connection},
		.url = url,
		.method = method,
		.login = NO_LOGIN,
		.has_form = is_form(connection),
		.host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host"),
		.tls = server_has_tls,
		.authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization"),
	};
	form_init(&r->params);
	count_handshake(connection);
	return r;
}

static void
on_completed(void *unused, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode why)
{
	request *r = *context;

	(void) unused;
	(void) connection;
	(void) why;
	if (r == NULL)
		return;
	api_done(r);
	form_free(&r->params);
	buf_free(&r->input);
	buf_free(&r->reply.body);
	free(r);
	*context = NULL;
}

static void
request_input(request *r, const char *data, size_t len)
{
	if (r->input.len + len > INPUT_MAX)
		r->too_large = true;
	else
		buf_add(&r->input, data, len);
}

static enum MHD_Result
add_argument(void *of, enum MHD_ValueKind kind, const char *name, size_t name_len,
			 const char *value, size_t value_len)
{
	request *r = of;

	(void) kind;
	form_add(&r->params, (text){name, name_len}, (text){value, value_len});
	return MHD_YES;
}

static void
read_query(request *r)
{
	if (strcmp(r->method, "GET") == 0)
		MHD_get_connection_values_n(r->wait.connection, MHD_GET_ARGUMENT_KIND, add_argument, r);
}

static void
add_number_header(struct MHD_Response *response, const char *name, long value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%ld", value);
	MHD_add_response_header(response, name, digits);
}

/* If the clock is off, we set the Date header, else libmicrohttpd does. */
static void
add_date(struct MHD_Response *response, int64_t skew_s)
{
	char date[40];

	if (skew_s == 0)
		return;
	format_rfc2822(now_us() / US_PER_S + skew_s, "GMT", date);
	MHD_add_response_header(response, MHD_HTTP_HEADER_DATE, date);
}

static void
add_headers(struct MHD_Response *response, const request *r)
{
	const reply *answer = &r->reply;

	MHD_add_response_header(response, "Content-Type", answer->content_type);
	if (answer->concurrent > 0)
		add_number_header(response, "Twilio-Concurrent-Requests", answer->concurrent);
	if (answer->retry_after_s > 0)
		add_number_header(response, "Retry-After", answer->retry_after_s);
	if (answer->status == 401)
		MHD_add_response_header(response, "WWW-Authenticate", "Basic realm=\"Twilio API\"");
	add_date(response, r->skew_s);
}

/* Makes a response from the reply's body, and takes ownership of that. */
static struct MHD_Response *
whole_response(reply *answer)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		answer->body.len, answer->body.data, MHD_RESPMEM_MUST_FREE);

	answer->body = (buf){NULL, 0, 0};
	return response;
}

static enum MHD_Result
send_reply(request *r)
{
	struct MHD_Response *response;
	enum MHD_Result		 result;

	if (r->wait.gone || r->reply.style == REPLY_DROP || r->reply.style == REPLY_NEVER)
		return MHD_NO; /* closes the connection */
	if (r->reply.style == REPLY_WHOLE)
		response = whole_response(&r->reply);
	else
		response = stream_response(r);
	add_headers(need(response), r);
	result = MHD_queue_response(r->wait.connection, r->reply.status, response);
	MHD_destroy_response(response);
	return result;
}

/* Goes to the next stage; returns true if the request has to wait there. */
static bool
request_step(request *r)
{
	bool create = r->route.kind == ROUTE_CREATE;

	switch (r->stage++)
	{
		case STAGE_READ:
			read_query(r);
			api_begin(r);
			create = r->route.kind == ROUTE_CREATE && r->reply.status == 0;
			return create && wait_while_held(&r->wait, false);
		case STAGE_BEGUN:
			if (!r->wait.gone)
				api_finish(r);
			return create && !r->reply.at_once && wait_while_held(&r->wait, true);
		case STAGE_FINISHED:
			return r->delay_us > 0 && wait_until(&r->wait, monotonic_us() + r->delay_us);
		case STAGE_ANSWERED:
			return r->reply.style == REPLY_NEVER && wait_for_client(&r->wait);
		default:
			return false;
	}
}

static enum MHD_Result
request_go_on(request *r)
{
	while (r->stage < STAGE_DUE)
	{
		if (request_step(r))
			return MHD_YES;
	}
	return send_reply(r);
}

static enum MHD_Result
on_request(void *unused, struct MHD_Connection *connection, const char *url, const char *method,
		   const char *version, const char *upload, size_t *upload_len, void **context)
{
	request *r = *context;

	(void) unused;
	(void) version;
	if (r == NULL)
	{
		*context = request_new(connection, url, method);
		return MHD_YES;
	}
	if (*upload_len > 0)
	{
		request_input(r, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	return request_go_on(r);
}

void
server_start(int threads, const char *tls_cert, const char *tls_key)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_SUSPEND_RESUME |
					 MHD_USE_NO_LISTEN_SOCKET | MHD_USE_TURBO;
	struct MHD_OptionItem options[8];
	int					  count = 0;

	options[count++] = (struct MHD_OptionItem){MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, NULL};
	if (threads > 1)
		options[count++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, threads, NULL};
	if (tls_cert != NULL)
	{
		server_has_tls = true;
		flags |= MHD_USE_TLS;
		options[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0,
												   certificate = read_file(tls_cert)};
		options[count++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0,
												   private_key = read_file(tls_key)};
	}
	options[count] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
	server = MHD_start_daemon(flags, 0, NULL, NULL, on_request, NULL, MHD_OPTION_NOTIFY_COMPLETED,
							  on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
							  MHD_OPTION_ARRAY, options, MHD_OPTION_END);
	if (server == NULL)
		fatal("cannot start the server");
}

void
server_stop(void)
{
	MHD_stop_daemon(server);
	free(certificate);
	free(private_key);
}

void
server_take(int fd, const struct sockaddr *from, socklen_t len)
{
	MHD_add_connection(server, fd, from, len);
}
