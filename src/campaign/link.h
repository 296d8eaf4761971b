/*-------------------------------------------------------------------------
 *
 * link.h
 *	  The tracking link: made for a list user, and found again in a text.
 *
 * The base URL, "?yu=" or "&yu=", the list user, "&yc=", the campaign, and the
 * base URL's fragment.  Numbers are those of int64, as printf writes them, and
 * no digit follows the link.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LINK_H
#define SENDCAMPAIGN_LINK_H

/* What the links of one campaign have in common. */
typedef struct LinkForm
{
	char *start; /* "https://...?yu=" */
	char *end;	 /* "&yc=1..." */
} LinkForm;

/* In the encoding of the base URL, palloc'd; NULL where there is none. */
extern LinkForm *link_form(const char *base_url, int64 campaign_id);

/* The link of one list user, palloc'd; NULL for no form. */
extern char *link_make(const LinkForm *form, int64 list_user_id);

/*
 * Finds the next link in a text, from *text on, which is moved past its
 * beginning: false where there is none.
 */
extern bool link_next(const LinkForm *form, const char **text, int64 *list_user_id);

typedef enum LinkMatch
{
	LINK_MISSING,
	LINK_FOUND,	   /* this list user's, and no other one's */
	LINK_AMBIGUOUS /* others', too: it may be the message of one of them */
} LinkMatch;

/* Whose links are in the text? */
extern LinkMatch link_match(const LinkForm *form, const char *text, int64 list_user_id);

/* Is the link in the text, as a whole?  "yc=1" is not "yc=12". */
extern bool has_link(const char *text, const char *link);

#endif /* SENDCAMPAIGN_LINK_H */
