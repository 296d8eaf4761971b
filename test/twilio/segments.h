/*
 * segments.h
 *		How many segments a body takes.
 */
#ifndef TWILIO_SEGMENTS_H
#define TWILIO_SEGMENTS_H

#include "text.h"

extern int count_segments(text body);

#endif
