/* SPDX-License-Identifier: MIT
 *
 * json: reads JSON files into Cairn objects, answers questions, and edits and rewrites the
 * documents in memory for many rounds. Nothing is freed by hand; the figures show that memory stays
 * flat.
 *
 * Without files it reads all of Debian's iso-codes package. Questions come before the rounds and
 * are about the files as they are; no file is ever changed.
 */
#define _POSIX_C_SOURCE 200809L

#include "json.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2, ROUNDS_DEFAULT = 50, ROUNDS_MAX = 1000000, READ_SIZE = 65536 };

static const char iso_codes[] = "/usr/share/iso-codes/json";

static const char usage[] =
    "usage: json [OPTION]... [FILE]...\n"
    "Reads JSON files, those of iso-codes if none are named, into garbage-collected objects.\n"
    "\n"
    "  --query PATH   print what stands at PATH: 639-3.0.name or /639-3/0/name\n"
    "  --count KEY    print which values the key has, and how often\n"
    "  --print        print the documents, indented by two spaces\n"
    "  --rounds N     rewrite and edit the documents N times and print memory figures; 50,\n"
    "                 or 0 after --query, --count and --print\n"
    "  --help         print this text\n"
    "\n"
    "Exit status: 0, or 1 if a file is bad or PATH leads nowhere, or 2 for bad usage.\n";

typedef struct {
    const char *query, *count; /* NULL: not asked */
    bool prints;
    bool helps;
    unsigned long rounds;
} Options;

static bool report(const char *name, const char *message) {
    fprintf(stderr, "json: %s: %s\n", name, message);
    return false;
}

/* ---- Options ------------------------------------------------------------------------------ */

