/*-------------------------------------------------------------------------
 *
 * form.h
 *	  Reads a form (application/x-www-form-urlencoded) from an untrusted source.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_FORM_H
#define SENDCAMPAIGN_FORM_H

/* Of a form, in bytes, and of its parameters.  Twilio's have a few hundred bytes. */
#define MAX_FORM_LENGTH		65536
#define MAX_FORM_PARAMETERS 200

/* A name and its value, in UTF-8. */
typedef struct FormParameter
{
	const char *name;
	const char *value;
	int			position; /* in the form, from 0 */
} FormParameter;

/* The parameters, in the order of the bytes of their names, and then of the form. */
typedef struct Form
{
	int			   count;
	FormParameter *parameters;
} Form;

/*
 * Fills *form, palloc'd in the current memory context.  Returns NULL on
 * success; otherwise what is wrong with the form, for people: Twilio escapes
 * all but ASCII, and sends no characters that cannot be stored.  Throws only if
 * memory is exhausted.
 */
extern const char *form_parse(const char *body, int length, Form *form);

/* Returns how often the form has a parameter of this name, and its first value. */
extern int form_find(const Form *form, const char *name, const char **value);

/*
 * Returns the value of a parameter; NULL if there is none of that name, or none
 * but blanks.  Does not throw.
 */
extern const char *form_value(const Form *form, const char *name);

#endif /* SENDCAMPAIGN_FORM_H */
