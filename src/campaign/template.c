/*-------------------------------------------------------------------------
 *
 * template.c
 *	  Personal texts: placeholders in a message, and values for them.
 *
 * Texts are searched byte by byte: in no server encoding is a byte of a
 * multibyte character an ASCII character.  Parsing takes time proportional to
 * the length of the text, whatever it contains.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/smart_encoding.h"
#include "campaign/template.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "port/pg_bitutils.h"

#define BLANKS " \t\r\n"

/* In place of a key's number: */
#define NO_KEY	 (-1)
#define LINK_KEY (-2)

static const char link_key[] = "link";

/* Some bytes of the text. */
typedef struct Span
{
	const char *start; /* NULL: absent */
	int			length;
} Span;

typedef struct Part
{
	int	 key;  /* the key's number, or one of the above */
	Span text; /* literal text, or the default */
} Part;

struct Template
{
	Part  *parts;
	int	   num_parts;
	char **keys;
	int	   num_keys;
	bool   has_link;

	const char *text;
	const char *problem; /* in the text; or NULL */
};

typedef struct Parser
{
	Template *result;
	int		 *numbers; /* hash table: 1 + number of a key; 0: free */
	uint32	  mask;	   /* size of the table, less one */

	StringInfoData literal; /* since the last placeholder */
} Parser;

typedef struct Placeholder
{
	Span		key;
	Span		fallback;
	const char *end; /* of the placeholder, or of what cannot be one */
} Placeholder;

static Span
trim(const char *start, const char *end)
{
	while (start < end && strchr(BLANKS, *start))
		start++;
	while (start < end && strchr(BLANKS, end[-1]))
		end--;
	return (Span){start, end - start};
}

/* Reads what follows {{.  Returns false if it is not a placeholder. */
static bool
read_placeholder(const char *at, Placeholder *found)
{
	const char *end = at + strcspn(at, "{|}");

	*found = (Placeholder){.key = trim(at, end)};
	if (*end == '|')
	{
		at = end + 1;
		end = at + strcspn(at, "{}");
		found->fallback = trim(at, end);
	}
	found->end = end;
	if (found->key.length == 0 || end[0] != '}' || end[1] != '}')
		return false;
	found->end += 2;
	return true;
}

static bool
is_same(const char *name, Span span)
{
	return strncmp(name, span.start, span.length) == 0 && name[span.length] == '\0';
}

/* Returns the number of a key, which gets a new one when first seen. */
static int
number_of_key(Parser *parser, Span key)
{
	Template *t = parser->result;
	uint32	  slot = hash_bytes((const unsigned char *) key.start, key.length);

	for (;; slot++)
	{
		int *number = &parser->numbers[slot & parser->mask];

		if (*number == 0)
		{
			t->keys[t->num_keys] = pnstrdup(key.start, key.length);
			*number = ++t->num_keys;
		}
		if (is_same(t->keys[*number - 1], key))
			return *number - 1;
	}
}

static void
add_part(Template *t, int key, Span text)
{
	t->parts[t->num_parts++] = (Part){key, text};
}

/* Adds the text since the last placeholder as one part: it is also searched as one. */
static void
end_literal(Parser *parser)
{
	if (parser->literal.len > 0)
		add_part(parser->result, NO_KEY, (Span){parser->literal.data, parser->literal.len});
	initStringInfo(&parser->literal);
}

static void
add_placeholder(Parser *parser, const Placeholder *found)
{
	bool is_link = is_same(link_key, found->key);

	end_literal(parser);
	parser->result->has_link |= is_link;
	add_part(parser->result, is_link ? LINK_KEY : number_of_key(parser, found->key),
			 found->fallback);
}

/* Allocates room for all parts and keys that the text can have. */
static void
start_parser(Parser *parser, const char *text)
{
	int max_keys = 0;

	parser->result = palloc0(sizeof(Template));
	parser->result->text = pstrdup(text);
	while ((text = strstr(text, "{{")) != NULL)
	{
		text += 2;
		max_keys++;
	}
	initStringInfo(&parser->literal);
	parser->result->parts = palloc((2 * max_keys + 1) * sizeof(Part));
	parser->result->keys = palloc((max_keys + 1) * sizeof(char *));
	parser->mask = pg_nextpower2_32(2 * max_keys + 1) - 1;
	parser->numbers = palloc0((parser->mask + 1) * sizeof(int));
}

/* Returns the braces that {{"{{"}} or {{"}}"}} stands for, or NULL. */
static const char *
quoted_braces(const char *at)
{
	return strncmp(at, "{{\"{{\"}}", 8) == 0   ? "{{"
		   : strncmp(at, "{{\"}}\"}}", 8) == 0 ? "}}"
											   : NULL;
}

