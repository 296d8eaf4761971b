/*
 * content.h
 *		Content templates, which a create request names with ContentSid.
 *
 * The caller must hold the world lock.
 */
#ifndef TWILIO_CONTENT_H
#define TWILIO_CONTENT_H

#include "text.h"

/* Takes SID=TEXT, where the text may have {{NAME}}; false if the form is wrong. */
extern bool content_set(text sid_and_text);

/*
 * Appends the template's text with the variables, a JSON object of strings
 * (absent: none).  Returns 0, or Twilio's code of the error.
 */
extern int content_render(buf *out, text sid, text variables);

#endif
