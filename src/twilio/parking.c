/*-------------------------------------------------------------------------
 *
 * parking.c
 *	  Requests that wait for the first connection to a host, to share it.
 *
 * Over HTTP/2, one connection serves all requests.  With CURLOPT_PIPEWAIT, a
 * request that finds a connection being opened waits until its protocol is
 * known.  From libcurl 8.20 on, it keeps waiting over HTTP/1.1, too, until the
 * first request has been answered, and then the requests go one by one.  So we
 * let a request wait only if its host is not known to speak HTTP/1.1, and end
 * the waiting if one request has begun and none has followed it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "twilio/parking.h"

/* Over HTTP/2, all requests begin within one or two rounds of libcurl. */
#define WAIT_MS		100
#define WAIT_ROUNDS 5

/* Scheme, host and port that last spoke HTTP/1.1 over TLS; "" for none. */
static char single_origin[300];

static dlist_head parked = DLIST_STATIC_INIT(parked);
static instr_time last_begin; /* of a request that was asked to wait */
static int		  rounds;	  /* since last_begin; -1: none has begun */

/* Returns the length of "https://host:port/"; 0 if the URL has none. */
static size_t
origin_length(const char *url)
{
	const char *host = strstr(url, "://");
	const char *path = host ? strchr(host + 3, '/') : NULL;

	return path ? path - url + 1 : 0;
}

static bool
is_single(const char *url)
{
	return single_origin[0] && strncmp(url, single_origin, strlen(single_origin)) == 0;
}

static void
remember_single(CURL *easy)
{
	char  *url = NULL;
	size_t length;

	if (curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url) != CURLE_OK || url == NULL)
		return;
	length = origin_length(url);
	if (length < sizeof(single_origin))
		strlcpy(single_origin, url, length + 1);
}

void
park(Parked *request, CURL *easy, const char *url, long timeout)
{
	request->easy = easy;
	request->timeout = timeout;
	request->tls = strncmp(url, "https:", 6) == 0;
	request->asked = request->tls && !is_single(url);
	request->parked = request->asked;
	/*
	 * If a status line says HTTP/2 on a connection without TLS, libcurl 7.88
	 * puts several requests on it at once, and mixes up the answers.
	 */
	if (!request->tls)
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	if (!request->asked)
		return;
	INSTR_TIME_SET_CURRENT(request->started);
	if (dlist_is_empty(&parked))
		rounds = -1;
	dlist_push_tail(&parked, &request->node);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
}

void
unpark(Parked *request)
{
	if (request->parked)
		dlist_delete(&request->node);
	request->parked = false;
}

void
parked_begins(Parked *request)
{
	unpark(request);
	if (!request->asked)
		return;
	INSTR_TIME_SET_CURRENT(last_begin);
	rounds = 0;
}

void
answer_came(Parked *request)
{
	long version = 0;

	unpark(request);
	if (!request->tls ||
		curl_easy_getinfo(request->easy, CURLINFO_HTTP_VERSION, &version) != CURLE_OK)
		return;
	if (version >= CURL_HTTP_VERSION_2_0)
		single_origin[0] = '\0';
	else if (request->asked && version != CURL_HTTP_VERSION_NONE)
		remember_single(request->easy);
}

/* Returns the time since then, in ms. */
static long
elapsed(instr_time then)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, then);
	return (long) INSTR_TIME_GET_MILLISEC(now);
}

long
parking_wait(long timeout)
{
	long most = WAIT_MS / WAIT_ROUNDS;

	if (dlist_is_empty(&parked) || rounds < 0)
		return timeout;
	return timeout < 0 ? most : Min(timeout, most);
}

/* Starts a request again without waiting; nothing of it has left yet. */
static void
go_on(Parked *request, CURLM *multi)
{
	long left = Max(1, request->timeout - elapsed(request->started));

	unpark(request);
	curl_multi_remove_handle(multi, request->easy);
	curl_easy_setopt(request->easy, CURLOPT_PIPEWAIT, 0L);
	curl_easy_setopt(request->easy, CURLOPT_TIMEOUT_MS, left);
	if (curl_multi_add_handle(multi, request->easy) != CURLM_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
}

void
end_parking(CURLM *multi)
{
	dlist_mutable_iter iter;

	if (dlist_is_empty(&parked) || rounds < 0 || ++rounds < WAIT_ROUNDS ||
		elapsed(last_begin) < WAIT_MS)
		return;
	remember_single(dlist_container(Parked, node, dlist_head_node(&parked))->easy);
	dlist_foreach_modify (iter, &parked)
		go_on(dlist_container(Parked, node, iter.cur), multi);
}
