/* SPDX-License-Identifier: MIT
 *
 * Questions: what stands at a path, and how often which value belongs to a key.
 *
 * A path is a JSON pointer if it starts with '/', else names with dots between them. An array takes
 * a position in digits, an object any name.
 */
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* One line of the answer to a count. */
typedef struct {
    TextRef text;
    int64_t count;
} Line;
CAIRN_TYPE(Line, text);

/* ---- Paths -------------------------------------------------------------------------------- */

bool path_is_valid(const char *path) {
    if (*path != '/') return true;
    for (const char *at = path; (at = strchr(at, '~')); at++) {
        if (at[1] != '0' && at[1] != '1') return false;
    }
    return true;
}

/* The next name of a path, "~1" and "~0" of a pointer resolved; *at moves to what ends it. */
static char *next_name(const char **at, bool is_pointer) {
    size_t size = strcspn(*at, is_pointer ? "/" : ".");
    char *scratch = cairn_alloc_bytes(size + 1);
    if (!scratch) return NULL;
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        char c = (*at)[i];
        if (is_pointer && c == '~') c = (*at)[++i] == '1' ? '/' : '~';
        scratch[length++] = c;
    }
    *at += size;
    return text_new(scratch, length);
}

/* The item at a position in digits; no sign, no leading zero. */
static Value *item_named(const Array *array, const char *name) {
    if (!*name || (*name == '0' && name[1])) return NULL;
    size_t number = 0;
    for (; *name; name++) {
        if (*name < '0' || *name > '9' || number >= array->count) return NULL;
        number = number * 10 + (size_t)(*name - '0');
    }
    return number < array->count ? array_at(array, number) : NULL;
}

static Value *child_named(const Value *value, const char *name) {
    if (value->kind == VALUE_ARRAY) return item_named(value_array(value), name);
    if (value->kind != VALUE_OBJECT) return NULL;
    const Entry *entry = object_find(value_object(value), name, text_length(name));
    return entry ? cairn_get(entry->value) : NULL;
}

QueryResult query_path(Value *root, const char *path, Value **found) {
    bool is_pointer = *path == '/';
    Value *value = root;
    const char *at = is_pointer ? path + 1 : path;
    while (value && *path) {
        const char *name = next_name(&at, is_pointer);
        if (!name) return QUERY_NO_MEMORY;
        value = child_named(value, name);
        if (!*at) break;
        at++;
    }
    *found = value;
    return value ? QUERY_FOUND : QUERY_ABSENT;
}

/* ---- Counts ------------------------------------------------------------------------------- */

static bool tally_add(Object *tally, const Value *value) {
    Buffer buffer = {0};
    if (value->kind == VALUE_ARRAY) {
        buffer_append(&buffer, "(an array)", 10);
    } else if (value->kind == VALUE_OBJECT) {
        buffer_append(&buffer, "(an object)", 11);
    } else {
        json_write(&buffer, value, false);
    }
    if (buffer.failed) return false;
    char *text = text_new(buffer.bytes, buffer.length);
    if (!text) return false;
    const Entry *entry = object_find(tally, text, buffer.length);
    int64_t before = entry ? cairn_get(entry->value)->number.integer : 0;
    Value *count = value_new_integer(before + 1);
    return count && object_put(tally, text, count);
}

bool query_count(const Value *value, const char *key, size_t length, Object *tally) {
    if (value->kind == VALUE_ARRAY) {
        const Array *array = value_array(value);
        for (size_t i = 0; i < array->count; i++) {
            if (!query_count(array_at(array, i), key, length, tally)) return false;
        }
    } else if (value->kind == VALUE_OBJECT) {
        const Object *object = value_object(value);
        const Entry *asked = object_find(object, key, length);
        if (asked && !tally_add(tally, cairn_get(asked->value))) return false;
        size_t at = 0;
        for (const Entry *entry; (entry = object_next(object, &at));) {
            if (!query_count(cairn_get(entry->value), key, length, tally)) return false;
        }
    }
    return true;
}

static int compare_lines(const void *a, const void *b) {
    const Line *one = a, *other = b;
    if (one->count != other->count) return one->count > other->count ? -1 : 1;
    return strcmp(cairn_get(one->text), cairn_get(other->text));
}

bool query_print_tally(const char *key, const Object *tally) {
    Line *lines = cairn_new_array(Line, tally->count);
    if (!lines) return false;
    int64_t total = 0;
    size_t at = 0, count = 0;
    for (const Entry *entry; (entry = object_next(tally, &at)); count++) {
        cairn_set(&lines[count].text, cairn_get(entry->key));
        lines[count].count = cairn_get(entry->value)->number.integer;
        total += lines[count].count;
    }
    cairn_sort(lines, count, compare_lines);
    printf("%s: %" PRId64 " values, %zu different\n", key, total, count);
    for (size_t i = 0; i < count; i++) {
        printf("%8" PRId64 " %s\n", lines[i].count, cairn_get(lines[i].text));
    }
    return true;
}
