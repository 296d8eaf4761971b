/*-------------------------------------------------------------------------
 *
 * floor_http.c
 *	  How fast can libcurl make the extension's requests if nothing else is
 *	  done?
 *
 *	  floor_http URL USER:PASSWORD REQUESTS IN_FLIGHT [CA_FILE]
 *
 * The requests, the options of the handles and the event loop are those of
 * src/twilio/http.c; the answers are read and discarded.  Prints the number of
 * requests, the seconds that they took, and the seconds of CPU time.
 *
 *-------------------------------------------------------------------------
 */
#include <curl/curl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#define EVENTS_AT_ONCE 128

/* The text is that of bench.create_campaign(), in schema.sql. */
#define FORM                                                                                       \
	"To=%%2B1555%07ld&From=%%2B15005550006&Body=How%%20was%%20the%%20"                             \
	"meeting%%3F%%20Three%%20questions%%3A%%20https%%3A%%2F%%2Fexample"                            \
	".org%%2Fsurvey%%3Fyu%%3D%ld%%26yc%%3D1"

typedef struct Exchange
{
	CURL *easy;
	char  form[256];
} Exchange;

static CURLM *multi;
static int	  epoll_fd;
static double timer_at = -1; /* when libcurl wants to be called; -1: never */
static long	  wanted;		 /* requests */
static long	  started = 0;
static long	  answered = 0;

static void
fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double
cpu_time(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6 + usage.ru_stime.tv_sec +
		   usage.ru_stime.tv_usec / 1e6;
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {.data.fd = fd};

	(void) easy, (void) arg, (void) known;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 &&
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -1;
	return 0;
}

static int
on_timer(CURLM *m, long ms, void *arg)
{
	(void) m, (void) arg;
	timer_at = ms < 0 ? -1 : now() + ms / 1e3;
	return 0;
}

static size_t
on_answer(char *data, size_t size, size_t count, void *arg)
{
	(void) data, (void) arg;
	return size * count;
}

static void
set_up_multi(void)
{
	multi = curl_multi_init();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (multi == NULL || epoll_fd < 0)
		fatal("could not initialize");
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
}

static void
set_up_easy(Exchange *x, const char *url, const char *userpwd, const char *ca_file)
{
	static struct curl_slist *headers = NULL;

	if (headers == NULL)
		headers = curl_slist_append(NULL, "Expect:");
	x->easy = curl_easy_init();
	curl_easy_setopt(x->easy, CURLOPT_URL, url);
	curl_easy_setopt(x->easy, CURLOPT_USERPWD, userpwd);
	curl_easy_setopt(x->easy, CURLOPT_CAINFO, ca_file);
	curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x);
	curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_answer);
	curl_easy_setopt(x->easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
	curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(x->easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(x->easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(x->easy, CURLOPT_USERAGENT, "sendcampaign/1.0");
	curl_easy_setopt(x->easy, CURLOPT_PIPEWAIT, (long) (strncmp(url, "https:", 6) == 0));
	curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, 35000L);
	curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
}

static void
start(Exchange *x)
{
	int length;

	if (started == wanted)
		return;
	started++;
	length = snprintf(x->form, sizeof(x->form), FORM, started, started);
	curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, x->form);
	curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE, (long) length);
	if (curl_multi_add_handle(multi, x->easy) != CURLM_OK)
		fatal("could not start a request");
}

/* Checks the complete answers, and starts a new request for each. */
static void
take_answers(void)
{
	CURLMsg *msg;
	int		 left;

	while ((msg = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	 *easy = msg->easy_handle;
		Exchange *x;
		long	  status;

		if (msg->data.result != CURLE_OK)
			fatal("request failed: %s", curl_easy_strerror(msg->data.result));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 201)
			fatal("the server answers %ld", status);
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &x);
		curl_multi_remove_handle(multi, easy);
		answered++;
		start(x);
	}
}

/* Returns how long libcurl lets us wait, in ms. */
static int
wait_time(void)
{
	double left = (timer_at - now()) * 1e3;

	if (timer_at < 0)
		return -1;
	return left > 0 ? (int) left + 1 : 0;
}

static void
wait_and_perform(void)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	int				   count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, wait_time());
	int				   running;

	for (int i = 0; i < count; i++)
	{
		int flags = 0;

		if (events[i].events & (EPOLLIN | EPOLLHUP))
			flags |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			flags |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			flags |= CURL_CSELECT_ERR;
		curl_multi_socket_action(multi, events[i].data.fd, flags, &running);
	}
	if (timer_at >= 0 && timer_at <= now())
	{
		timer_at = -1;
		curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

int
main(int argc, char **argv)
{
	Exchange *exchanges;
	int		  in_flight;
	double	  begin;
	double	  cpu_begin;

	if (argc < 5)
		fatal("usage: floor_http URL USER:PASSWORD REQUESTS IN_FLIGHT [CA_FILE]");
	wanted = atol(argv[3]);
	in_flight = atoi(argv[4]);
	exchanges = calloc(in_flight, sizeof(Exchange));
	curl_global_init(CURL_GLOBAL_ALL);
	set_up_multi();

	begin = now();
	cpu_begin = cpu_time();
	for (int i = 0; i < in_flight; i++)
	{
		set_up_easy(&exchanges[i], argv[1], argv[2], argv[5]);
		start(&exchanges[i]);
	}
	while (answered < wanted)
	{
		wait_and_perform();
		take_answers();
	}
	printf("%ld %.6f %.6f\n", wanted, now() - begin, cpu_time() - cpu_begin);
	return 0;
}
