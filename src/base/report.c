/* SPDX-License-Identifier: MIT
 *
 * See report.h. Formats into memory of its own and writes by one system call: a report may come
 * from a signal handler, from inside malloc or with any lock held, and write is a function of libc
 * that Cairn stands in front of.
 *
 * The memory belongs to the thread and is used again by its next report, so a handler that leaves
 * with longjmp leaks nothing. Without memory all threads share one: then two reports at once may
 * be mixed.
 */
#define _GNU_SOURCE
#include "base/report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { TEXT_BYTES = 48 * 1024, JSON_BYTES = 96 * 1024, LINES_MAX = 224, MEMBERS_MAX = 24 };

struct line {
    const char *key;
    size_t at, length; /* of the text behind the key */
    bool is_item;
};

struct member {
    const char *key, *string; /* NULL: a number */
    uint64_t number;
};

struct crn_report {
    cairn_violation violation;
    size_t text_length, json_length;
    unsigned line_count, member_count;
    struct line lines[LINES_MAX];
    struct member members[MEMBERS_MAX];
    char text[TEXT_BYTES], json[JSON_BYTES];
};

static const char *const titles[] = {
    [CAIRN_VIOLATION_CONTRACT] = "broken contract",
    [CAIRN_VIOLATION_USE_AFTER_DELETE] = "use after delete",
    [CAIRN_VIOLATION_USE_AFTER_DEATH] = "use after death",
    [CAIRN_VIOLATION_DOUBLE_DELETE] = "double delete",
    [CAIRN_VIOLATION_BAD_DELETE] = "bad delete",
    [CAIRN_VIOLATION_OUT_OF_BOUNDS] = "out of bounds",
    [CAIRN_VIOLATION_NOT_AN_OBJECT] = "not an object",
    [CAIRN_VIOLATION_UNDECLARED_FIELD] = "undeclared field",
    [CAIRN_VIOLATION_CROSSES_HEAPS] = "a reference crosses heaps",
    [CAIRN_VIOLATION_FORGOTTEN_STORE] = "forgotten store",
    [CAIRN_VIOLATION_PLAIN_COPY] = "plain copy",
    [CAIRN_VIOLATION_WRONG_TYPE] = "wrong type",
};

static cairn_report_handler report_handler;
static void *report_context;
static cairn_report_policy report_policy = CAIRN_REPORT_ABORT;
static char report_path[PATH_MAX]; /* empty: none */

void cairn_on_report(cairn_report_handler handler, void *context) {
    report_context = context;
    report_handler = handler;
}

void cairn_report_set_policy(cairn_report_policy policy) {
    CAIRN_REQUIRE(policy <= CAIRN_REPORT_CALLBACK, "cairn_report_set_policy: %d is no policy",
                  (int)policy);
    report_policy = policy;
}

/* ---- Building -----------------------------------------------------------------------------------
 */

static struct crn_report *own_report(void) {
    static struct crn_report shared;
    static CAIRN_THREAD_LOCAL_ struct crn_report *own __attribute__((tls_model("initial-exec")));
    if (own) return own;
    void *fresh =
        mmap(NULL, sizeof(*own), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) return &shared;
    madvise(fresh, sizeof(*own), MADV_NOHUGEPAGE);
    own = fresh;
    return own;
}

static void add_text(struct crn_report *report, const char *format, va_list arguments) {
    size_t room = TEXT_BYTES - 1 - report->text_length; /* one is left for the newline */
    int length = vsnprintf(report->text + report->text_length, room, format, arguments);
    if (length > 0) report->text_length += crn_min((size_t)length, room - 1);
}

static __attribute__((format(printf, 2, 3))) void add(struct crn_report *report, const char *format,
                                                      ...) {
    va_list arguments;
    va_start(arguments, format);
    add_text(report, format, arguments);
    va_end(arguments);
}

static struct crn_report *begin(cairn_violation violation) {
    struct crn_report *report = own_report();
    report->violation = violation;
    report->text_length = report->json_length = 0;
    report->line_count = report->member_count = 0;
    return report;
}

struct crn_report *crn_report_begin(cairn_violation violation) {
    struct crn_report *report = begin(violation);
    add(report, "%s", titles[violation]);
    return report;
}

static void note_line(struct crn_report *report, const char *key, size_t at, bool is_item) {
    if (report->line_count == LINES_MAX) return;
    report->lines[report->line_count++] = (struct line){key, at, report->text_length - at, is_item};
}

