/* SPDX-License-Identifier: MIT
 *
 * Text to values: a recursive descent with a depth limit.
 *
 * Errors carry a position; line and column are worked out only then. Keys that occur again share
 * one text per document. Whatever was made before an error is the collector's.
 */
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *start, *at, *end; /* *end == '\0' */
    Object *keys;                 /* every key so far, with value_null */
    unsigned depth;               /* open containers */
    JsonError *error;
} Parser;

static const char no_memory[] = "out of memory";

static Value *parse_value(Parser *parser);

/* Returns NULL, so that whoever finds the error can return it. */
static void *fail(const Parser *parser, const char *where, const char *message) {
    JsonError error = {1, 1, message};
    for (const char *at = parser->start; at < where; at++) {
        if (*at == '\n') {
            error.line++;
            error.column = 1;
        } else if (((unsigned char)*at & 0xC0) != 0x80) {
            error.column++;
        }
    }
    *parser->error = error;
    return NULL;
}

/* The next character that is no white space; '\0' at the end and, which is as wrong, in the text.
 */
static char peek(Parser *parser) {
    while (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\t' ||
           *parser->at == '\r') {
        parser->at++;
    }
    return *parser->at;
}

static void *fail_expected(const Parser *parser, const char *message) {
    bool at_end = parser->at == parser->end;
    return fail(parser, parser->at, at_end ? "unexpected end of the document" : message);
}

/* ---- Strings ------------------------------------------------------------------------------ */

/* Bytes of the UTF-8 character of two or more bytes at `at`; 0 if it is not well formed. The '\0'
 * behind the text ends every comparison in time. */
static size_t utf8_size(const char *at) {
    const unsigned char *byte = (const unsigned char *)at;
    unsigned low = 0x80, high = 0xBF;
    size_t size;
    if (byte[0] >= 0xC2 && byte[0] <= 0xDF) {
        size = 2;
    } else if (byte[0] >= 0xE0 && byte[0] <= 0xEF) {
        size = 3;
        if (byte[0] == 0xE0) low = 0xA0;
        if (byte[0] == 0xED) high = 0x9F;
    } else if (byte[0] >= 0xF0 && byte[0] <= 0xF4) {
        size = 4;
        if (byte[0] == 0xF0) low = 0x90;
        if (byte[0] == 0xF4) high = 0x8F;
    } else {
        return 0;
    }
    if (byte[1] < low || byte[1] > high) return 0;
    for (size_t i = 2; i < size; i++) {
        if ((byte[i] & 0xC0) != 0x80) return 0;
    }
    return size;
}

/* The closing quote of the string that starts at `from`; everything but the escapes is checked. */
static const char *string_end(const Parser *parser, const char *from, bool *has_escapes) {
    for (const char *at = from;;) {
        unsigned char c = (unsigned char)*at;
        if (at == parser->end) return fail(parser, from - 1, "this string is not closed");
        if (c == '"') return at;
        if (c < 0x20) return fail(parser, at, "a control character in a string must be escaped");
        if (c == '\\') {
            *has_escapes = true;
            at++;
            if (*at == '"' || *at == '\\') at++;
        } else if (c < 0x80) {
            at++;
        } else {
            size_t size = utf8_size(at);
            if (!size) return fail(parser, at, "this is not valid UTF-8");
            at += size;
        }
    }
}

/* The value of four hexadecimal digits, UINT32_MAX if they are not. */
static uint32_t hex4(const char *at) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)(c - 'A') + 10;
        } else {
            return UINT32_MAX;
        }
        value = value * 16 + digit;
    }
    return value;
}

static size_t utf8_put(char *out, uint32_t code) {
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = size; --i > 0; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(first[size] | code);
    return size;
}

/* The character of the escape \uXXXX, or of two that are a surrogate pair; *at moves behind it. */
static bool unicode_escape(const Parser *parser, const char **at, uint32_t *code) {
    const char *start = *at;
    *code = hex4(start + 2);
    *at += 6;
    if (*code == UINT32_MAX) {
        fail(parser, start, "\\u needs four hexadecimal digits");
        return false;
    }
    if (*code < 0xD800 || *code > 0xDFFF) return true;
    uint32_t low = *code <= 0xDBFF && start[6] == '\\' && start[7] == 'u' ? hex4(start + 8) : 0;
    if (low < 0xDC00 || low > 0xDFFF) {
        fail(parser, start, "half of a surrogate pair stands alone");
        return false;
    }
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    *at += 6;
    return true;
}

/* The text of a string with escapes; it is shorter than what it is written as. */
static char *unescape(const Parser *parser, const char *from, const char *end) {
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    char *scratch = cairn_alloc_bytes((size_t)(end - from));
    if (!scratch) return fail(parser, from, no_memory);
    size_t length = 0;
    while (from < end) {
        if (*from != '\\') {
            scratch[length++] = *from++;
        } else if (from[1] == 'u') {
            uint32_t code;
            if (!unicode_escape(parser, &from, &code)) return NULL;
            length += utf8_put(scratch + length, code);
        } else {
            const char *name = from[1] ? strchr(names, from[1]) : NULL;
            if (!name) return fail(parser, from, "there is no such escape");
            scratch[length++] = means[name - names];
            from += 2;
        }
    }
    char *text = text_new(scratch, length);
    return text ? text : fail(parser, from, no_memory);
}

/* The text of the string that starts with the quote here. */
static char *parse_text(Parser *parser) {
    const char *from = parser->at + 1;
    bool has_escapes = false;
    const char *end = string_end(parser, from, &has_escapes);
    if (!end) return NULL;
    parser->at = end + 1;
    if (has_escapes) return unescape(parser, from, end);
    char *text = text_new(from, (size_t)(end - from));
    return text ? text : fail(parser, from, no_memory);
}

