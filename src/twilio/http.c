/*-------------------------------------------------------------------------
 *
 * http.c
 *	  Many HTTP requests in flight at once: libcurl's multi interface, waited
 *	  for together with the process latch.
 *
 * Four rules keep this safe inside a PostgreSQL process.
 *
 * No longjmp may pass through libcurl: callbacks never call anything that can
 * ereport, and write only into memory from malloc.
 *
 * libcurl must never repeat a request by itself.  It does so if a reused
 * connection dies before the first byte of the answer, even for a POST, and a
 * server that had accepted the message would get it twice.  So on_request(),
 * which libcurl calls each time just before a request's first byte leaves,
 * refuses the second time.  The same call tells us whether a failed request
 * can have reached the server at all.
 *
 * Each request has its own handle, created for it and freed after it; only
 * connections are reused.  That costs little, and nothing of an answer can
 * affect the next one.  In libcurl 7.84 to 8.0, a reused handle keeps a
 * pointer into the headers of its last answer, which are freed; the first
 * header line of the next answer dereferences it if it begins with a blank.
 *
 * Threads that libcurl starts (for name lookups) inherit our signal mask and
 * must not run PostgreSQL's handlers, so every call that can start one runs
 * with signals blocked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base64.h"
#include "compat.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "twilio/answer_headers.h"
#include "twilio/authorities.h"
#include "twilio/http.h"
#include "twilio/parking.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Memory that an idle exchange keeps, in bytes; a larger buffer is freed. */
#define KEEP_RESPONSE  (32 * 1024)
#define EVENTS_AT_ONCE 128

/* One request and its answer; reused, except for the handle. */
typedef struct Exchange
{
	dlist_node		   node; /* in idle_exchanges or busy_exchanges */
	CURL			  *easy; /* NULL if idle */
	void			  *tag;
	int				   begun; /* how often the request began to leave */
	Parked			   parked;
	char			  *user; /* the user to whom the headers belong; malloc'd */
	char			  *password;
	struct curl_slist *headers;
	StringInfoData	   body; /* of the request */
	AnswerHeaders	   answer_headers;
	bool			   headers_too_long;
	char			  *answer; /* malloc'd */
	size_t			   answer_length;
	size_t			   answer_size;
	size_t			   max_response;
	bool			   truncated;
	char			   error[CURL_ERROR_SIZE];
} Exchange;

/*
 * A connection's socket.  libcurl loses interest in it at the end of each
 * request, and regains it when the next one starts; epoll is not told about
 * that.
 */
typedef struct Socket
{
	bool   open;
	uint32 watched; /* by epoll: EPOLLIN, EPOLLOUT */
	uint32 wanted;	/* by libcurl */
} Socket;

static Socket		*sockets = NULL; /* indexed by descriptor, malloc'd */
static int			 num_sockets = 0;
static CURLM		*multi = NULL;
static CURLSH		*sessions = NULL; /* TLS sessions; NULL: none are resumed */
static int			 epoll_fd = -1;
static WaitEventSet *wait_set = NULL;
static dlist_head	 idle_exchanges = DLIST_STATIC_INIT(idle_exchanges);
static dlist_head	 busy_exchanges = DLIST_STATIC_INIT(busy_exchanges);
static Exchange		*given = NULL; /* what http_next() returned last */
static int			 in_flight = 0;
static instr_time	 timer_start;
static long			 timer_ms = -1; /* requested by libcurl; -1: none */

static void
block_signals(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* Returns the entry of a connection's socket; NULL for other descriptors. */
static Socket *
find_socket(curl_socket_t fd)
{
	return fd < num_sockets && sockets[fd].open ? &sockets[fd] : NULL;
}

/* Called when libcurl opens a connection for this request. */
static curl_socket_t
on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	Exchange	 *x = arg;
	curl_socket_t fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

	unpark(&x->parked);
	if (fd >= num_sockets)
	{
		int		wanted = Max(2 * num_sockets, fd + 64);
		Socket *larger = realloc(sockets, wanted * sizeof(Socket));

		if (larger == NULL)
		{
			close(fd);
			return CURL_SOCKET_BAD;
		}
		memset(larger + num_sockets, 0, (wanted - num_sockets) * sizeof(Socket));
		sockets = larger;
		num_sockets = wanted;
	}
	if (fd >= 0)
		sockets[fd] = (Socket){.open = true};
	return fd;
}

