/*
 * control.c
 *		The control port: plain HTTP without credentials.
 *
 *	/stats	what was counted, as JSON
 *	/ledger	the accepted messages, in the format of the ledger file
 *	/count	the number of accepted messages that match to=, from= and body=
 *	/set	changes settings, by name=value in the query or in a form
 *	/inbound	adds a received message: account=, from=, to=, body=, service=
 *	/callbacks	what Twilio would have posted, but for the first since=
 */
#include "control.h"
#include "callbacks.h"
#include "form.h"
#include "inbound.h"
#include "listener.h"
#include "messages.h"
#include "server.h"
#include "settings.h"
#include "stats.h"
#include "world.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

typedef struct call
{
	buf	 input;
	form params;
} call;

/* the ledger while it is streamed */
typedef struct ledger_reader
{
	uint32_t generation;
	uint32_t next;
	buf		 lines;
	size_t	 sent; /* how much of lines has been sent */
} ledger_reader;

static struct MHD_Daemon *control;

static enum MHD_Result
send_buf(struct MHD_Connection *connection, unsigned status, buf *content, const char *type)
{
	struct MHD_Response *response = need(
		MHD_create_response_from_buffer(content->len, content->data, MHD_RESPMEM_MUST_FREE));
	enum MHD_Result result;

	MHD_add_response_header(response, "Content-Type", type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
send_line(struct MHD_Connection *connection, unsigned status, const char *line, text about)
{
	buf out = {NULL, 0, 0};

	buf_string(&out, line);
	buf_text(&out, about);
	buf_char(&out, '\n');
	return send_buf(connection, status, &out, "text/plain");
}

static enum MHD_Result
answer_stats(struct MHD_Connection *connection)
{
	buf out = {NULL, 0, 0};

	pthread_mutex_lock(&world_lock);
	stats_json(&out);
	pthread_mutex_unlock(&world_lock);
	return send_buf(connection, 200, &out, "application/json");
}

/* Gets some more lines; a reset ends the ledger. */
static void
ledger_fill(ledger_reader *reader, size_t wanted)
{
	reader->lines.len = 0;
	reader->sent = 0;
	pthread_mutex_lock(&world_lock);
	while (reader->lines.len < wanted && reader->generation == messages_generation() &&
		   reader->next < messages_count())
	{
		const message *m = message_at(reader->next++);

		if (m->kind == MESSAGE_API)
			message_ledger_line(&reader->lines, m);
	}
	pthread_mutex_unlock(&world_lock);
}

static ssize_t
ledger_read(void *of, uint64_t pos, char *to, size_t max)
{
	ledger_reader *reader = of;
	size_t		   len;

	(void) pos;
	if (reader->sent == reader->lines.len)
		ledger_fill(reader, max);
	len = reader->lines.len - reader->sent;
	if (len == 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	len = len < max ? len : max;
	memcpy(to, reader->lines.data + reader->sent, len);
	reader->sent += len;
	return len;
}

static void
ledger_end(void *of)
{
	ledger_reader *reader = of;

	buf_free(&reader->lines);
	free(reader);
}

static enum MHD_Result
answer_ledger(struct MHD_Connection *connection)
{
	ledger_reader		*reader = need(calloc(1, sizeof(ledger_reader)));
	struct MHD_Response *response;
	enum MHD_Result		 result;

	pthread_mutex_lock(&world_lock);
	reader->generation = messages_generation();
	pthread_mutex_unlock(&world_lock);
	response = need(MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, ledger_read, reader,
													  ledger_end));
	MHD_add_response_header(response, "Content-Type", "text/tab-separated-values");
	result = MHD_queue_response(connection, 200, response);
	MHD_destroy_response(response);
	return result;
}

static bool
filter_matches(text filter, text value)
{
	return filter.data == NULL || text_equal(filter, value);
}

static long
count_messages(text to, text from, text body)
{
	long	 count = 0;
	message *m;

	pthread_mutex_lock(&world_lock);
	for (uint32_t i = 0; (m = message_at(i)) != NULL; i++)
	{
		if (m->kind == MESSAGE_API && filter_matches(to, message_to(m)) &&
			filter_matches(from, message_from(m)) && filter_matches(body, message_body(m)))
			count++;
	}
	pthread_mutex_unlock(&world_lock);
	return count;
}

static enum MHD_Result
answer_count(struct MHD_Connection *connection, const form *params)
{
	buf out = {NULL, 0, 0};

	buf_int(&out, count_messages(form_get(params, "to"), form_get(params, "from"),
								 form_get(params, "body")));
	buf_char(&out, '\n');
	return send_buf(connection, 200, &out, "text/plain");
}

static void
reset_all(void)
{
	messages_reset();
	stats_reset();
}

/* A plus that was not encoded has become a space. */
static text
restore_plus(text value, char **copy)
{
	if (value.len == 0 || value.data[0] != ' ')
		return value;
	*copy = text_copy(value);
	(*copy)[0] = '+';
	return (text){*copy, value.len};
}

static bool
set_locked(text name, text value)
{
	char *copy = NULL;
	bool  known = true;

	value = restore_plus(value, &copy);
	pthread_mutex_lock(&world_lock);
	if (text_is(name, "reset"))
		reset_all();
	else
		known = settings_change(name, value);
	pthread_mutex_unlock(&world_lock);
	free(copy);
	return known;
}

static bool
set_one(text name, text value)
{
	if (text_is(name, "refuse"))
		listener_refuse(!text_is(value, "0"));
	else if (text_is(name, "drop"))
		server_drop_connections();
	else
		return set_locked(name, value);
	return true;
}

static enum MHD_Result
answer_set(struct MHD_Connection *connection, const form *params)
{
	for (int i = 0; i < params->count; i++)
	{
		const param *p = &params->items[i];

		if (!set_one(p->name, p->value))
			return send_line(connection, 400, "bad setting: ", p->name);
	}
	return send_line(connection, 200, "ok", text_of(""));
}

/* Restores such a plus in the numbers; the caller frees the copies. */
static void
restore_numbers(form *params, char *copies[2])
{
	static const char *const names[] = {"from", "to"};

	for (int i = 0; i < params->count; i++)
	{
		for (int j = 0; j < 2; j++)
		{
			if (copies[j] == NULL && text_is(params->items[i].name, names[j]))
				params->items[i].value = restore_plus(params->items[i].value, &copies[j]);
		}
	}
}

static enum MHD_Result
answer_inbound(struct MHD_Connection *connection, form *params)
{
	char		  *copies[2] = {NULL, NULL};
	char		   sid[SID_LEN + 1] = "";
	const message *m;

	restore_numbers(params, copies);
	pthread_mutex_lock(&world_lock);
	m = inbound_add(params);
	if (m != NULL)
		message_sid(m, sid);
	pthread_mutex_unlock(&world_lock);
	free(copies[0]);
	free(copies[1]);
	if (m == NULL)
		return send_line(connection, 400, "needs an account that exists, from and to", text_of(""));
	return send_line(connection, 200, sid, text_of(""));
}

static enum MHD_Result
answer_callbacks(struct MHD_Connection *connection, const form *params)
{
	buf	   out = {NULL, 0, 0};
	double since = 0;
	text   since_text = form_get(params, "since");

	if (since_text.data != NULL && (!text_number(since_text, &since) || since < 0))
		return send_line(connection, 400, "since is not a number", text_of(""));
	pthread_mutex_lock(&world_lock);
	callbacks_write(&out, since < UINT32_MAX ? since : UINT32_MAX);
	pthread_mutex_unlock(&world_lock);
	return send_buf(connection, 200, &out, "text/tab-separated-values");
}

static enum MHD_Result
add_argument(void *of, enum MHD_ValueKind kind, const char *name, size_t name_len,
			 const char *value, size_t value_len)
{
	(void) kind;
	form_add(of, (text){name, name_len}, (text){value, value_len});
	return MHD_YES;
}

static enum MHD_Result
answer(struct MHD_Connection *connection, const char *url, call *c)
{
	MHD_get_connection_values_n(connection, MHD_GET_ARGUMENT_KIND, add_argument, &c->params);
	form_parse(&c->params, c->input.data, c->input.len);
	if (strcmp(url, "/stats") == 0)
		return answer_stats(connection);
	if (strcmp(url, "/ledger") == 0)
		return answer_ledger(connection);
	if (strcmp(url, "/count") == 0)
		return answer_count(connection, &c->params);
	if (strcmp(url, "/set") == 0)
		return answer_set(connection, &c->params);
	if (strcmp(url, "/inbound") == 0)
		return answer_inbound(connection, &c->params);
	if (strcmp(url, "/callbacks") == 0)
		return answer_callbacks(connection, &c->params);
	return send_line(connection, 404, "no such path", text_of(""));
}

static enum MHD_Result
on_request(void *unused, struct MHD_Connection *connection, const char *url, const char *method,
		   const char *version, const char *upload, size_t *upload_len, void **context)
{
	call *c = *context;

	(void) unused;
	(void) method;
	(void) version;
	if (c == NULL)
	{
		*context = c = need(calloc(1, sizeof(call)));
		form_init(&c->params);
		return MHD_YES;
	}
	if (*upload_len > 0)
	{
		buf_add(&c->input, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	return answer(connection, url, c);
}

static void
on_completed(void *unused, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode why)
{
	call *c = *context;

	(void) unused;
	(void) connection;
	(void) why;
	if (c == NULL)
		return;
	form_free(&c->params);
	buf_free(&c->input);
	free(c);
	*context = NULL;
}

/* Starts the control port, and returns its number. */
int
control_start(int port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr = {htonl(INADDR_LOOPBACK)},
	};

	control = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, port, NULL, NULL,
							   on_request, NULL, MHD_OPTION_SOCK_ADDR, &address,
							   MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_NOTIFY_COMPLETED,
							   on_completed, NULL, MHD_OPTION_END);
	if (control == NULL)
		fatal("cannot start the control port %d", port);
	return MHD_get_daemon_info(control, MHD_DAEMON_INFO_BIND_PORT)->port;
}

void
control_stop(void)
{
	MHD_stop_daemon(control);
}
