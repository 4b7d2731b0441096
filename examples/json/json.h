/* SPDX-License-Identifier: MIT
 *
 * What the parts of the program offer each other: reading, writing, asking, editing.
 */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include "value.h"

/* Containers within containers: deeper documents are refused, so that recursion has a bound. */
enum { JSON_DEPTH_MAX = 512 };

/* ---- parse.c ------------------------------------------------------------------------------ */

typedef struct {
    size_t line, column; /* from 1; columns are characters */
    const char *message; /* static */
} JsonError;

/* The document in text[0 .. length), behind which there is a '\0'. NULL: *error says why and where.
 * RFC 8259 to the letter, UTF-8 only; of members with the same key the last one counts. Integers
 * must fit int64_t and reals a double. */
Value *json_parse(const char *text, size_t length, JsonError *error);

/* ---- write.c ------------------------------------------------------------------------------ */

/* Bytes that grow, in the collector's memory. Starts as all zero; lives on the stack. */
typedef struct {
    char *bytes;
    size_t length, capacity;
    bool failed; /* there was no memory; what was appended since is lost */
} Buffer;

/* Room for so many more bytes at bytes + length; false if there is no memory. */
bool buffer_reserve(Buffer *buffer, size_t more);
void buffer_append(Buffer *buffer, const char *bytes, size_t length);

/* Appends the value, and to an indented one no newline. The text is the same for equal values whose
 * members stand in the same order, and reads back as an equal value. */
void json_write(Buffer *buffer, const Value *value, bool indented);

/* ---- query.c ------------------------------------------------------------------------------ */

/* Paths are names and array positions, "639-3.0.name", or JSON pointers, "/639-3/0/name", RFC 6901;
 * the empty path is the document. */
bool path_is_valid(const char *path);
typedef enum { QUERY_FOUND, QUERY_ABSENT, QUERY_NO_MEMORY } QueryResult;
QueryResult query_path(Value *root, const char *path, Value **found);

/* Adds to the tally, an object of numbers by the values' texts, the values of all members with this
 * key, at any depth. False: no memory. */
bool query_count(const Value *value, const char *key, size_t length, Object *tally);
/* Prints a tally, the most frequent values first. False: no memory. */
bool query_print_tally(const char *key, const Object *tally);

/* ---- rounds.c ----------------------------------------------------------------------------- */

typedef struct {
    TextRef name; /* of the file */
    TextRef text; /* what stands in the file; length text_length */
    ValueRef root;
} Document;
CAIRN_TYPE(Document, name, text, root);

/* Writes, reads back and edits every document so many times, prints memory figures now and then and
 * at the end undoes the edits and compares with the files. False: a message is on stderr. */
bool rounds_run(Document *documents, size_t count, unsigned long rounds);

#endif
