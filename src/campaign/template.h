/*-------------------------------------------------------------------------
 *
 * template.h
 *	  Personal texts: placeholders in a message, and values for them.
 *
 *	  {{key}}			the recipient's value, which must not be empty
 *	  {{key|default}}	the default if the value is empty or missing
 *	  {{link}}			the tracking link
 *	  {{"{{"}}			{{ as literal text, and {{"}}"}} is }}
 *
 * A key is any text without {, } and |; a default is any text without { and },
 * which may be empty; blanks around both are ignored.  Everything else is
 * literal.  {{ or }} in it is a problem, though, as nobody means recipients to
 * read that.  A value that consists of blanks counts as empty.  Blanks are
 * spaces, tabs and line ends.
 *
 * Texts, values and links must have the same encoding: the server's, or UTF-8.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_TEMPLATE_H
#define SENDCAMPAIGN_TEMPLATE_H

typedef struct Template Template;

/*
 * Parses any text; problems in it do not make this fail.  The text need not
 * outlive the call.  The template is palloc'd in the current memory context.
 * Throws only if memory runs out.
 */
extern Template *template_parse(const char *text);

/* Return the text of the template, and where in it the first problem is, or NULL. */
extern const char *template_text(const Template *t);
extern const char *template_problem(const Template *t);

/* Returns the number of different keys, not counting the link. */
extern int template_num_keys(const Template *t);

/*
 * Returns the nth key, counted from 0, in order of first appearance.  It
 * belongs to the template.
 */
extern const char *template_key(const Template *t, int n);

/* Tells whether the template says where the link goes. */
extern bool template_has_link(const Template *t);

/* Tells whether it has a key, so that the text differs between recipients. */
extern bool template_is_personal(const Template *t);

/*
 * Returns the text with values[n] for the nth key and with the link; palloc'd
 * in the current memory context.  NULL is a missing value or link; if "values"
 * is NULL, all are missing.  Values are inserted unchanged, except that a
 * space separates the link from a digit that follows it.  Throws only if
 * memory runs out.
 *
 * If a placeholder has neither value nor default, returns NULL, and sets
 * *missing to its key, or "link", which belongs to the template; otherwise
 * sets *missing to NULL.
 */
extern char *template_render(const Template *t, const char *const *values, const char *link,
							 const char **missing);

/* Tells whether the text can have been rendered from the template, with any values. */
extern bool template_matches(const Template *t, const char *text);

#endif /* SENDCAMPAIGN_TEMPLATE_H */
