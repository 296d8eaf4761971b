/*-------------------------------------------------------------------------
 *
 * render.c
 *	  Texts in the encoding that Twilio takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "render.h"

char *
to_utf8(char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

bool
is_utf8(const char *text)
{
	return pg_verify_mbstr(PG_UTF8, text, strlen(text), true);
}
