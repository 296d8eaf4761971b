/*
 * oracle.c
 *		The local Twilio's own count of segments.
 */
#define count_segments count_segments_at_twilio
#include "../twilio/segments.c"
#include "../twilio/text.c"

extern int twilio_segments(const char *data, size_t length);

int
twilio_segments(const char *data, size_t length)
{
	return count_segments_at_twilio((text){.data = data, .len = length});
}
