/*
 * content.c
 *		Content templates.  A variable that is not given stays as it is in the
 *		template.
 */
#include "content.h"

#include <stdlib.h>
#include <string.h>

#define CODE_CONTENT_SID	   21655
#define CODE_CONTENT_VARIABLES 21656
#define VARIABLES_MAX		   32

typedef struct template
{
	char *sid;
	char *body;
}
template;

/* the variables of a request; names and values are one after the other in texts */
typedef struct variable
{
	size_t name;
	size_t name_len;
	size_t value_len;
} variable;

typedef struct variables
{
	buf		 texts;
	variable items[VARIABLES_MAX];
	int		 count;
} variables;

/* what is still to be read of a JSON text */
typedef struct json_reader
{
	const char *at;
	const char *end;
} json_reader;

static template *templates;
static int		 template_count;

static template *
template_find(text sid)
{
	for (int i = 0; i < template_count; i++)
	{
		if (text_is(sid, templates[i].sid))
			return &templates[i];
	}
	return NULL;
}

bool
content_set(text value)
{
	text	  sid;
	text	  body;
	template *known;

	if (value.len == 0 || !text_split(value, memchr(value.data, '=', value.len), &sid, &body) ||
		!text_starts(sid, "HX"))
		return false;
	known = template_find(sid);
	if (known == NULL)
	{
		templates = need(realloc(templates, (template_count + 1) * sizeof(template)));
		known = &templates[template_count++];
		*known = (template){text_copy(sid), NULL};
	}
	free(known->body);
	known->body = text_copy(body);
	return true;
}

static void
json_blanks(json_reader *json)
{
	while (json->at < json->end && memchr(" \t\r\n", *json->at, 4) != NULL)
		json->at++;
}

/* Steps over blanks, and over the character if it comes next. */
static bool
json_take(json_reader *json, char c)
{
	json_blanks(json);
	if (json->at == json->end || *json->at != c)
		return false;
	json->at++;
	return true;
}

/* Reads the four digits of \uXXXX; returns -1 if they are not there. */
static int32_t
json_hex(json_reader *json)
{
	char digits[5] = {0};

	if (json->end - json->at < 4)
		return -1;
	memcpy(digits, json->at, 4);
	if (strspn(digits, "0123456789abcdefABCDEF") != 4)
		return -1;
	json->at += 4;
	return strtol(digits, NULL, 16);
}

/* Reads what follows \u, with the second half of a surrogate pair; -1 if it is wrong. */
static int32_t
json_code(json_reader *json)
{
	int32_t code = json_hex(json);
	int32_t second;

	if (code < 0xD800 || code > 0xDFFF)
		return code;
	if (code > 0xDBFF || json->end - json->at < 6 || memcmp(json->at, "\\u", 2) != 0)
		return -1;
	json->at += 2;
	second = json_hex(json);
	if (second < 0xDC00 || second > 0xDFFF)
		return -1;
	return 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
}

/* Reads what follows a backslash. */
static bool
json_escape(json_reader *json, buf *out)
{
	static const char escapes[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char		 *escape;
	int32_t			  code;

	if (json->at == json->end || *json->at == '\0')
		return false;
	escape = strchr(escapes, *json->at);
	if (escape != NULL)
	{
		json->at++;
		buf_char(out, meanings[escape - escapes]);
		return true;
	}
	if (*json->at++ != 'u' || (code = json_code(json)) < 0)
		return false;
	buf_utf8(out, code);
	return true;
}

static bool
json_string(json_reader *json, buf *out)
{
	if (!json_take(json, '"'))
		return false;
	while (json->at < json->end && *json->at != '"')
	{
		char c = *json->at++;

		if ((unsigned char) c < 0x20)
			return false;
		if (c != '\\')
			buf_char(out, c);
		else if (!json_escape(json, out))
			return false;
	}
	return json_take(json, '"');
}

/* Twilio refuses values that are empty, or have line breaks, tabs or five blanks in a row. */
static bool
value_allowed(text value)
{
	for (size_t i = 0; i < value.len; i++)
	{
		if (value.data[i] == '\n' || value.data[i] == '\r' || value.data[i] == '\t')
			return false;
	}
	return value.len > 0 && memmem(value.data, value.len, "     ", 5) == NULL;
}

static bool
read_variable(json_reader *json, variables *vars)
{
	variable *item = &vars->items[vars->count];
	size_t	  value;

	if (vars->count == VARIABLES_MAX)
		return false;
	item->name = vars->texts.len;
	if (!json_string(json, &vars->texts) || !json_take(json, ':'))
		return false;
	value = vars->texts.len;
	item->name_len = value - item->name;
	if (!json_string(json, &vars->texts))
		return false;
	item->value_len = vars->texts.len - value;
	vars->count++;
	return value_allowed((text){vars->texts.data + value, item->value_len});
}

static bool
read_variables(text source, variables *vars)
{
	json_reader json = {source.data, source.data + source.len};

	if (source.data == NULL)
		return true;
	if (!json_take(&json, '{'))
		return false;
	if (!json_take(&json, '}'))
	{
		do
		{
			if (!read_variable(&json, vars))
				return false;
		} while (json_take(&json, ','));
		if (!json_take(&json, '}'))
			return false;
	}
	json_blanks(&json);
	return json.at == json.end;
}

/* Appends the value; returns false if there is none of that name. */
static bool
append_variable(buf *out, const variables *vars, text name)
{
	for (int i = 0; i < vars->count; i++)
	{
		const variable *item = &vars->items[i];

		if (text_equal(name, (text){vars->texts.data + item->name, item->name_len}))
		{
			buf_add(out, vars->texts.data + item->name + item->name_len, item->value_len);
			return true;
		}
	}
	return false;
}

static void
append_body(buf *out, const variables *vars, const char *at)
{
	while (*at != '\0')
	{
		const char *end = strncmp(at, "{{", 2) == 0 ? strstr(at, "}}") : NULL;

		if (end != NULL && append_variable(out, vars, (text){at + 2, end - at - 2}))
			at = end + 2;
		else
			buf_char(out, *at++);
	}
}

int
content_render(buf *out, text sid, text source)
{
	template *known = template_find(sid);
	variables vars = {.count = 0};
	int		  code = 0;

	if (known == NULL)
		return CODE_CONTENT_SID;
	if (read_variables(source, &vars))
		append_body(out, &vars, known->body);
	else
		code = CODE_CONTENT_VARIABLES;
	buf_free(&vars.texts);
	return code;
}
