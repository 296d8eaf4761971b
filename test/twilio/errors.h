/*
 * errors.h
 *		Error answers of the Twilio API.
 */
#ifndef TWILIO_ERRORS_H
#define TWILIO_ERRORS_H

#include "text.h"

extern unsigned error_status(int code);
extern void		error_json(buf *out, int code);

#endif
