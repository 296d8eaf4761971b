/*
 * listener.c
 *		The listening socket of the API port, and the loop of the main thread
 *		that accepts connections until the program is told to end.
 *
 * The socket can be closed for a while, so that the kernel refuses
 * connections, and opened again on the same port.
 */
#include "listener.h"
#include "server.h"
#include "text.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_fd = -1;
static int listen_port;

/* refuse is what was requested; refusing is the current state */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  changed = PTHREAD_COND_INITIALIZER;
static int			   wake_fd = -1;
static bool			   refuse;
static bool			   refusing;

static struct sockaddr_in
local_address(int port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr = {htonl(INADDR_LOOPBACK)},
	};
}

static bool
try_listen(int port)
{
	struct sockaddr_in address = local_address(port);
	int				   on = 1;

	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return bind(listen_fd, (struct sockaddr *) &address, sizeof(address)) == 0 &&
		   listen(listen_fd, 4096) == 0;
}

/* Listens, and returns the port. */
int
listener_open(int port)
{
	struct sockaddr_in address;
	socklen_t		   len = sizeof(address);

	if (!try_listen(port))
		fatal("cannot listen on port %d", port);
	getsockname(listen_fd, (struct sockaddr *) &address, &len);
	listen_port = ntohs(address.sin_port);
	wake_fd = eventfd(0, EFD_CLOEXEC);
	return listen_port;
}

/* Makes the main thread close or open the socket, and waits until it has. */
void
listener_refuse(bool wanted)
{
	uint64_t one = 1;

	pthread_mutex_lock(&lock);
	refuse = wanted;
	if (write(wake_fd, &one, sizeof(one)) != sizeof(one))
		fatal("cannot wake the main thread");
	while (refusing != wanted)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void
apply_refuse(void)
{
	uint64_t count;

	if (read(wake_fd, &count, sizeof(count)) != sizeof(count))
		fatal("cannot read from an eventfd");
	pthread_mutex_lock(&lock);
	if (refuse && !refusing)
		close(listen_fd);
	else if (!refuse && refusing && !try_listen(listen_port))
		fatal("cannot listen on port %d again", listen_port);
	refusing = refuse;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&lock);
}

static void
accept_all(void)
{
	for (;;)
	{
		struct sockaddr_in from;
		socklen_t		   len = sizeof(from);
		int				   on = 1;
		int fd = accept4(listen_fd, (struct sockaddr *) &from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			break;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		server_take(fd, (struct sockaddr *) &from, len);
	}
}

/* Returns whether stdin has ended; discards its input. */
static bool
stdin_ended(void)
{
	char bytes[256];

	return read(STDIN_FILENO, bytes, sizeof(bytes)) <= 0;
}

/* Accepts until a signal comes, or if die_with_stdin, until stdin ends. */
void
listener_run(bool die_with_stdin, int signals)
{
	for (;;)
	{
		struct pollfd fds[4] = {
			{refusing ? -1 : listen_fd, POLLIN, 0},
			{wake_fd, POLLIN, 0},
			{signals, POLLIN, 0},
			{die_with_stdin ? STDIN_FILENO : -1, POLLIN, 0},
		};

		poll(fds, 4, -1);
		if (fds[2].revents != 0 || (fds[3].revents != 0 && stdin_ended()))
			break;
		if (fds[1].revents != 0)
			apply_refuse();
		else if (fds[0].revents != 0)
			accept_all();
	}
}
