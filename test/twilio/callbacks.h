/*
 * callbacks.h
 *		What Twilio would have posted: the statuses of messages that were asked
 *		to be called back, and inbound messages.
 *
 * The caller must hold the world lock.
 */
#ifndef TWILIO_CALLBACKS_H
#define TWILIO_CALLBACKS_H

#include "messages.h"

/*
 * Whom to call back is in the extra parameters of a message, as
 * StatusCallback.  The further ones of an inbound message are posted, too.
 */
#define CALLBACK_PARAM "StatusCallback"

/* Appends all callbacks until now but for the first ones, a line each: URL, tab, form. */
extern void callbacks_write(buf *out, uint32_t since);

#endif
