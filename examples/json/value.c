/* SPDX-License-Identifier: MIT
 *
 * The model of value.h: texts, values, arrays that grow, objects that keep their members' order.
 *
 * An index slot names an entry for as long as the arrays live: removing a member only empties its
 * entry, which then matches no key. The next growth leaves such entries out. Functions that go down
 * a document recurse; the parser lets none be deeper than JSON_DEPTH_MAX.
 */
#include "value.h"

#include <string.h>

enum { FIRST_CAPACITY = 4, INDEX_FROM = 8 }; /* up to INDEX_FROM entries need no index */

static const size_t entries_max = UINT32_MAX / 4;

Value value_null = {.kind = VALUE_NULL};
Value value_false = {.kind = VALUE_FALSE};
Value value_true = {.kind = VALUE_TRUE};

/* ---- Texts and values --------------------------------------------------------------------- */

char *text_new(const char *bytes, size_t length) {
    char *text = cairn_alloc_bytes(length + 1);
    if (text && length) memcpy(text, bytes, length);
    return text;
}

size_t text_length(const char *text) {
    return cairn_length(text) - 1;
}

Value *value_new_integer(int64_t integer) {
    return cairn_make(Value, .kind = VALUE_INTEGER, .number.integer = integer);
}

Value *value_new_real(double real) {
    return cairn_make(Value, .kind = VALUE_REAL, .number.real = real);
}

Value *value_new_string(char *text) {
    return cairn_make(Value, .kind = VALUE_STRING, .content = {text});
}

Value *value_new_array(void) {
    Array *array = cairn_new(Array);
    return array ? cairn_make(Value, .kind = VALUE_ARRAY, .content = {array}) : NULL;
}

Value *value_new_object(void) {
    Object *object = object_new();
    return object ? cairn_make(Value, .kind = VALUE_OBJECT, .content = {object}) : NULL;
}

const char *value_text(const Value *value) {
    return cairn_get(value->content);
}

Array *value_array(const Value *value) {
    return cairn_get(value->content);
}

Object *value_object(const Value *value) {
    return cairn_get(value->content);
}

static bool texts_equal(const char *a, const char *b) {
    size_t length = text_length(a);
    return text_length(b) == length && memcmp(a, b, length) == 0;
}

static bool arrays_equal(const Array *a, const Array *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        if (!value_equal(array_at(a, i), array_at(b, i))) return false;
    }
    return true;
}

static bool objects_equal(const Object *a, const Object *b) {
    if (a->count != b->count) return false;
    size_t at = 0;
    for (const Entry *entry; (entry = object_next(a, &at));) {
        const char *key = cairn_get(entry->key);
        const Entry *other = object_find(b, key, text_length(key));
        if (!other || !value_equal(cairn_get(entry->value), cairn_get(other->value))) return false;
    }
    return true;
}

bool value_equal(const Value *a, const Value *b) {
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case VALUE_INTEGER:
        return a->number.integer == b->number.integer;
    case VALUE_REAL:
        return memcmp(&a->number.real, &b->number.real, sizeof(double)) == 0;
    case VALUE_STRING:
        return texts_equal(value_text(a), value_text(b));
    case VALUE_ARRAY:
        return arrays_equal(value_array(a), value_array(b));
    case VALUE_OBJECT:
        return objects_equal(value_object(a), value_object(b));
    case VALUE_NULL:
    case VALUE_FALSE:
    case VALUE_TRUE:
        break;
    }
    return true;
}

/* ---- Arrays ------------------------------------------------------------------------------- */

static bool array_grow(Array *array) {
    size_t capacity = array->capacity ? array->capacity * 2 : FIRST_CAPACITY;
    ValueRef *items = array->capacity ? cairn_resize_array(cairn_get(array->items), capacity)
                                      : cairn_new_array(ValueRef, capacity);
    if (!items) return false;
    cairn_set(&array->items, items);
    array->capacity = capacity;
    return true;
}

bool array_push(Array *array, Value *item) {
    if (array->count == array->capacity && !array_grow(array)) return false;
    ValueRef *items = cairn_get(array->items);
    cairn_set(&items[array->count], item);
    array->count++;
    return true;
}