/* Called when libcurl closes a connection; epoll then forgets it by itself. */
static int
on_close(void *arg, curl_socket_t fd)
{
	if (find_socket(fd))
		sockets[fd].open = false;
	return close(fd);
}

static int
watch(curl_socket_t fd, uint32 events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (events == 0)
	{
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 &&
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -1;
	return 0;
}

/* Called when libcurl wants a socket to be watched, or no longer. */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	Socket *socket = find_socket(fd);
	uint32	events = 0;

	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EPOLLOUT;
	if (socket == NULL)
		return watch(fd, events);
	socket->wanted = events;
	if (events == 0 || events == socket->watched)
		return 0;
	socket->watched = events;
	return watch(fd, events);
}

/* For a connection without a request, when something happens on it. */
static void
stop_watching(curl_socket_t fd)
{
	sockets[fd].watched = 0;
	(void) watch(fd, 0);
}

/* Called when libcurl sets the time at which it wants to be called at the latest. */
static int
on_timer(CURLM *m, long ms, void *arg)
{
	timer_ms = ms;
	INSTR_TIME_SET_CURRENT(timer_start);
	return 0;
}

/* Called for a part of an answer's body, which is kept up to a limit. */
static size_t
on_answer(char *data, size_t size, size_t count, void *arg)
{
	Exchange *x = arg;
	size_t	  length = size * count;

	if (x->answer_length + length > x->max_response)
	{
		x->truncated = true;
		return 0; /* ends the transfer: nobody needs 64 MB */
	}
	if (x->answer_length + length > x->answer_size)
	{
		size_t wanted = Max(2 * x->answer_size, x->answer_length + length);
		char  *larger = realloc(x->answer, wanted);

		if (larger == NULL)
		{
			x->truncated = true;
			return 0;
		}
		x->answer = larger;
		x->answer_size = wanted;
	}
	memcpy(x->answer + x->answer_length, data, length);
	x->answer_length += length;
	return length;
}

/* Called for a header line of an answer, or a trailer. */
static size_t
on_header(char *data, size_t size, size_t count, void *arg)
{
	Exchange *x = arg;

	if (take_header(&x->answer_headers, data, size * count))
		return size * count;
	x->headers_too_long = true;
	return 0; /* ends the transfer */
}

/* Called just before a request's first byte leaves; allows that only once. */
static int
on_request(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	Exchange *x = arg;

	parked_begins(&x->parked);
	return x->begun++ == 0 ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static void
set_up_multi(void)
{
	multi = curl_multi_init();
	if (multi == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not initialize libcurl"),
				 errhint("Make sure that the worker can allocate more memory.")));
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);

	/* each request has a handle of its own, which would keep its TLS session to itself */
	sessions = curl_share_init();
	if (sessions)
		curl_share_setopt(sessions, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
}

void
http_init(void)
{
	Assert(multi == NULL);
	if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
				 errmsg("could not initialize libcurl"),
				 errhint("Check that libcurl and its TLS library are installed properly.")));
	set_up_multi();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not create an epoll descriptor: %m"),
				 errhint("Raise the limits on open files and epoll instances.")));
	ReserveExternalFD();
	wait_set = compat_create_wait_event_set(3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, epoll_fd, NULL, NULL);
}

/* Sets the options that are the same for all requests. */
static void
set_up_easy(Exchange *x)
{
	CURL *easy = x->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, x);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_answer);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, x);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, x);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);

	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SHARE, sessions);
}

