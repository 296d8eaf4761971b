/*-------------------------------------------------------------------------
 *
 * link.h
 *	  The tracking link: made for a list user, and found again in a text.
 *
 * It consists of the base URL, "?yu=" or "&yu=", the list user, "&yc=", the
 * campaign, and the base URL's fragment.  If it is signed, "&ys=" and the
 * signature precede "&yc=".  Numbers are int64, as printf writes them, and no
 * digit follows the link.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_LINK_H
#define SENDCAMPAIGN_LINK_H

/* What all links of a campaign have in common. */
typedef struct LinkForm
{
	char *start; /* "https://...?yu=" */
	char *end;	 /* "&yc=1..." */
} LinkForm;

/* Returns the form, in the encoding of the base URL, palloc'd; NULL if there is no base URL. */
extern LinkForm *link_form(const char *base_url, int64 campaign_id);

/*
 * Returns the link of a list user, palloc'd; NULL if form is NULL.  It is signed
 * unless signature is NULL.
 */
extern char *link_make(const LinkForm *form, int64 list_user_id, const char *signature);

/*
 * Finds the next link in *text, and moves *text past its first character.
 * Returns false if there is none.
 */
extern bool link_next(const LinkForm *form, const char **text, int64 *list_user_id);

typedef enum LinkMatch
{
	LINK_MISSING,
	LINK_FOUND,	   /* this list user's, and no other's */
	LINK_AMBIGUOUS /* others', too: it may be the message of one of them */
} LinkMatch;

/* Tells whose links are in the text. */
extern LinkMatch link_match(const LinkForm *form, const char *text, int64 list_user_id);

/* Returns the text without the signatures of links, palloc'd, or the text itself. */
extern const char *without_signatures(const char *text);

/*
 * Tells whether the link is in the text as a whole: "yc=1" is not in "yc=12".  One
 * of them may be signed, and the other not.
 */
extern bool has_link(const char *text, const char *link);

#endif /* SENDCAMPAIGN_LINK_H */
