/*
 * template.c
 *		Personal texts.  Parts: text, link, values.
 */
#include "fuzz.h"

#include "../../src/campaign/template.h"

#define MAX_VALUES 8

static void
check_keys(const Template *t, const char *text)
{
	int most = 0;

	for (const char *at = text; (at = strstr(at, "{{")) != NULL; at += 2)
		most++;
	promise(template_num_keys(t) <= most);
	promise(template_is_personal(t) == (template_num_keys(t) > 0));
	for (int i = 0; i < template_num_keys(t); i++)
	{
		const char *key = template_key(t, i);

		promise(key[0] != '\0' && strcmp(key, "link") != 0 && strpbrk(key, "{|}") == NULL);
		promise(strstr(text, key) != NULL);
		for (int j = 0; j < i; j++)
			promise(strcmp(key, template_key(t, j)) != 0);
	}
}

/* A problem is in the text, and braces outside of placeholders are quoted. */
static void
check_problem(const Template *t, const char *text)
{
	const char *problem = template_problem(t);

	promise(strcmp(template_text(t), text) == 0);
	if (problem)
		promise(problem >= template_text(t) && problem < template_text(t) + strlen(text) &&
				(strncmp(problem, "{{", 2) == 0 || strncmp(problem, "}}", 2) == 0));
	else if (strstr(text, "{{") == NULL)
		promise(strstr(text, "}}") == NULL);
}

static void
check_rendering(const Template *t, const char *const *values, const char *link)
{
	const char *missing = "unset";
	char	   *text = template_render(t, values, link, &missing);

	promise((text == NULL) == (missing != NULL));
	if (text)
		promise(template_matches(t, text));
	if (text && link && template_has_link(t) && link[strspn(link, " \t\r\n")])
		promise(strstr(text, link) != NULL);
}

void
fuzz_one(const char *data, size_t size)
{
	char		*text = fuzz_part(data, size, 0);
	char		*link = fuzz_part(data, size, 1);
	Template	*t = template_parse(text);
	int			 num_keys = template_num_keys(t);
	const char **values = palloc0((num_keys + 1) * sizeof(char *));

	check_keys(t, text);
	check_problem(t, text);
	for (int i = 0; i < Min(num_keys, MAX_VALUES); i++)
		values[i] = fuzz_part(data, size, 2 + i);
	check_rendering(t, values, link);
	check_rendering(t, NULL, link);
	check_rendering(t, values, NULL);
	(void) template_matches(t, link ? link : text);
}
