/*
 * server.h
 *		The API port.
 */
#ifndef TWILIO_SERVER_H
#define TWILIO_SERVER_H

#include <stddef.h>
#include <sys/socket.h>

/* Starts the server, with TLS if there is a certificate; ends the program if that fails. */
extern void server_start(int threads, const char *tls_cert, const char *tls_key);
extern void server_stop(void);

/* Serves a connection, whose descriptor it takes over. */
extern void server_take(int fd, const struct sockaddr *from, socklen_t len);
extern void server_drop_connections(void);

#endif
