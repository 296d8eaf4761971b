/*-------------------------------------------------------------------------
 *
 * json.h
 *	  Reads JSON from an untrusted source, without building a tree.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_JSON_H
#define SENDCAMPAIGN_JSON_H

/*
 * Called for each member of an object that is a scalar, and with json_array
 * (that very pointer) for one that is an array, before its elements.  depth is
 * the number of objects and arrays around the member (1: the outermost
 * object).  value is NULL for a JSON null, else the text of the string, number
 * or boolean.  Keys and values live in the current memory context, all in one
 * piece of it, so none can be freed by itself.  Strings are in UTF-8; what cannot
 * be stored, half a surrogate pair or a NUL, is replaced by U+FFFD.
 */
extern const char json_array[];

typedef void (*JsonMember)(void *arg, int depth, const char *key, const char *value);

/* Called at the end of each object. */
typedef void (*JsonObjectEnd)(void *arg, int depth);

/*
 * Scans the text.  Returns false if it is not valid JSON (or not UTF-8, nested
 * too deeply, or too large for the memory); callbacks may have been called
 * before that is found.
 * Does not throw, and the callbacks must not, either.
 */
extern bool json_scan(const char *json, int length, JsonMember member, JsonObjectEnd object_end,
					  void *arg);

/*
 * Called at the beginning of each object.  depth is that of its members, key
 * that of the member that it is; NULL if it is no member.
 */
typedef void (*JsonObjectStart)(void *arg, int depth, const char *key);

typedef struct JsonCallbacks
{
	JsonMember		member;
	JsonObjectStart object_start; /* or NULL */
	JsonObjectEnd	object_end;	  /* or NULL */
} JsonCallbacks;

/* As json_scan(), with all callbacks. */
extern bool json_scan_objects(const char *json, int length, const JsonCallbacks *callbacks,
							  void *arg);

#endif /* SENDCAMPAIGN_JSON_H */
