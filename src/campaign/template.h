/*-------------------------------------------------------------------------
 *
 * template.h
 *	  Personal texts: placeholders in a message, and values for them.
 *
 *	  {{key}}			the recipient's value, which must not be empty
 *	  {{key|default}}	the default where the value is empty or missing
 *	  {{link}}			the tracking link
 *	  {{"{{"}}			the braces themselves; {{"}}"}} likewise
 *
 * A key is any text without { } and |, a default any without { and }, which
 * may be empty; blanks around both do not count.  All else is literal, as it
 * stands; but {{ or }} in it is a problem: nobody means that to be read.  A
 * value of blanks only is empty.  Blanks are spaces, tabs and line ends.
 *
 * Texts, values and links are of one encoding, the server's or UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TEMPLATE_H
#define SENDCAMPAIGN_TEMPLATE_H

typedef struct Template Template;

/*
 * Never fails for what is in the text, which is not needed any more after it;
 * throws where memory is out.  The template lives in the current memory
 * context and goes with it.
 */
extern Template *template_parse(const char *text);

/* The text it was made of, and where its first problem is there; NULL for none. */
extern const char *template_text(const Template *t);
extern const char *template_problem(const Template *t);

/* How many different keys there are, the link not counted. */
extern int template_num_keys(const Template *t);

/* One of them, in order of first appearance from 0; the template's. */
extern const char *template_key(const Template *t, int n);

/* Does it say where the link goes? */
extern bool template_has_link(const Template *t);

/* Has it a key, so that it differs from recipient to recipient? */
extern bool template_is_personal(const Template *t);

/*
 * The text with values[n] for the key n, where NULL is a missing one, as all
 * are without values, and the link, which may be NULL: palloc'd in the current
 * memory context.  Values are put in as they are; only between the link and a
 * digit comes a space.  Throws where memory is out.
 *
 * NULL where a placeholder has neither value nor default: *missing is then
 * its key, "link" for the link, which is the template's; else it is NULL.
 */
extern char *template_render(const Template *t, const char *const *values, const char *link,
							 const char **missing);

/* Can the text have been rendered from the template, with whatever values? */
extern bool template_matches(const Template *t, const char *text);

#endif /* SENDCAMPAIGN_TEMPLATE_H */
