/*
 * message_json.h
 *		A message as the API shows it.
 */
#ifndef TWILIO_MESSAGE_JSON_H
#define TWILIO_MESSAGE_JSON_H

#include "messages.h"

/* Appends the message; just_created is true in the answer to its create request. */
extern void message_json(buf *out, const message *m, bool just_created);

#endif