/* Reads what begins with a brace; returns where it ends. */
static const char *
read_brace(Parser *parser, const char *at)
{
	Placeholder found;
	const char *braces = quoted_braces(at);

	if (braces)
	{
		appendStringInfoString(&parser->literal, braces);
		return at + 8;
	}
	/* of three braces, the last two belong to the placeholder */
	if (at[1] == at[0] && !(at[0] == '{' && at[2] == '{' && at[3] != '{'))
	{
		if (at[0] == '{' && read_placeholder(at + 2, &found))
		{
			add_placeholder(parser, &found);
			return found.end;
		}
		if (parser->result->problem == NULL)
			parser->result->problem = at;
	}
	appendStringInfoChar(&parser->literal, *at);
	return at + 1;
}

Template *
template_parse(const char *text)
{
	Parser		parser;
	const char *at;

	start_parser(&parser, text);
	at = parser.result->text;
	while (*at)
	{
		int length = strcspn(at, "{}");

		appendBinaryStringInfo(&parser.literal, at, length);
		at += length;
		if (*at)
			at = read_brace(&parser, at);
	}
	end_literal(&parser);
	pfree(parser.numbers);
	return parser.result;
}

const char *
template_text(const Template *t)
{
	return t->text;
}

const char *
template_problem(const Template *t)
{
	return t->problem;
}

int
template_num_keys(const Template *t)
{
	return t->num_keys;
}

const char *
template_key(const Template *t, int n)
{
	return t->keys[n];
}

bool
template_has_link(const Template *t)
{
	return t->has_link;
}

bool
template_is_personal(const Template *t)
{
	return t->num_keys > 0;
}

/* Returns the value, or NULL if it is missing or empty. */
static const char *
value_of(const Part *part, const char *const *values, const char *link)
{
	const char *value = NULL;

	if (part->key == LINK_KEY)
		value = link;
	else if (part->key != NO_KEY && values)
		value = values[part->key];
	return value && value[strspn(value, BLANKS)] ? value : NULL;
}

/*
 * A digit right after the link would make it the link of somebody else, and so
 * would what Smart Encoding makes a digit.
 */
static void
append(StringInfo text, const char *what, int length, int *link_end)
{
	bool		is_after_link = length > 0 && text->len == *link_end;
	const char *shown = is_after_link ? smart_text(pnstrdup(what, length)) : "";

	if (*shown >= '0' && *shown <= '9')
		appendStringInfoChar(text, ' ');
	appendBinaryStringInfo(text, what, length);
	if (is_after_link && *shown == '\0')
		*link_end = text->len; /* it is shown to nobody */
}

char *
template_render(const Template *t, const char *const *values, const char *link,
				const char **missing)
{
	StringInfoData text;
	int			   link_end = -1;

	initStringInfo(&text);
	for (int i = 0; i < t->num_parts; i++)
	{
		const Part *part = &t->parts[i];
		const char *value = value_of(part, values, link);

		if (value)
			append(&text, value, strlen(value), &link_end);
		else if (part->text.start)
			append(&text, part->text.start, part->text.length, &link_end);
		else
		{
			*missing = part->key == LINK_KEY ? link_key : t->keys[part->key];
			pfree(text.data);
			return NULL;
		}
		if (value && part->key == LINK_KEY)
			link_end = text.len;
	}
	*missing = NULL;
	return text.data;
}

/*
 * Finds a literal at the start of the text; if "anywhere", further on, and if
 * "at_end" too, at its end.
 */
static const char *
find_literal(const Part *part, const char *text, bool anywhere, bool at_end)
{
	size_t length = strlen(text);

	if (length < part->text.length)
		return NULL;
	if (anywhere && at_end)
		text += length - part->text.length;
	else if (anywhere)
		text = memmem(text, length, part->text.start, part->text.length);
	if (text == NULL || memcmp(text, part->text.start, part->text.length) != 0)
		return NULL;
	return text + part->text.length;
}

bool
template_matches(const Template *t, const char *text)
{
	bool anywhere = false; /* true after a placeholder, whose value may come first */

	for (int i = 0; i < t->num_parts; i++)
	{
		if (t->parts[i].key == NO_KEY)
		{
			text = find_literal(&t->parts[i], text, anywhere, i == t->num_parts - 1);
			if (text == NULL)
				return false;
		}
		anywhere = t->parts[i].key != NO_KEY;
	}
	return anywhere || *text == '\0';
}