Value *array_at(const Array *array, size_t number) {
    return cairn_get(cairn_get(array->items)[number]);
}

void array_reverse(Array *array) {
    ValueRef *items = cairn_get(array->items);
    for (size_t i = 0, j = array->count; i + 1 < j; i++) {
        j--;
        Value *first = cairn_swap(&items[i], cairn_get(items[j]));
        cairn_set(&items[j], first);
    }
}

/* ---- Objects ------------------------------------------------------------------------------ */

/* FNV-1a. */
static uint32_t hash_of(const char *key, size_t length) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)key[i]) * 16777619u;
    return hash;
}

static bool entry_has_key(const Entry *entry, uint32_t hash, const char *key, size_t length) {
    const char *own = cairn_get(entry->key);
    return own && entry->hash == hash && text_length(own) == length &&
           memcmp(own, key, length) == 0;
}

Object *object_new(void) {
    return cairn_new(Object);
}

static Entry *find_hashed(const Object *object, uint32_t hash, const char *key, size_t length) {
    Entry *entries = cairn_get(object->entries);
    const Slot *index = cairn_get(object->index);
    if (!index) {
        for (size_t i = 0; i < object->used; i++) {
            if (entry_has_key(&entries[i], hash, key, length)) return &entries[i];
        }
        return NULL;
    }
    for (size_t at = hash & object->index_mask; index[at]; at = (at + 1) & object->index_mask) {
        Entry *entry = &entries[index[at] - 1];
        if (entry_has_key(entry, hash, key, length)) return entry;
    }
    return NULL;
}

Entry *object_find(const Object *object, const char *key, size_t length) {
    return find_hashed(object, hash_of(key, length), key, length);
}

static void index_add(Slot *index, size_t mask, uint32_t hash, size_t number) {
    size_t at = hash & mask;
    while (index[at]) at = (at + 1) & mask;
    index[at] = (Slot)(number + 1);
}

/* New arrays, with room for at least a quarter more, without the entries that were removed. */
static bool object_grow(Object *object) {
    size_t capacity = FIRST_CAPACITY;
    while (capacity - capacity / 4 <= object->count) capacity *= 2;
    if (capacity > entries_max) return false;
    Entry *entries = cairn_new_array(Entry, capacity);
    if (!entries) return false;
    Slot *index = NULL;
    size_t mask = capacity * 2 - 1;
    if (capacity > INDEX_FROM) {
        index = cairn_new_array(Slot, mask + 1);
        if (!index) return false;
    }
    size_t used = 0, at = 0;
    for (const Entry *entry; (entry = object_next(object, &at)); used++) {
        cairn_set(&entries[used].key, cairn_get(entry->key));
        cairn_set(&entries[used].value, cairn_get(entry->value));
        entries[used].hash = entry->hash;
        if (index) index_add(index, mask, entry->hash, used);
    }
    cairn_set(&object->entries, entries);
    cairn_set(&object->index, index);
    object->index_mask = mask;
    object->capacity = capacity;
    object->used = used;
    return true;
}

bool object_put(Object *object, const char *key, Value *value) {
    size_t length = text_length(key);
    uint32_t hash = hash_of(key, length);
    Entry *entry = find_hashed(object, hash, key, length);
    if (entry) {
        cairn_set(&entry->value, value);
        return true;
    }
    if (object->used == object->capacity && !object_grow(object)) return false;
    entry = cairn_get(object->entries) + object->used;
    cairn_set(&entry->key, key);
    cairn_set(&entry->value, value);
    entry->hash = hash;
    Slot *index = cairn_get(object->index);
    if (index) index_add(index, object->index_mask, hash, object->used);
    object->used++;
    object->count++;
    return true;
}

bool object_remove(Object *object, const char *key, size_t length) {
    Entry *entry = object_find(object, key, length);
    if (!entry) return false;
    cairn_set(&entry->key, NULL);
    cairn_set(&entry->value, NULL);
    object->count--;
    return true;
}

Entry *object_next(const Object *object, size_t *number) {
    Entry *entries = cairn_get(object->entries);
    while (*number < object->used) {
        Entry *entry = &entries[(*number)++];
        if (cairn_get(entry->key)) return entry;
    }
    return NULL;
}
