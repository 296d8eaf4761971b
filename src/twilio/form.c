/*-------------------------------------------------------------------------
 *
 * form.c
 *	  Reads a form (application/x-www-form-urlencoded) from an untrusted source.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "twilio/form.h"

/* Returns the value of a hexadecimal digit, or -1. */
static int
digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/*
 * Decodes a name or value to *at, ends it with a NUL, and moves *at behind
 * that.  Returns false if it is not encoded properly.
 */
static bool
decode(const char *text, const char *end, char **at)
{
	char *begin = *at;
	char *out = begin;

	for (; text < end; text++)
	{
		int c = (unsigned char) *text;

		if (c == '+')
			c = ' ';
		else if (c == '%')
		{
			if (end - text < 3 || digit(text[1]) < 0 || digit(text[2]) < 0)
				return false;
			c = digit(text[1]) * 16 + digit(text[2]);
			text += 2;
		}
		else if (c <= ' ' || c > '~')
			return false;
		if (c == '\0')
			return false;
		*out++ = (char) c;
	}
	*out = '\0';
	*at = out + 1;
	return pg_verify_mbstr(PG_UTF8, begin, out - begin, true);
}

static int
compare_parameters(const void *a, const void *b)
{
	const FormParameter *x = a;
	const FormParameter *y = b;
	int					 names = strcmp(x->name, y->name);

	return names != 0 ? names : x->position - y->position;
}

/* Adds the parameter between begin and end. */
static bool
add_parameter(Form *form, const char *begin, const char *end, char **at)
{
	const char	  *equals = memchr(begin, '=', end - begin);
	FormParameter *parameter = &form->parameters[form->count];

	parameter->position = form->count++;
	parameter->name = *at;
	if (!decode(begin, equals ? equals : end, at) || parameter->name[0] == '\0')
		return false;
	parameter->value = *at;
	return decode(equals ? equals + 1 : end, end, at);
}

const char *
form_parse(const char *body, int length, Form *form)
{
	const char *end = body + length;
	char	   *at;

	form->count = 0;
	if (length > MAX_FORM_LENGTH)
		return "It is longer than " CppAsString2(MAX_FORM_LENGTH) " bytes.";
	/* each parameter has two NULs in place of its "=" and "&" */
	at = palloc(length + 2 * MAX_FORM_PARAMETERS);
	form->parameters = palloc(MAX_FORM_PARAMETERS * sizeof(FormParameter));
	while (body < end)
	{
		const char *next = memchr(body, '&', end - body);

		if (form->count == MAX_FORM_PARAMETERS)
			return "It has more than " CppAsString2(MAX_FORM_PARAMETERS) " parameters.";
		if (!add_parameter(form, body, next ? next : end, &at))
			return "It is not a form (application/x-www-form-urlencoded).";
		body = next ? next + 1 : end;
	}
	qsort(form->parameters, form->count, sizeof(FormParameter), compare_parameters);
	return NULL;
}

int
form_find(const Form *form, const char *name, const char **value)
{
	int count = 0;

	*value = NULL;
	for (int i = 0; i < form->count; i++)
	{
		if (strcmp(form->parameters[i].name, name) != 0)
			continue;
		if (count++ == 0)
			*value = form->parameters[i].value;
	}
	return count;
}

const char *
form_value(const Form *form, const char *name)
{
	const char *value;

	(void) form_find(form, name, &value);
	return value && value[strspn(value, " ")] ? value : NULL;
}