/* Returns an idle or new exchange; NULL if descriptors or memory have run out. */
static Exchange *
get_exchange(void)
{
	Exchange	 *x;
	MemoryContext old;

	if (!dlist_is_empty(&idle_exchanges))
		return dlist_container(Exchange, node, dlist_pop_head_node(&idle_exchanges));

	/* each exchange may need its own connection, for as long as we live */
	if (!AcquireExternalFD())
		return NULL;
	x = MemoryContextAllocZero(TopMemoryContext, sizeof(Exchange));
	old = MemoryContextSwitchTo(TopMemoryContext);
	initStringInfo(&x->body);
	MemoryContextSwitchTo(old);
	return x;
}

/* Frees the handle and the memory of a large answer. */
static void
give_back(Exchange *x)
{
	curl_easy_cleanup(x->easy);
	x->easy = NULL;
	if (x->answer_size > KEEP_RESPONSE)
	{
		free(x->answer);
		x->answer = NULL;
		x->answer_size = 0;
	}
	dlist_push_head(&idle_exchanges, &x->node);
}

/* Returns "Authorization: Basic ...", palloc'd. */
static char *
authorization(const char *user, const char *password)
{
	char *plain = psprintf("%s:%s", user, password);
	int	  size = pg_b64_enc_len(strlen(plain)) + 1;
	char *encoded = palloc0(size);
	char *header;

	if (pg_b64_encode((void *) plain, strlen(plain), encoded, size) < 0)
		elog(ERROR, "could not encode credentials");
	header = psprintf("Authorization: Basic %s", encoded);
	pfree(plain);
	pfree(encoded);
	return header;
}

/*
 * Makes the request's headers, unless the last ones have the same credentials.
 * Returns false if memory has run out.
 */
static bool
make_headers(Exchange *x, const char *user, const char *password)
{
	struct curl_slist *headers;
	char			  *header;

	if (x->user && x->password && strcmp(x->user, user) == 0 && strcmp(x->password, password) == 0)
		return true;
	/* otherwise curl sends "Expect" for large bodies, and waits */
	headers = curl_slist_append(NULL, "Expect:");
	header = authorization(user, password);
	if (headers == NULL || curl_slist_append(headers, header) == NULL ||
		curl_slist_append(headers, "User-Agent: sendcampaign/" SENDCAMPAIGN_VERSION) == NULL)
	{
		curl_slist_free_all(headers);
		return false;
	}
	pfree(header);
	curl_slist_free_all(x->headers);
	x->headers = headers;
	free(x->user);
	free(x->password);
	x->user = strdup(user);
	x->password = strdup(password);
	return true;
}

/* Sets the request's body, if it has one. */
static void
set_body(Exchange *x, const HttpRequest *request)
{
	resetStringInfo(&x->body);
	if (request->body == NULL)
		return;
	appendBinaryStringInfo(&x->body, request->body, request->body_length);
	curl_easy_setopt(x->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, x->body.data);
	curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE, (long) x->body.len);
}

/*
 * Creates and sets up the handle; returns false if memory has run out.  Each
 * request has its own: see the top of this file.
 */
static bool
prepare(Exchange *x, const HttpRequest *request)
{
	x->easy = curl_easy_init();
	if (x->easy == NULL || !make_headers(x, request->user, request->password))
		return false;
	set_up_easy(x);
	if (curl_easy_setopt(x->easy, CURLOPT_URL, request->url) != CURLE_OK ||
		curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers) != CURLE_OK)
		return false;
	if (!set_authorities(x->easy, request->ca_file))
		return false;
	set_body(x, request);
	park(&x->parked, x->easy, request->url, request->timeout);
	curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, (long) request->timeout);
	curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS, (long) request->connect_timeout);

	x->tag = request->tag;
	x->begun = 0;
	forget_headers(&x->answer_headers);
	x->headers_too_long = false;
	x->answer_length = 0;
	x->max_response = request->max_response;
	x->truncated = false;
	x->error[0] = '\0';
	return true;
}

