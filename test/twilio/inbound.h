/*
 * inbound.h
 *		Messages that are received, because a test says so.
 *
 * The caller must hold the world lock.
 */
#ifndef TWILIO_INBOUND_H
#define TWILIO_INBOUND_H

#include "form.h"
#include "messages.h"

/*
 * Adds a message from the parameters account, from, to, body and service;
 * those that begin with a capital letter are for its callback.  Returns NULL
 * if the account does not exist, or a number is missing or too long.
 */
extern message *inbound_add(const form *params);

#endif
