/*
 * text.h
 *		Counted strings, growing buffers, and the ways of escaping that the
 *		local Twilio uses: JSON, form encoding and tab-separated ledger fields.
 *
 * Bodies may contain any byte, including NUL, so every string has a length.
 */
#ifndef TWILIO_TEXT_H
#define TWILIO_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct text
{
	const char *data; /* NULL: absent */
	size_t		len;
} text;

typedef struct buf
{
	char  *data;
	size_t len;
	size_t cap;
} buf;

/* returns its argument, or ends the program if that is NULL */
extern void *need(void *memory);
extern void	 fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

extern text text_of(const char *string);
extern bool text_equal(text a, text b);
extern bool text_is(text a, const char *string);
extern bool text_starts(text a, const char *prefix);

/* Splits the text before and after *at; returns false if at is NULL. */
extern bool text_split(text whole, const char *at, text *first, text *rest);

/* Reads a decimal number; returns false if the text is none. */
extern bool text_number(text a, double *number);

/* Returns a NUL-terminated copy, which the caller frees. */
extern char	   *text_copy(text a);
extern uint64_t text_hash(text a);

/* Returns the character at *at, and steps over it; U+FFFD for an invalid byte. */
extern uint32_t utf8_next(const char **at, const char *end);
extern size_t	utf8_length(text a);

/* Append to a buffer, which grows as needed; buf_reserve() only makes room. */
extern void buf_reserve(buf *b, size_t more);
extern void buf_add(buf *b, const char *data, size_t len);
extern void buf_string(buf *b, const char *string);
extern void buf_text(buf *b, text a);
extern void buf_char(buf *b, char c);
extern void buf_utf8(buf *b, uint32_t code);
extern void buf_int(buf *b, int64_t value);
extern void buf_printf(buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern void buf_json(buf *b, text a);
extern void buf_form(buf *b, text a);
extern void buf_tsv(buf *b, text a);
extern void buf_free(buf *b);

#endif