bool
http_start(const HttpRequest *request)
{
	Exchange *x = get_exchange();

	if (x == NULL)
		return false;
	/* it starts at the next http_wait() */
	if (!prepare(x, request) || curl_multi_add_handle(multi, x->easy) != CURLM_OK)
	{
		unpark(&x->parked);
		give_back(x);
		return false;
	}
	dlist_push_tail(&busy_exchanges, &x->node);
	in_flight++;
	return true;
}

/* Returns the time until libcurl wants to be called, in ms; -1: never. */
static long
timer_left(void)
{
	instr_time elapsed;

	if (timer_ms < 0)
		return -1;
	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, timer_start);
	return Max(0, timer_ms - (long) INSTR_TIME_GET_MILLISEC(elapsed));
}

/* Lets libcurl handle the sockets that are ready, and its timer if it is due. */
static void
perform(void)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int				   count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, 0);
	int				   running;
	sigset_t		   saved;

	block_signals(&saved);
	for (int i = 0; i < count; i++)
	{
		int		flags = 0;
		Socket *socket = find_socket(events[i].data.fd);

		if (socket && socket->wanted == 0)
		{
			stop_watching(events[i].data.fd);
			continue;
		}
		if (events[i].events & (EPOLLIN | EPOLLHUP))
			flags |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			flags |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			flags |= CURL_CSELECT_ERR;
		curl_multi_socket_action(multi, events[i].data.fd, flags, &running);
	}
	if (timer_left() == 0)
	{
		timer_ms = -1;
		curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	restore_signals(&saved);
}

bool
http_wait(long timeout)
{
	WaitEvent events[3];
	long	  curl_timeout = timer_left();
	int		  count;
	bool	  latch_set = false;

	if (curl_timeout >= 0 && (timeout < 0 || curl_timeout < timeout))
		timeout = curl_timeout;
	timeout = parking_wait(timeout);
	count = WaitEventSetWait(wait_set, timeout, events, lengthof(events), compat_wait_event());
	for (int i = 0; i < count; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			latch_set = true;
		}
	}
	perform();
	end_parking(multi);
	return latch_set;
}

static HttpResult
judge(const Exchange *x, CURLcode code)
{
	if (code == CURLE_OK)
		return HTTP_ANSWERED;
	if (x->begun == 0)
		return HTTP_NOT_SENT;
	return x->truncated ? HTTP_ANSWERED : HTTP_UNKNOWN;
}

/*
 * Leaves out how long something took, " after 12 ms": whoever compares what went
 * wrong with what went wrong before must find them to be the same.
 */
static void
leave_out_times(char *text)
{
	static const char		 after[] = " after ";
	static const char *const units[] = {" milliseconds", " ms"};

	while ((text = strstr(text, after)) != NULL)
	{
		char *end = text + strlen(after);

		end += strspn(end, "0123456789");
		for (int i = 0; i < lengthof(units); i++)
		{
			size_t length = strlen(units[i]);

			if (end > text + strlen(after) && strncmp(end, units[i], length) == 0)
			{
				memmove(text, end + length, strlen(end + length) + 1);
				break;
			}
		}
		text += *text != '\0';
	}
}

/* Describes what went wrong, for people; in libcurl's words if they are clear. */
static const char *
describe(Exchange *x, CURLcode code)
{
	if (code == CURLE_OK)
		return "";
	if (x->begun > 1)
		return "the connection was closed before an answer came";
	if (x->headers_too_long)
		return "the headers of the answer are too long";
	if (x->error[0] == '\0')
		return curl_easy_strerror(code);
	/* they quote what the server says, for example in its certificate */
	for (char *c = x->error; *c; c++)
	{
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	leave_out_times(x->error);
	return x->error;
}

/* Fills in the answer, without the values from its headers. */
static void
read_answer(Exchange *x, CURLcode code, HttpResponse *response)
{
	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &response->status);
	response->tag = x->tag;
	response->result = judge(x, code);
	response->body = x->answer;
	response->body_length = (int) x->answer_length;
	response->truncated = x->truncated;
	response->error = describe(x, code);
}

