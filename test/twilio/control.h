/*
 * control.h
 *		The control port.
 */
#ifndef TWILIO_CONTROL_H
#define TWILIO_CONTROL_H

/* Starts the control port (0: any), and returns its number; ends the program if that fails. */
extern int	control_start(int port);
extern void control_stop(void);

#endif
