/* SPDX-License-Identifier: MIT
 *
 * Whether two JSON files say the same, as jansson reads them: compare_jansson FILE [OTHER].
 *
 * OTHER is standard input if it is missing or "-". The documents must be equal by json_equal and,
 * since the example keeps the order of members, give the same text when jansson writes them in
 * order. Exit status: 0 the same, 1 not the same or unreadable, 2 bad usage.
 */
#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *load(const char *name) {
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_error_t error;
    json_t *root = strcmp(name, "-") == 0 ? json_loadf(stdin, flags, &error)
                                          : json_load_file(name, flags, &error);
    if (!root) {
        fprintf(stderr, "compare_jansson: %s:%d:%d: %s\n", name, error.line, error.column,
                error.text);
    }
    return root;
}

static int same_order(const json_t *a, const json_t *b) {
    char *one = json_dumps(a, JSON_ENCODE_ANY | JSON_COMPACT);
    char *other = json_dumps(b, JSON_ENCODE_ANY | JSON_COMPACT);
    int same = one && other && strcmp(one, other) == 0;
    free(one);
    free(other);
    return same;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fputs("usage: compare_jansson FILE [OTHER]\n", stderr);
        return 2;
    }
    json_t *expected = load(argv[1]);
    json_t *actual = load(argc > 2 ? argv[2] : "-");
    const char *difference = NULL;
    if (expected && actual) {
        if (!json_equal(expected, actual)) {
            difference = "the documents differ";
        } else if (!same_order(expected, actual)) {
            difference = "the order of members differs";
        }
    }
    if (difference) fprintf(stderr, "compare_jansson: %s: %s\n", argv[1], difference);
    int status = expected && actual && !difference ? 0 : 1;
    json_decref(expected);
    json_decref(actual);
    return status;
}
