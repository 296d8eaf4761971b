/*
 * listener.h
 *		The listening socket of the API port.
 */
#ifndef TWILIO_LISTENER_H
#define TWILIO_LISTENER_H

#include <stdbool.h>

/* Listens on a port (0: any), and returns its number. */
extern int listener_open(int port);

/* Accepts connections until a signal comes, or if wanted, until stdin ends. */
extern void listener_run(bool die_with_stdin, int signals);

/* Refuses connections, or accepts them again.  Waits until that is done. */
extern void listener_refuse(bool refuse);

#endif
