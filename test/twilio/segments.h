/*
 * segments.h
 *		The number of segments of a body.
 */
#ifndef TWILIO_SEGMENTS_H
#define TWILIO_SEGMENTS_H

#include "text.h"

/* The text must be UTF-8; bytes that start no character count as U+FFFD. */
extern int count_segments(text body);

#endif
