/*
 * fuzz.h
 *		What the fuzz targets share.
 *
 * A target is one file that includes the source whose parser it tests, or is
 * linked with it, and defines fuzz_one().  What that source needs of a server
 * is in shim.c: memory that AddressSanitizer watches byte by byte, errors, and
 * encodings.  JSON and UTF-8 come from PostgreSQL's own libpgcommon.
 * Functions that neither has are never called: that would be a jump to address
 * 0.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "postgres.h"

/* Tests one input, which is followed by a NUL; it may throw. */
extern void fuzz_one(const char *data, size_t size);

/* The server's encoding, PG_UTF8 at the start of each input. */
extern int fuzz_encoding;

/* Ends the process, naming the promise that was broken. */
#define promise(condition) ((condition) ? (void) 0 : broken(#condition, __FILE__, __LINE__))
extern void broken(const char *promise, const char *file, int line) __attribute__((noreturn));

/* Returns part n of the input, which FUZZ_SEPARATOR separates; NULL beyond its end. */
#define FUZZ_SEPARATOR '\x1f'
extern char *fuzz_part(const char *data, size_t size, int n);

/* Returns the JSON with blanks wherever they have no meaning. */
extern char *fuzz_pretty(const char *json, int length, int *pretty_length);

#endif /* FUZZ_H */
