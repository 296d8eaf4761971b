/*
 * listener.h
 *		The listening socket of the API port.
 */
#ifndef TWILIO_LISTENER_H
#define TWILIO_LISTENER_H

#include <stdbool.h>

extern int	listener_open(int port);
extern void listener_run(bool die_with_stdin, int signals);
extern void listener_refuse(bool refuse);

#endif