static Value *parse_string(Parser *parser) {
    const char *start = parser->at;
    char *text = parse_text(parser);
    if (!text) return NULL;
    Value *value = value_new_string(text);
    return value ? value : fail(parser, start, no_memory);
}

/* ---- Numbers and names -------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Skips the digits, of which there must be one. */
static bool skip_digits(Parser *parser) {
    if (!is_digit(*parser->at)) return false;
    while (is_digit(*parser->at)) parser->at++;
    return true;
}

/* Skips a number as the grammar has it. */
static bool skip_number(Parser *parser, bool *is_real) {
    if (*parser->at == '-') parser->at++;
    if (*parser->at == '0') {
        parser->at++;
        if (is_digit(*parser->at)) return false;
    } else if (!skip_digits(parser)) {
        return false;
    }
    if (*parser->at == '.') {
        *is_real = true;
        parser->at++;
        if (!skip_digits(parser)) return false;
    }
    if (*parser->at == 'e' || *parser->at == 'E') {
        *is_real = true;
        parser->at++;
        if (*parser->at == '+' || *parser->at == '-') parser->at++;
        if (!skip_digits(parser)) return false;
    }
    return true;
}

static Value *parse_number(Parser *parser) {
    const char *start = parser->at;
    bool is_real = false;
    if (!skip_number(parser, &is_real)) return fail(parser, start, "this is not a number");
    Value *value;
    if (is_real) {
        double real = strtod(start, NULL);
        if (!isfinite(real)) return fail(parser, start, "this number is out of range");
        value = value_new_real(real);
    } else {
        errno = 0;
        long long integer = strtoll(start, NULL, 10);
        if (errno == ERANGE) return fail(parser, start, "this number is out of range");
        value = value_new_integer(integer);
    }
    return value ? value : fail(parser, start, no_memory);
}

static Value *parse_name(Parser *parser, const char *name, Value *value) {
    size_t length = strlen(name);
    if (strncmp(parser->at, name, length) != 0) return fail_expected(parser, "a value is expected");
    parser->at += length;
    return value;
}

/* ---- Containers --------------------------------------------------------------------------- */

static Value *parse_array(Parser *parser) {
    Value *value = value_new_array();
    if (!value) return fail(parser, parser->at, no_memory);
    Array *array = value_array(value);
    parser->at++;
    if (peek(parser) == ']') {
        parser->at++;
        return value;
    }
    for (;;) {
        Value *item = parse_value(parser);
        if (!item) return NULL;
        if (!array_push(array, item)) return fail(parser, parser->at, no_memory);
        char c = peek(parser);
        if (c != ',' && c != ']') return fail_expected(parser, "',' or ']' is expected");
        parser->at++;
        if (c == ']') return value;
    }
}

/* The key that starts here; one that was seen before is the same text again. */
static const char *parse_key(Parser *parser) {
    if (peek(parser) != '"') return fail_expected(parser, "a key in quotes is expected");
    const char *start = parser->at;
    const char *key = parse_text(parser);
    if (!key) return NULL;
    const Entry *known = object_find(parser->keys, key, text_length(key));
    if (known) return cairn_get(known->key);
    if (!object_put(parser->keys, key, &value_null)) return fail(parser, start, no_memory);
    return key;
}

static bool parse_member(Parser *parser, Object *object) {
    const char *key = parse_key(parser);
    if (!key) return false;
    if (peek(parser) != ':') {
        fail_expected(parser, "':' is expected");
        return false;
    }
    parser->at++;
    Value *value = parse_value(parser);
    if (!value) return false;
    if (object_put(object, key, value)) return true;
    fail(parser, parser->at, no_memory);
    return false;
}

static Value *parse_object(Parser *parser) {
    Value *value = value_new_object();
    if (!value) return fail(parser, parser->at, no_memory);
    Object *object = value_object(value);
    parser->at++;
    if (peek(parser) == '}') {
        parser->at++;
        return value;
    }
    for (;;) {
        if (!parse_member(parser, object)) return NULL;
        char c = peek(parser);
        if (c != ',' && c != '}') return fail_expected(parser, "',' or '}' is expected");
        parser->at++;
        if (c == '}') return value;
    }
}

static Value *parse_container(Parser *parser, Value *(*parse)(Parser *)) {
    if (parser->depth == JSON_DEPTH_MAX) {
        return fail(parser, parser->at, "this is nested deeper than 512 levels");
    }
    parser->depth++;
    Value *value = parse(parser);
    parser->depth--;
    return value;
}

static Value *parse_value(Parser *parser) {
    char c = peek(parser);
    switch (c) {
    case '{':
        return parse_container(parser, parse_object);
    case '[':
        return parse_container(parser, parse_array);
    case '"':
        return parse_string(parser);
    case 'n':
        return parse_name(parser, "null", &value_null);
    case 't':
        return parse_name(parser, "true", &value_true);
    case 'f':
        return parse_name(parser, "false", &value_false);
    default:
        if (c == '-' || is_digit(c)) return parse_number(parser);
        return fail_expected(parser, "a value is expected");
    }
}

Value *json_parse(const char *text, size_t length, JsonError *error) {
    Parser parser = {.start = text, .at = text, .end = text + length, .error = error};
    parser.keys = object_new();
    if (!parser.keys) return fail(&parser, text, no_memory);
    Value *value = parse_value(&parser);
    if (!value) return NULL;
    peek(&parser);
    if (parser.at == parser.end) return value;
    return fail(&parser, parser.at, "nothing may follow the document");
}