void crn_report_line(struct crn_report *report, const char *key, const char *format, ...) {
    add(report, "\n  %s: ", key);
    size_t at = report->text_length;
    va_list arguments;
    va_start(arguments, format);
    add_text(report, format, arguments);
    va_end(arguments);
    note_line(report, key, at, false);
}

void crn_report_item(struct crn_report *report, const char *key, const char *text) {
    add(report, "\n    ");
    size_t at = report->text_length;
    add(report, "%s", text);
    note_line(report, key, at, true);
}

static void add_member(struct crn_report *report, struct member member) {
    if (report->member_count < MEMBERS_MAX) report->members[report->member_count++] = member;
}
void crn_report_number(struct crn_report *report, const char *key, uint64_t value) {
    add_member(report, (struct member){key, NULL, value});
}
void crn_report_string(struct crn_report *report, const char *key, const char *value) {
    if (value) add_member(report, (struct member){key, value, 0});
}

/* ---- JSON ---------------------------------------------------------------------------------------
 *
 * {"violation":"use after delete","what":"...","held by":["...","..."],"offset":4}
 */

enum { JSON_RESERVE = 64 }; /* for what closes the object, whatever came before */

static void put(struct crn_report *report, char c) {
    if (report->json_length < JSON_BYTES - 1) report->json[report->json_length++] = c;
}

static void put_all(struct crn_report *report, const char *text) {
    while (*text) put(report, *text++);
}

/* The bytes of the character that begins here, 0 if it is not UTF-8 (RFC 3629). */
static size_t character_bytes(const unsigned char *at, size_t left) {
    if (at[0] < 0x80) return 1;
    size_t bytes = at[0] >= 0xc2 && at[0] < 0xe0   ? 2
                   : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                   : at[0] >= 0xf0 && at[0] < 0xf5 ? 4
                                                   : 0;
    if (bytes == 0 || bytes > left) return 0;
    for (size_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
    }
    bool is_overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool is_surrogate = at[0] == 0xed && at[1] >= 0xa0;
    bool is_beyond = at[0] == 0xf4 && at[1] >= 0x90;
    return is_overlong || is_surrogate || is_beyond ? 0 : bytes;
}

/* Cut where the object would grow too long; what is not UTF-8 is replaced. */
static void put_string(struct crn_report *report, const char *text, size_t length) {
    put(report, '"');
    for (size_t i = 0; i < length && report->json_length < JSON_BYTES - JSON_RESERVE;) {
        const unsigned char *at = (const unsigned char *)text + i;
        size_t bytes = character_bytes(at, length - i);
        char escape[8];
        if (bytes == 0) {
            put_all(report, "\\ufffd");
        } else if (*at == '"' || *at == '\\') {
            put(report, '\\');
            put(report, (char)*at);
        } else if (*at < 0x20) {
            snprintf(escape, sizeof(escape), "\\u%04x", *at);
            put_all(report, escape);
        } else {
            for (size_t k = 0; k < bytes; k++) put(report, (char)at[k]);
        }
        i += bytes ? bytes : 1;
    }
    put(report, '"');
}

/* Whether a member of some length still fits. */
static bool has_room(const struct crn_report *report) {
    return report->json_length < JSON_BYTES - 4 * JSON_RESERVE;
}

static void put_key(struct crn_report *report, const char *key) {
    put(report, ',');
    put_string(report, key, strlen(key));
    put(report, ':');
}

/* All lines of one key where its first stands. */
static void put_lines(struct crn_report *report, unsigned first) {
    const char *key = report->lines[first].key;
    for (unsigned i = 0; i < first; i++) {
        if (strcmp(report->lines[i].key, key) == 0) return;
    }
    unsigned count = 0;
    for (unsigned i = first; i < report->line_count; i++) {
        count += strcmp(report->lines[i].key, key) == 0;
    }
    bool is_array = count > 1 || report->lines[first].is_item;
    put_key(report, key);
    if (is_array) put(report, '[');
    for (unsigned i = first, done = 0; i < report->line_count; i++) {
        const struct line *line = &report->lines[i];
        if (strcmp(line->key, key) != 0 || (done > 0 && !has_room(report))) continue;
        if (done++ > 0) put(report, ',');
        put_string(report, report->text + line->at, line->length);
    }
    if (is_array) put(report, ']');
}

