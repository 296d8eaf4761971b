/*
 * control.h
 *		The control port.
 */
#ifndef TWILIO_CONTROL_H
#define TWILIO_CONTROL_H

extern int	control_start(int port);
extern void control_stop(void);

#endif