bool
http_next(HttpResponse *response)
{
	CURLMsg *msg;
	CURLcode code;
	int		 left;

	if (given)
		give_back(given);
	given = NULL;
	do
	{
		msg = curl_multi_info_read(multi, &left);
		if (msg == NULL)
			return false;
	} while (msg->msg != CURLMSG_DONE);

	code = msg->data.result; /* msg is invalid once the handle is removed */
	curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **) &given);
	read_answer(given, code, response);
	response->server_time = date_of_headers(&given->answer_headers);
	response->retry_after = retry_after_of_headers(&given->answer_headers);
	notice_verification(code);
	answer_came(&given->parked);
	curl_multi_remove_handle(multi, given->easy);
	dlist_delete(&given->node);
	in_flight--;
	return true;
}

/* Frees an idle exchange. */
static void
free_exchange(Exchange *x)
{
	dlist_delete(&x->node);
	curl_slist_free_all(x->headers);
	free(x->user);
	free(x->password);
	free(x->answer);
	pfree(x->body.data);
	pfree(x);
	ReleaseExternalFD();
}

static void
free_exchanges(void)
{
	if (given)
		give_back(given);
	given = NULL;
	while (!dlist_is_empty(&busy_exchanges))
	{
		Exchange *x = dlist_container(Exchange, node, dlist_pop_head_node(&busy_exchanges));

		unpark(&x->parked);
		curl_multi_remove_handle(multi, x->easy);
		give_back(x);
	}
	in_flight = 0;
	while (!dlist_is_empty(&idle_exchanges))
		free_exchange(dlist_container(Exchange, node, dlist_head_node(&idle_exchanges)));
}

void
http_stop(void)
{
	sigset_t saved;

	block_signals(&saved);
	free_exchanges();
	if (multi)
		curl_multi_cleanup(multi); /* closes the connections */
	if (sessions)
		curl_share_cleanup(sessions);
	restore_signals(&saved);
	multi = NULL;
	sessions = NULL;
	timer_ms = -1;
	if (wait_set)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
	if (epoll_fd < 0)
		return;
	close(epoll_fd);
	epoll_fd = -1;
	ReleaseExternalFD();
}

int
http_in_flight(void)
{
	return in_flight;
}

/* As defined in RFC 3986. */
static bool
is_unreserved(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
		   c == '.' || c == '_' || c == '~';
}

void
http_append_escaped(StringInfo buf, const char *value)
{
	static const char hex[] = "0123456789ABCDEF";
	int				  length = strlen(value);
	char			 *out;

	/* libcurl's own function grows its result byte by byte, which is slow for long texts */
	enlargeStringInfo(buf, 3 * length);
	out = buf->data + buf->len;
	for (const unsigned char *c = (const unsigned char *) value; *c; c++)
	{
		if (is_unreserved(*c))
			*out++ = *c;
		else
		{
			*out++ = '%';
			*out++ = hex[*c >> 4];
			*out++ = hex[*c & 15];
		}
	}
	*out = '\0';
	buf->len = out - buf->data;
}

void
http_append_form(StringInfo form, const char *key, const char *value)
{
	if (form->len > 0)
		appendStringInfoChar(form, '&');
	http_append_escaped(form, key);
	appendStringInfoChar(form, '=');
	http_append_escaped(form, value);
}

static bool
is_loopback(const char *host)
{
	struct in_addr address;

	if (strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return inet_pton(AF_INET, host, &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

bool
http_url_is_safe(const char *url)
{
	CURLU *parts = curl_url();
	char  *scheme = NULL;
	char  *host = NULL;
	char  *user = NULL;
	bool   safe = false;

	if (parts != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_NO_USER)
		safe = strcmp(scheme, "https") == 0 || (strcmp(scheme, "http") == 0 && is_loopback(host));
	curl_free(scheme);
	curl_free(host);
	curl_free(user);
	curl_url_cleanup(parts);
	return safe;
}
