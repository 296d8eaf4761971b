/*
 * smart.h
 *		Smart encoding: characters that would cost more than their likenesses.
 */
#ifndef TWILIO_SMART_H
#define TWILIO_SMART_H

#include "text.h"

/* Appends the text with curly quotes, dashes and their like replaced. */
extern void smart_encode(buf *out, text body);

#endif
