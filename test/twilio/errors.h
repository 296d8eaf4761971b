/*
 * errors.h
 *		Error answers of the Twilio API.
 */
#ifndef TWILIO_ERRORS_H
#define TWILIO_ERRORS_H

#include "text.h"

/* Returns the HTTP status of answers with this code. */
extern unsigned error_status(int code);

/* Appends the answer with this code. */
extern void error_json(buf *out, int code);

/* Returns why a message was not delivered, in words; NULL if Twilio has none for the code. */
extern const char *delivery_error(int code);

#endif
