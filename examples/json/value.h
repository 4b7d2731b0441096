/* SPDX-License-Identifier: MIT
 *
 * JSON values as Cairn objects.
 *
 * A Value is a tag, a number and one reference: to the text of a string, to an Array or to an
 * Object. Scalars never change; null, true and false are static objects that every document shares.
 * Texts are plain bytes with a '\0' behind them that may also hold '\0's: their length is
 * text_length. Nothing here is ever freed: what is no longer referred to is the collector's.
 *
 * What makes objects or lets containers grow returns NULL or false when there is no memory; the
 * container is then as before.
 */
#ifndef JSON_VALUE_H
#define JSON_VALUE_H

#include <cairn/cairn.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    VALUE_NULL,
    VALUE_FALSE,
    VALUE_TRUE,
    VALUE_INTEGER,
    VALUE_REAL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_OBJECT,
} ValueKind;

typedef cairn_ref(const char) TextRef;

typedef struct {
    ValueKind kind;
    union {
        int64_t integer; /* of VALUE_INTEGER */
        double real;     /* of VALUE_REAL; finite */
    } number;
    cairn_ref(void) content; /* bytes, Array or Object, as kind says; else NULL */
} Value;
CAIRN_TYPE(Value, content);
typedef cairn_ref(Value) ValueRef;

typedef struct {
    size_t count;              /* items in use */
    size_t capacity;           /* items there is room for */
    cairn_ref(ValueRef) items; /* NULL while capacity is 0 */
} Array;
CAIRN_TYPE(Array, items);

/* A member of an object. One that was removed has neither key nor value. */
typedef struct {
    TextRef key;
    ValueRef value;
    uint32_t hash; /* of the key */
} Entry;
CAIRN_TYPE(Entry, key, value);

typedef uint32_t Slot; /* 0: empty; else 1 + the number of an entry */
CAIRN_LEAF(Slot);

/* Entries in the order in which they came, and beside them, once there are more than a few, an open
 * hash table of their numbers. count <= used <= capacity; used - count entries were removed. */
typedef struct {
    size_t count;             /* members */
    size_t used;              /* entries in use, removed ones included */
    size_t capacity;          /* entries there is room for */
    size_t index_mask;        /* slots in the index, less one; a power of two, less one */
    cairn_ref(Entry) entries; /* NULL while capacity is 0 */
    cairn_ref(Slot) index;    /* NULL while a search from the first to the last is as good */
} Object;
CAIRN_TYPE(Object, entries, index);

extern Value value_null, value_false, value_true;

char *text_new(const char *bytes, size_t length);
size_t text_length(const char *text);

Value *value_new_integer(int64_t integer);
Value *value_new_real(double real);
Value *value_new_string(char *text);
Value *value_new_array(void);
Value *value_new_object(void);

/* What a value of the right kind holds. */
const char *value_text(const Value *value);
Array *value_array(const Value *value);
Object *value_object(const Value *value);

/* Whether two values say the same. The order of an object's members makes no difference. */
bool value_equal(const Value *a, const Value *b);

bool array_push(Array *array, Value *item);
Value *array_at(const Array *array, size_t number);
void array_reverse(Array *array);

Object *object_new(void);
/* The entry with this key, NULL if there is none. Valid until the next object_put. */
Entry *object_find(const Object *object, const char *key, size_t length);
/* Replaces the value of the key where it stands, or adds a member at the end. The key is a text. */
bool object_put(Object *object, const char *key, Value *value);
bool object_remove(Object *object, const char *key, size_t length);
/* The entry at or after *number, NULL at the end; *number moves behind it. */
Entry *object_next(const Object *object, size_t *number);

#endif
