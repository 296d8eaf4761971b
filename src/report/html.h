/*-------------------------------------------------------------------------
 *
 * html.h
 *	  Writes HTML: the one place where texts become part of a page.
 *
 * A page is in ASCII, whatever the encodings of the database and of the client
 * are: other characters become character references.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_HTML_H
#define SENDCAMPAIGN_HTML_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

/*
 * Appends markup, which is a literal of the source in ASCII.  It may have these
 * placeholders, for arguments in the same order:
 *
 *	$t	text (const char *), escaped; nothing for NULL
 *	$n	number (int64), as the session writes it, and for programs
 *	$i	integer (int64), plain: for attributes
 *	$f	coordinate (double), plain: for attributes
 *	$p	share (double, 0 to 1) in percent, as the session writes it; never rounded up
 *	$d	day and time (TimestampTz) in the session's time zone, and for programs
 *	$c	the same, but only the time is shown
 *	$m	markup (const char *) that is a literal itself
 */
extern void add_html(StringInfo page, const char *markup, ...);

/* Returns the number as the session writes it, palloc'd, in the database's encoding. */
extern char *number_text(int64 number);

/* Returns the time in a format of to_char(), palloc'd; "-" if it is infinite. */
extern char *time_text(TimestampTz time, const char *format);

#endif /* SENDCAMPAIGN_HTML_H */
