/* SPDX-License-Identifier: MIT
 *
 * Many rounds of writing, reading back and editing, without one free.
 *
 * A round turns each document into text, reads that text, and in the new document marks every
 * object with the round, moves its first member to the end and reverses every array. The old
 * document and the text are dropped: memory stays flat. Afterwards the marks are removed and, after
 * an odd number of rounds, the arrays are turned back; then each document must equal its file.
 */
#define _POSIX_C_SOURCE 200809L

#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

typedef struct {
    const char *mark; /* a key that is in no document */
    Value *round;     /* its value in this round; NULL: take the marks away */
    bool reverses;    /* turn the arrays */
} Edit;

static bool report(const char *name, const char *message) {
    fprintf(stderr, "json: %s: %s\n", name, message);
    return false;
}

/* ---- Editing ------------------------------------------------------------------------------ */

static bool edit_value(const Edit *edit, Value *value);

/* Moves the first member behind the last. */
static bool rotate_members(Object *object) {
    size_t at = 0;
    const Entry *first = object_next(object, &at);
    if (!first) return true;
    const char *key = cairn_get(first->key);
    Value *value = cairn_get(first->value);
    object_remove(object, key, text_length(key));
    return object_put(object, key, value);
}

static bool edit_object(const Edit *edit, Object *object) {
    size_t at = 0;
    for (const Entry *entry; (entry = object_next(object, &at));) {
        if (!edit_value(edit, cairn_get(entry->value))) return false;
    }
    if (!edit->round) {
        object_remove(object, edit->mark, text_length(edit->mark));
        return true;
    }
    return rotate_members(object) && object_put(object, edit->mark, edit->round);
}

static bool edit_value(const Edit *edit, Value *value) {
    if (value->kind == VALUE_OBJECT) return edit_object(edit, value_object(value));
    if (value->kind != VALUE_ARRAY) return true;
    Array *array = value_array(value);
    for (size_t i = 0; i < array->count; i++) {
        if (!edit_value(edit, array_at(array, i))) return false;
    }
    if (edit->reverses) array_reverse(array);
    return true;
}

/* A key that no object of the documents has. */
static const char *choose_mark(const Document *documents, size_t count) {
    char *mark = cairn_strdup("round");
    for (size_t i = 0; mark && i < count; i++) {
        Object *tally = object_new();
        size_t length = text_length(mark);
        if (!tally || !query_count(cairn_get(documents[i].root), mark, length, tally)) return NULL;
        if (tally->count == 0) continue;
        mark = cairn_format("%s_", mark);
        i = SIZE_MAX; /* The next document is the first one again. */
    }
    return mark;
}

/* ---- Rounds ------------------------------------------------------------------------------- */

static bool rewrite(Document *document, const Edit *edit) {
    const char *name = cairn_get(document->name);
    Buffer buffer = {0};
    json_write(&buffer, cairn_get(document->root), false);
    buffer_append(&buffer, "", 1);
    if (buffer.failed) return report(name, "out of memory");
    JsonError error;
    Value *root = json_parse(buffer.bytes, buffer.length - 1, &error);
    if (!root) return report(name, error.message);
    if (!edit_value(edit, root)) return report(name, "out of memory");
    cairn_set(&document->root, root);
    return true;
}

/* Resident memory of the process in KiB; 0 if the system does not say. */
static uint64_t resident_kib(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    uint64_t size, resident;
    int fields = fscanf(file, "%" SCNu64 " %" SCNu64, &size, &resident);
    fclose(file);
    return fields == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) / 1024 : 0;
}

static bool print_figures(unsigned long round) {
    cairn_stats stats = CAIRN_STATS_INIT;
    cairn_status status = cairn_stats_get(NULL, &stats);
    if (status != CAIRN_OK) return report("memory figures", cairn_status_text(status));
    printf("%8lu %12" PRIu64 " %13" PRIu64 " %12" PRIu64 " %12" PRIu64 " %7" PRIu64 " %7" PRIu64
           "\n",
           round, stats.allocated_bytes / 1024, (stats.live_bytes + stats.young_bytes) / 1024,
           stats.committed_bytes / 1024, resident_kib(), stats.epochs, stats.traces);
    return true;
}

/* Undoes the edits and compares with what stands in the file. */
static bool check(Document *document, const Edit *undo) {
    const char *name = cairn_get(document->name);
    const char *text = cairn_get(document->text);
    if (!rewrite(document, undo)) return false;
    JsonError error;
    Value *original = json_parse(text, text_length(text), &error);
    if (!original) return report(name, error.message);
    if (value_equal(original, cairn_get(document->root))) return true;
    return report(name, "the document has changed; this is a bug");
}

bool rounds_run(Document *documents, size_t count, unsigned long rounds) {
    unsigned long step = rounds / 10 > 10 ? rounds / 10 : 10;
    Edit edit = {.mark = choose_mark(documents, count), .reverses = true};
    if (!edit.mark) return report("rounds", "out of memory");
    printf("   round allocated_kib occupied_kib committed_kib resident_kib  epochs  traces\n");
    for (unsigned long round = 1; round <= rounds; round++) {
        char *text = cairn_format("round %lu", round);
        edit.round = text ? value_new_string(text) : NULL;
        if (!edit.round) return report("rounds", "out of memory");
        for (size_t i = 0; i < count; i++) {
            if (!rewrite(&documents[i], &edit)) return false;
        }
        bool is_due = round == 1 || round == 10 || round == rounds || round % step == 0;
        if (is_due && !print_figures(round)) return false;
    }
    Edit undo = {.mark = edit.mark, .reverses = rounds % 2 == 1};
    for (size_t i = 0; i < count; i++) {
        if (!check(&documents[i], &undo)) return false;
    }
    return true;
}
