/*-------------------------------------------------------------------------
 *
 * style.h
 *	  What a report looks like: its style sheet.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_STYLE_H
#define SENDCAMPAIGN_STYLE_H

/* CSS, without "$". */
extern const char *const report_style;

#endif /* SENDCAMPAIGN_STYLE_H */