static bool parse_rounds(const char *text, unsigned long *rounds) {
    char *end;
    errno = 0;
    *rounds = strtoul(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && *rounds <= ROUNDS_MAX;
}

/* False: a message is on stderr. Behind the options, from optind on, are the files. */
static bool parse_options(int argc, char **argv, Options *options) {
    static const struct option known[] = {
        {"rounds", required_argument, NULL, 'r'}, {"query", required_argument, NULL, 'q'},
        {"count", required_argument, NULL, 'c'},  {"print", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    bool has_rounds = false;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'r') {
            has_rounds = true;
            if (!parse_rounds(optarg, &options->rounds)) {
                return report(optarg, "--rounds needs a number up to 1000000");
            }
        } else if (option == 'q') {
            options->query = optarg;
            if (!path_is_valid(optarg)) return report(optarg, "'~' must be followed by 0 or 1");
        } else if (option == 'c') {
            options->count = optarg;
        } else if (option == 'p') {
            options->prints = true;
        } else if (option == 'h') {
            options->helps = true;
        } else {
            return false;
        }
    }
    if (!has_rounds && !options->query && !options->count && !options->prints) {
        options->rounds = ROUNDS_DEFAULT;
    }
    return true;
}

/* ---- Files -------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) {
    const TextRef *one = a, *other = b;
    return strcmp(cairn_get(*one), cairn_get(*other));
}

static bool add_name(TextRef **names, size_t *count, char *name) {
    if (name && *count == cairn_length(*names)) {
        TextRef *more = cairn_resize_array(*names, *count * 2);
        if (!more) return false;
        *names = more;
    }
    if (name) cairn_set(&(*names)[(*count)++], name);
    return name != NULL;
}

/* The names of the JSON files in the directory of iso-codes, sorted. */
static TextRef *list_iso_codes(size_t *count) {
    TextRef *names = cairn_new_array(TextRef, 16);
    DIR *directory = opendir(iso_codes);
    bool has_memory = names != NULL;
    if (!directory) {
        report(iso_codes, strerror(errno));
        return NULL;
    }
    for (const struct dirent *file; has_memory && (file = readdir(directory));) {
        const char *suffix = strrchr(file->d_name, '.');
        if (!suffix || strcmp(suffix, ".json") != 0) continue;
        has_memory = add_name(&names, count, cairn_format("%s/%s", iso_codes, file->d_name));
    }
    closedir(directory);
    if (!has_memory || *count == 0) {
        report(iso_codes, has_memory ? "no JSON files here" : "out of memory");
        return NULL;
    }
    cairn_sort(names, *count, compare_names);
    return names;
}

static TextRef *list_arguments(char **arguments, size_t count) {
    TextRef *names = cairn_new_array(TextRef, count);
    for (size_t i = 0; names && i < count; i++) {
        char *name = cairn_strdup(arguments[i]);
        if (name) {
            cairn_set(&names[i], name);
        } else {
            names = NULL;
        }
    }
    if (!names) report("file names", "out of memory");
    return names;
}

/* The bytes of a file as a text; NULL: a message is on stderr. */
static char *read_text(const char *name) {
    FILE *file = fopen(name, "rb");
    if (!file) {
        report(name, strerror(errno));
        return NULL;
    }
    Buffer buffer = {0};
    while (!feof(file) && !ferror(file) && buffer_reserve(&buffer, READ_SIZE)) {
        buffer.length += fread(buffer.bytes + buffer.length, 1, READ_SIZE, file);
    }
    int error = ferror(file) ? errno : 0;
    fclose(file);
    char *text = buffer.failed || error ? NULL : text_new(buffer.bytes, buffer.length);
    if (!text) report(name, error ? strerror(error) : "out of memory");
    return text;
}

static bool load(Document *document, const char *name) {
    char *text = read_text(name);
    if (!text) return false;
    JsonError error;
    Value *root = json_parse(text, text_length(text), &error);
    if (!root) {
        fprintf(stderr, "json: %s:%zu:%zu: %s\n", name, error.line, error.column, error.message);
        return false;
    }
    cairn_set(&document->name, name);
    cairn_set(&document->text, text);
    cairn_set(&document->root, root);
    return true;
}

/* All documents; NULL: messages, one for each bad file, are on stderr. */
static Document *load_all(char **arguments, size_t *count) {
    TextRef *names = *count ? list_arguments(arguments, *count) : list_iso_codes(count);
    if (!names) return NULL;
    Document *documents = cairn_new_array(Document, *count);
    if (!documents) {
        report("documents", "out of memory");
        return NULL;
    }
    bool is_good = true;
    for (size_t i = 0; i < *count; i++) {
        if (!load(&documents[i], cairn_get(names[i]))) is_good = false;
    }
    return is_good ? documents : NULL;
}

/* ---- Answers ------------------------------------------------------------------------------ */

static bool print_value(const Value *value) {
    Buffer buffer = {0};
    json_write(&buffer, value, true);
    buffer_append(&buffer, "\n", 1);
    if (buffer.failed) return report("printing", "out of memory");
    return fwrite(buffer.bytes, 1, buffer.length, stdout) == buffer.length;
}

/* What stands at the path, in every document that has it. */
static bool answer_query(const Document *documents, size_t count, const char *path) {
    bool found_any = false;
    for (size_t i = 0; i < count; i++) {
        Value *found;
        QueryResult result = query_path(cairn_get(documents[i].root), path, &found);
        if (result == QUERY_NO_MEMORY) return report(path, "out of memory");
        if (result == QUERY_ABSENT) continue;
        found_any = true;
        if (!print_value(found)) return false;
    }
    return found_any || report(path, "there is nothing at this path");
}

static bool answer_count(const Document *documents, size_t count, const char *key) {
    Object *tally = object_new();
    bool has_memory = tally != NULL;
    for (size_t i = 0; has_memory && i < count; i++) {
        has_memory = query_count(cairn_get(documents[i].root), key, strlen(key), tally);
    }
    return (has_memory && query_print_tally(key, tally)) || report(key, "out of memory");
}

static bool run(Document *documents, size_t count, const Options *options) {
    if (options->query && !answer_query(documents, count, options->query)) return false;
    if (options->count && !answer_count(documents, count, options->count)) return false;
    for (size_t i = 0; options->prints && i < count; i++) {
        if (!print_value(cairn_get(documents[i].root))) return false;
    }
    return options->rounds == 0 || rounds_run(documents, count, options->rounds);
}

int main(int argc, char **argv) {
    Options options = {0};
    if (!parse_options(argc, argv, &options)) {
        fputs("Try 'json --help'.\n", stderr);
        return EXIT_USAGE;
    }
    bool is_good = true;
    if (options.helps) {
        fputs(usage, stdout);
    } else {
        size_t count = (size_t)(argc - optind);
        Document *documents = load_all(argv + optind, &count);
        is_good = documents && run(documents, count, &options);
    }
    if (ferror(stdout) || fflush(stdout) != 0) is_good = report("stdout", "cannot write");
    return is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
