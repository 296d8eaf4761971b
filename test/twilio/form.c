/*
 * form.c
 *		Reads application/x-www-form-urlencoded, byte for byte.  Decodes in
 *		place: the parameters point into the caller's buffer.
 */
#include "form.h"

#include <stdlib.h>
#include <string.h>

void
form_init(form *f)
{
	f->items = f->fixed;
	f->count = 0;
	f->cap = sizeof(f->fixed) / sizeof(f->fixed[0]);
}

void
form_free(form *f)
{
	if (f->items != f->fixed)
		free(f->items);
	form_init(f);
}

static void
form_grow(form *f)
{
	param *items = need(malloc(2 * f->cap * sizeof(param)));

	memcpy(items, f->items, f->count * sizeof(param));
	if (f->items != f->fixed)
		free(f->items);
	f->items = items;
	f->cap *= 2;
}

void
form_add(form *f, text name, text value)
{
	if (f->count == f->cap)
		form_grow(f);
	f->items[f->count++] = (param){name, value};
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decodes in place; a % without two hex digits after it is kept. */
static text
form_decode(char *data, size_t len)
{
	char *to = data;

	for (size_t i = 0; i < len; i++)
	{
		char c = data[i];

		if (c == '+')
			c = ' ';
		else if (c == '%' && i + 2 < len && hex_value(data[i + 1]) >= 0 &&
				 hex_value(data[i + 2]) >= 0)
		{
			c = hex_value(data[i + 1]) << 4 | hex_value(data[i + 2]);
			i += 2;
		}
		*to++ = c;
	}
	return (text){data, to - data};
}

static void
form_parse_one(form *f, char *data, size_t len)
{
	char  *equal = memchr(data, '=', len);
	size_t name_len = equal == NULL ? len : (size_t) (equal - data);
	text   value = {data + len, 0};

	if (equal != NULL)
		value = form_decode(equal + 1, len - name_len - 1);
	form_add(f, form_decode(data, name_len), value);
}

void
form_parse(form *f, char *data, size_t len)
{
	char *end = data + len;

	while (data < end)
	{
		char *stop = memchr(data, '&', end - data);

		if (stop == NULL)
			stop = end;
		if (stop > data)
			form_parse_one(f, data, stop - data);
		data = stop + 1;
	}
}

void
buf_param(buf *b, const param *p)
{
	buf_char(b, '&');
	buf_form(b, p->name);
	buf_char(b, '=');
	buf_form(b, p->value);
}

text
form_get(const form *f, const char *name)
{
	size_t len = strlen(name);

	for (int i = 0; i < f->count; i++)
	{
		const param *p = &f->items[i];

		if (p->name.len == len && memcmp(p->name.data, name, len) == 0)
			return p->value;
	}
	return (text){NULL, 0};
}

int
form_count(const form *f, const char *name)
{
	int count = 0;

	for (int i = 0; i < f->count; i++)
		count += text_is(f->items[i].name, name);
	return count;
}
