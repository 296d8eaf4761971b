/*
 * form.h
 *		Parameters of a form body or of a query string, in their order,
 *		repeated names kept.
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
	param  fixed[12]; /* spares most requests a malloc */
} form;

extern void form_init(form *f);
extern void form_free(form *f);
extern void form_add(form *f, text name, text value);
extern void form_parse(form *f, char *data, size_t len);
extern text form_get(const form *f, const char *name);

#endif
