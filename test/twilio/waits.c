/*
 * waits.c
 *		Requests that wait, and the one thread that wakes them.
 *
 * Waits that end at a known time are in a heap.  The others are in a list:
 * since nobody reads from a suspended connection, the thread checks their
 * sockets every few milliseconds to see whether the client is still there.
 */
#include "waits.h"
#include "clock.h"
#include "text.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define LOOK_EVERY_US 10000

/* requests due this soon are woken together with those due now */
#define BATCH_US 50

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  changed;
static pthread_t	   thread;
static bool			   stopping;

static waiter **heap;
static int		heap_count;
static int		heap_cap;

static waiter *watched; /* held, or never answered */
static int	   watched_count;
static bool	   holding;
static bool	   holding_after;

static void
heap_put(int at, waiter *w)
{
	while (at > 0 && heap[(at - 1) / 2]->due_us > w->due_us)
	{
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = w;
}

static void
heap_push(waiter *w)
{
	if (heap_count == heap_cap)
	{
		heap_cap = heap_cap == 0 ? 256 : heap_cap * 2;
		heap = need(realloc(heap, heap_cap * sizeof(waiter *)));
	}
	heap_put(heap_count++, w);
}

static waiter *
heap_pop(void)
{
	waiter *first = heap[0];
	waiter *last = heap[--heap_count];
	int		at = 0;

	for (int child = 1; child < heap_count; child = 2 * at + 1)
	{
		if (child + 1 < heap_count && heap[child + 1]->due_us < heap[child]->due_us)
			child++;
		if (last->due_us <= heap[child]->due_us)
			break;
		heap[at] = heap[child];
		at = child;
	}
	if (heap_count > 0)
		heap[at] = last;
	return first;
}

/* Moves what is due from the heap to the batch. */
static waiter *
collect_due(waiter *batch, int64_t now)
{
	while (heap_count > 0 && (stopping || heap[0]->due_us <= now + BATCH_US))
	{
		waiter *w = heap_pop();

		w->next = batch;
		batch = w;
	}
	return batch;
}

/* Finds out which clients of the watched requests have left. */
static void
look_for_clients(void)
{
	struct pollfd *fds = need(calloc(watched_count + 1, sizeof(*fds)));
	int			   i = 0;

	for (waiter *w = watched; w != NULL; w = w->next)
		fds[i++] = (struct pollfd){w->fd, POLLRDHUP, 0};
	poll(fds, i, 0);
	i = 0;
	for (waiter *w = watched; w != NULL; w = w->next)
		w->gone = fds[i++].revents != 0;
	free(fds);
}

/* Moves those whose wait is over from the watched ones to the batch. */
static waiter *
collect_watched(waiter *batch)
{
	waiter **link = &watched;

	while (*link != NULL)
	{
		waiter *w = *link;

		if (!w->gone && !stopping && !(w->held && !holding))
		{
			link = &w->next;
			continue;
		}
		*link = w->next;
		watched_count--;
		w->next = batch;
		batch = w;
	}
	return batch;
}

static void
resume_batch(waiter *batch)
{
	while (batch != NULL)
	{
		waiter *w = batch;

		batch = w->next; /* w may be freed once resumed */
		MHD_resume_connection(w->connection);
	}
}

/* Sleeps until something is due, or until the lists change. */
static void
sleep_until_due(int64_t now)
{
	int64_t			until = now + 10 * US_PER_S;
	struct timespec ts;

	if (watched != NULL)
		until = now + LOOK_EVERY_US;
	if (heap_count > 0 && heap[0]->due_us < until)
		until = heap[0]->due_us;
	ts.tv_sec = until / US_PER_S;
	ts.tv_nsec = until % US_PER_S * 1000;
	pthread_cond_timedwait(&changed, &lock, &ts);
}

static void *
waits_main(void *unused)
{
	(void) unused;
	pthread_mutex_lock(&lock);
	for (;;)
	{
		int64_t now = monotonic_us();
		waiter *batch = collect_due(NULL, now);

		if (watched != NULL)
		{
			look_for_clients();
			batch = collect_watched(batch);
		}
		if (batch != NULL)
		{
			pthread_mutex_unlock(&lock);
			resume_batch(batch);
			pthread_mutex_lock(&lock);
		}
		else if (stopping)
			break;
		else
			sleep_until_due(now);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

void
waits_start(void)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&changed, &attributes);
	pthread_condattr_destroy(&attributes);
	if (pthread_create(&thread, NULL, waits_main, NULL) != 0)
		fatal("cannot start a thread");
}

/* Ends all waits, and refuses later ones, so that the server can stop. */
void
waits_stop(void)
{
	pthread_mutex_lock(&lock);
	stopping = true;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	free(heap);
}

void
waits_set_hold(bool hold)
{
	pthread_mutex_lock(&lock);
	holding = hold;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

void
waits_set_hold_after(bool after)
{
	pthread_mutex_lock(&lock);
	holding_after = after;
	pthread_mutex_unlock(&lock);
}

bool
wait_until(waiter *w, int64_t due_us)
{
	bool waits;

	pthread_mutex_lock(&lock);
	waits = !stopping;
	if (waits)
	{
		MHD_suspend_connection(w->connection);
		w->due_us = due_us;
		heap_push(w);
		if (heap[0] == w)
			pthread_cond_signal(&changed);
	}
	pthread_mutex_unlock(&lock);
	return waits;
}

/* Adds the waiter to the watched ones; the caller holds the lock. */
static void
watch(waiter *w, bool held)
{
	MHD_suspend_connection(w->connection);
	w->fd = MHD_get_connection_info(w->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	w->held = held;
	w->next = watched;
	watched = w;
	watched_count++;
	pthread_cond_signal(&changed);
}

/* Waits if there is a hold of that kind: before or after accepting. */
bool
wait_while_held(waiter *w, bool after)
{
	bool waits;

	pthread_mutex_lock(&lock);
	waits = holding && holding_after == after && !stopping;
	if (waits)
		watch(w, true);
	pthread_mutex_unlock(&lock);
	return waits;
}

bool
wait_for_client(waiter *w)
{
	bool waits;

	pthread_mutex_lock(&lock);
	waits = !stopping;
	if (waits)
		watch(w, false);
	pthread_mutex_unlock(&lock);
	return waits;
}
