/*
 * shim.c
 *		The parts of a server that parsers use.
 *
 * Each palloc is a separate malloc, so that an access beyond it is detected.
 * Everything is freed after each input.  An error jumps to the PG_TRY around
 * it, or ends the input.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

int					  fuzz_encoding = PG_UTF8;
sigjmp_buf			 *PG_exception_stack;
ErrorContextCallback *error_context_stack;
MemoryContext		  CurrentMemoryContext;
MemoryContext		  TopMemoryContext;

static void **blocks = NULL;
static size_t num_blocks = 0;
static size_t max_blocks = 0;
static int	  error_level;

void
broken(const char *promise, const char *file, int line)
{
	fprintf(stderr, "%s:%d: broken promise: %s\n", file, line, promise);
	abort();
}

static size_t
find_block(void *pointer)
{
	size_t i = num_blocks;

	while (i-- > 0)
	{
		if (blocks[i] == pointer)
			return i;
	}
	broken("what is freed was allocated", __FILE__, __LINE__);
}

void *
palloc(Size size)
{
	promise(size <= MaxAllocSize);
	if (num_blocks == max_blocks)
	{
		max_blocks = max_blocks ? 2 * max_blocks : 1024;
		blocks = realloc(blocks, max_blocks * sizeof(void *));
	}
	return blocks[num_blocks++] = malloc(size ? size : 1);
}

void *
palloc0(Size size)
{
	return memset(palloc(size), 0, size);
}

void *
repalloc(void *pointer, Size size)
{
	size_t i = find_block(pointer);

	promise(size <= MaxAllocSize);
	return blocks[i] = realloc(pointer, size ? size : 1);
}

void
pfree(void *pointer)
{
	blocks[find_block(pointer)] = blocks[num_blocks - 1];
	num_blocks--;
	free(pointer);
}

static void
free_blocks(void)
{
	while (num_blocks > 0)
		free(blocks[--num_blocks]);
}

void *
palloc_extended(Size size, int flags)
{
	return flags & MCXT_ALLOC_ZERO ? palloc0(size) : palloc(size);
}

char *
pnstrdup(const char *text, Size length)
{
	char *copy;

	length = strnlen(text, length);
	copy = palloc0(length + 1);
	return memcpy(copy, text, length);
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

void *
MemoryContextAlloc(MemoryContext context, Size size)
{
	return palloc(size);
}

char *
MemoryContextStrdup(MemoryContext context, const char *text)
{
	return pstrdup(text);
}

/* libpgcommon is built for clients, and allocates memory as they do. */
extern void *pg_malloc(size_t size);
extern void *pg_malloc0(size_t size);
extern void *pg_malloc_extended(size_t size, int flags);
extern void *pg_realloc(void *pointer, size_t size);
extern char *pg_strdup(const char *text);
extern void	 pg_free(void *pointer);

void *
pg_malloc(size_t size)
{
	return palloc(size);
}

void *
pg_malloc0(size_t size)
{
	return palloc0(size);
}

void *
pg_malloc_extended(size_t size, int flags)
{
	return palloc_extended(size, flags);
}

void *
pg_realloc(void *pointer, size_t size)
{
	return pointer ? repalloc(pointer, size) : palloc(size);
}

char *
pg_strdup(const char *text)
{
	return pstrdup(text);
}

void
pg_free(void *pointer)
{
	if (pointer)
		pfree(pointer);
}

bool
errstart(int level, const char *domain)
{
	error_level = level;
	return level >= ERROR;
}

bool
errstart_cold(int level, const char *domain)
{
	return errstart(level, domain);
}

void
errfinish(const char *file, int line, const char *function)
{
	pg_re_throw();
}

void
pg_re_throw(void)
{
	promise(PG_exception_stack != NULL);
	siglongjmp(*PG_exception_stack, 1);
}

void
FlushErrorState(void)
{
}

int
errcode(int code)
{
	return 0;
}

/* Messages are formatted, as that may fail as well. */
#define SAY(name)                                                                                  \
	int name(const char *format, ...)                                                              \
	{                                                                                              \
		va_list arguments;                                                                         \
		char	text[1024];                                                                        \
                                                                                                   \
		va_start(arguments, format);                                                               \
		(void) vsnprintf(text, sizeof(text), format, arguments);                                   \
		va_end(arguments);                                                                         \
		return 0;                                                                                  \
	}

SAY(errmsg)
SAY(errmsg_internal)
SAY(errdetail)
SAY(errhint)

int
GetDatabaseEncoding(void)
{
	return fuzz_encoding;
}

int
pg_mblen(const char *text)
{
	return pg_encoding_mblen(fuzz_encoding, text);
}

int
pg_mbcliplen(const char *text, int length, int limit)
{
	int clipped = 0;

	while (clipped < length && clipped + pg_mblen(text + clipped) <= limit)
		clipped += pg_mblen(text + clipped);
	return Min(clipped, length);
}

bool
pg_verify_mbstr(int encoding, const char *text, int length, bool no_error)
{
	promise(no_error);
	return pg_encoding_verifymbstr(encoding, text, length) == length;
}

/* Texts of servers with other encodings are passed unchanged. */
char *
pg_server_to_any(const char *text, int length, int encoding)
{
	return (char *) text;
}

/* The only conversion that exists is from Latin 1. */
Oid
FindDefaultConversionProc(int32 from, int32 to)
{
	return from == PG_LATIN1 && to == PG_UTF8 ? 1 : InvalidOid;
}

int
pg_do_encoding_conversion_buf(Oid conversion, int from, int to, unsigned char *text, int length,
							  unsigned char *converted, int size, bool no_error)
{
	promise(no_error && size > 2 * length);
	for (int i = 0; i < length; i++)
	{
		unicode_to_utf8(text[i], converted);
		converted += pg_utf_mblen(converted);
	}
	*converted = '\0';
	return length;
}

char *
fuzz_part(const char *data, size_t size, int n)
{
	const char *end = data + size;

	for (; data && n > 0; n--)
	{
		data = memchr(data, FUZZ_SEPARATOR, end - data);
		data = data ? data + 1 : NULL;
	}
	if (data == NULL)
		return NULL;
	size = (const char *) (memchr(data, FUZZ_SEPARATOR, end - data) ?: end) - data;
	return pnstrdup(data, size);
}

char *
fuzz_pretty(const char *json, int length, int *pretty_length)
{
	bool		   in_string = false;
	StringInfoData pretty;

	initStringInfo(&pretty);
	for (int i = 0; i < length; i++)
	{
		if (!in_string && memchr("{}[],:", json[i], 6))
			appendStringInfo(&pretty, " %c\r\n\t", json[i]);
		else
			appendStringInfoChar(&pretty, json[i]);
		if (json[i] == '"')
			in_string = !in_string;
		else if (in_string && json[i] == '\\' && i + 1 < length)
			appendStringInfoChar(&pretty, json[++i]);
	}
	*pretty_length = pretty.len;
	return pretty.data;
}

/* Outside of a server, it uses malloc(), and nobody frees what it returns. */
const char *
__lsan_default_suppressions(void)
{
	return "leak:unicode_normalize";
}

/* libFuzzer's entry point. */
extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	sigjmp_buf jump;
	char	  *input = malloc(size + 1);

	memcpy(input, data, size);
	input[size] = '\0';
	fuzz_encoding = PG_UTF8;
	if (sigsetjmp(jump, 0) == 0)
	{
		PG_exception_stack = &jump;
		fuzz_one(input, size);
	}
	PG_exception_stack = NULL;
	free_blocks();
	free(input);
	return 0;
}
