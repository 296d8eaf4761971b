/*
 * stream.h
 *		Answers that do not leave in one piece.
 */
#ifndef TWILIO_STREAM_H
#define TWILIO_STREAM_H

#include "request.h"

/* Makes such a response; r must outlive it. */
extern struct MHD_Response *stream_response(request *r);

#endif