static void write_json(struct crn_report *report) {
    put(report, '{');
    const char *title = titles[report->violation];
    put_string(report, "violation", strlen("violation"));
    put(report, ':');
    put_string(report, title, strlen(title));
    for (unsigned i = 0; i < report->line_count && has_room(report); i++) put_lines(report, i);
    for (unsigned i = 0; i < report->member_count && has_room(report); i++) {
        const struct member *member = &report->members[i];
        char number[32];
        put_key(report, member->key);
        if (member->string) {
            put_string(report, member->string, strlen(member->string));
            continue;
        }
        snprintf(number, sizeof(number), "%llu", (unsigned long long)member->number);
        put_all(report, number);
    }
    put(report, '}');
    report->json[report->json_length] = 0;
}

/* ---- Where it goes ------------------------------------------------------------------------------
 */

/* A pipe that nobody reads is an error, and no reason to wait. */
static int open_file(const char *path) {
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0666);
}

bool crn_report_to_file(const char *path) {
    if (!*path || strlen(path) >= sizeof(report_path) - 1) return false;
    int file = open_file(path);
    if (file < 0) return false;
    syscall(SYS_close, file);
    /* The program may go to another directory. */
    report_path[0] = 0;
    if (*path != '/' && !getcwd(report_path, sizeof(report_path) - strlen(path) - 1)) return false;
    if (*path != '/') strcat(report_path, "/");
    strcat(report_path, path);
    return true;
}

static void write_parts(int file, const char *first, const char *text, size_t length) {
    static char newline[] = "\n";
    struct iovec parts[] = {
        {(char *)(uintptr_t)first, strlen(first)}, {(char *)(uintptr_t)text, length}, {newline, 1}};
    syscall(SYS_writev, file, parts, 3);
}

static void write_file(const struct crn_report *report) {
    if (!report_path[0]) return;
    int file = open_file(report_path);
    if (file < 0) return;
    write_parts(file, "", report->json, report->json_length);
    syscall(SYS_close, file);
}

bool crn_report_is_told(cairn_violation violation, const char *file, int line, const void *code) {
    enum { SEEN = 1024 };
    static uint64_t seen[SEEN]; /* atomic; of places */
    if (report_policy != CAIRN_REPORT_LOG) return false;
    uint64_t hash = file ? (uintptr_t)file * 31 + (uint64_t)line : (uintptr_t)code;
    hash = (hash ^ ((uint64_t)violation << 56)) * 0x9e3779b97f4a7c15u | 1;
    for (unsigned i = 0; i < SEEN; i++) {
        uint64_t *cell = &seen[(hash + i) % SEEN], free = 0;
        if (__atomic_load_n(cell, __ATOMIC_RELAXED) == hash) return true;
        if (__atomic_compare_exchange_n(cell, &free, hash, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            return false;
        }
        if (free == hash) return true;
    }
    return true; /* so many places: enough has been said */
}

static void finish(struct crn_report *report, bool may_go_on) {
    int saved = errno;
    bool goes_on = may_go_on && report_policy != CAIRN_REPORT_ABORT;
    report->text[report->text_length] = 0;
    write_json(report);
    write_file(report);
    if (report_handler) {
        cairn_report told = {sizeof(told), report->violation, report->text, report->json};
        report_handler(&told, report_context);
    }
    if (goes_on && report_policy == CAIRN_REPORT_CALLBACK) {
        errno = saved;
        return;
    }
    /* Not cancelled meanwhile: locks may be held and the world stopped. */
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    write_parts(STDERR_FILENO, "cairn: ", report->text, report->text_length);
    if (!goes_on) abort();
    pthread_setcancelstate(cancel_state, NULL);
    errno = saved;
}

void crn_report_end(struct crn_report *report) {
    finish(report, true);
}

_Noreturn void crn_report_abort(struct crn_report *report) {
    finish(report, false);
    abort();
}

void crn_note(const char *format, ...) {
    char text[512];
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (length > 0) {
        write_parts(STDERR_FILENO, "cairn: note: ", text,
                    crn_min((size_t)length, sizeof(text) - 1));
    }
    errno = saved;
}

_Noreturn void crn_fail(const char *format, ...) {
    struct crn_report *report = begin(CAIRN_VIOLATION_CONTRACT);
    va_list arguments;
    va_start(arguments, format);
    add_text(report, format, arguments);
    va_end(arguments);
    note_line(report, "what", 0, false);
    crn_report_abort(report);
}
