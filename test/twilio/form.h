/*
 * form.h
 *		Parameters of a form body or of a query string, in their order;
 *		repeated names are kept.
 */
#ifndef TWILIO_FORM_H
#define TWILIO_FORM_H

#include "text.h"

typedef struct param
{
	text name;
	text value;
} param;

typedef struct form
{
	param *items;
	int	   count;
	int	   cap;
	param  fixed[12]; /* saves most requests a malloc */
} form;

/* form_free() frees what the others have allocated; names and values belong to the caller. */
extern void form_init(form *f);
extern void form_free(form *f);
extern void form_add(form *f, text name, text value);
extern void form_parse(form *f, char *data, size_t len);

/* Appends a parameter to a form's text, after what is there. */
extern void buf_param(buf *b, const param *p);

/* Returns the first value with this name; its data are NULL if there is none. */
extern text form_get(const form *f, const char *name);

/* Returns how many values have this name. */
extern int form_count(const form *f, const char *name);

#endif
