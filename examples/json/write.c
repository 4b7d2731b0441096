/* SPDX-License-Identifier: MIT
 *
 * Values to text: compact, or indented by two spaces as iso-codes is.
 *
 * Strings are UTF-8 with the escapes that RFC 8259 demands and no others; integers are digits;
 * reals are the shortest digits that read back as the same double, always with a point or an
 * exponent.
 */
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 4096 };

typedef struct {
    Buffer *buffer;
    bool indented;
    unsigned depth;
} Writer;

static void write_value(Writer *writer, const Value *value);

bool buffer_reserve(Buffer *buffer, size_t more) {
    if (buffer->failed) return false;
    if (more <= buffer->capacity - buffer->length) return true;
    size_t capacity = buffer->capacity ? buffer->capacity : FIRST_CAPACITY;
    while (capacity - buffer->length < more && capacity <= SIZE_MAX / 2) capacity *= 2;
    char *bytes = NULL;
    if (capacity - buffer->length >= more) {
        bytes = buffer->bytes ? cairn_resize_array(buffer->bytes, capacity)
                              : cairn_alloc_bytes(capacity);
    }
    if (!bytes) {
        buffer->failed = true;
        return false;
    }
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

void buffer_append(Buffer *buffer, const char *bytes, size_t length) {
    if (length == 0 || !buffer_reserve(buffer, length)) return;
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

static void append(Writer *writer, const char *text) {
    buffer_append(writer->buffer, text, strlen(text));
}

static void new_line(Writer *writer) {
    if (!writer->indented) return;
    append(writer, "\n");
    for (unsigned i = 0; i < writer->depth; i++) append(writer, "  ");
}

static void write_escape(Writer *writer, unsigned char c) {
    static const char characters[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
    char escape[8] = {'\\'};
    const char *found = c ? strchr(characters, c) : NULL;
    if (found) {
        escape[1] = names[found - characters];
    } else {
        snprintf(escape, sizeof(escape), "\\u%04x", c);
    }
    append(writer, escape);
}

static void write_text(Writer *writer, const char *text) {
    const char *end = text + text_length(text);
    append(writer, "\"");
    while (text < end) {
        const char *from = text;
        while (text < end && (unsigned char)*text >= 0x20 && *text != '"' && *text != '\\') text++;
        buffer_append(writer->buffer, from, (size_t)(text - from));
        if (text < end) write_escape(writer, (unsigned char)*text++);
    }
    append(writer, "\"");
}

static void write_real(Writer *writer, double real) {
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof(digits) - 2, "%.*g", precision, real);
        double back = strtod(digits, NULL);
        if (memcmp(&back, &real, sizeof(real)) == 0) break;
    }
    if (!strpbrk(digits, ".e")) strcat(digits, ".0");
    append(writer, digits);
}

static void write_integer(Writer *writer, int64_t integer) {
    char digits[24];
    snprintf(digits, sizeof(digits), "%" PRId64, integer);
    append(writer, digits);
}

static void write_array(Writer *writer, const Array *array) {
    append(writer, "[");
    writer->depth++;
    for (size_t i = 0; i < array->count; i++) {
        if (i > 0) append(writer, ",");
        new_line(writer);
        write_value(writer, array_at(array, i));
    }
    writer->depth--;
    if (array->count > 0) new_line(writer);
    append(writer, "]");
}

static void write_object(Writer *writer, const Object *object) {
    const char *comma = "";
    append(writer, "{");
    writer->depth++;
    size_t at = 0;
    for (const Entry *entry; (entry = object_next(object, &at)); comma = ",") {
        append(writer, comma);
        new_line(writer);
        write_text(writer, cairn_get(entry->key));
        append(writer, writer->indented ? ": " : ":");
        write_value(writer, cairn_get(entry->value));
    }
    writer->depth--;
    if (object->count > 0) new_line(writer);
    append(writer, "}");
}

static void write_value(Writer *writer, const Value *value) {
    switch (value->kind) {
    case VALUE_NULL:
        append(writer, "null");
        break;
    case VALUE_FALSE:
        append(writer, "false");
        break;
    case VALUE_TRUE:
        append(writer, "true");
        break;
    case VALUE_INTEGER:
        write_integer(writer, value->number.integer);
        break;
    case VALUE_REAL:
        write_real(writer, value->number.real);
        break;
    case VALUE_STRING:
        write_text(writer, value_text(value));
        break;
    case VALUE_ARRAY:
        write_array(writer, value_array(value));
        break;
    case VALUE_OBJECT:
        write_object(writer, value_object(value));
        break;
    }
}

void json_write(Buffer *buffer, const Value *value, bool indented) {
    Writer writer = {.buffer = buffer, .indented = indented};
    write_value(&writer, value);
}
