/* SPDX-License-Identifier: MIT
 *
 * See stack.h. The helper is what people have: addr2line of binutils or of LLVM, asked with -fpiC
 * for a line per address, and further ones for what it was inlined into. It is a child of the
 * program's: SIGCHLD handlers see it come and go. A privileged program (set-user-ID and its like)
 * starts none.
 */
#define _GNU_SOURCE
#include "os/stack.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

extern char **environ;

/* ---- Frames -------------------------------------------------------------------------------------
 */

/* glibc's, in programs that are linked to it dynamically. */
extern int backtrace(void **frames, int count) __attribute__((weak));

static void add_frame(struct crn_trace *trace, uintptr_t frame) {
    if (trace->count < CRN_FRAMES_MAX) trace->frames[trace->count++] = frame;
}

/* Each frame record is two words: the caller's record, and where it returns to. A compiler that
 * omits frame pointers leaves anything in the register: what does not lead up the stack ends it. */
static CRN_NO_SANITIZE void follow_frames(struct crn_trace *trace, uintptr_t record,
                                          const char *low, const char *high) {
    for (unsigned i = 0; i < CRN_FRAMES_MAX; i++) {
        bool is_inside = record >= (uintptr_t)low &&
                         record + 2 * sizeof(uintptr_t) <= (uintptr_t)high &&
                         record % sizeof(uintptr_t) == 0;
        if (!is_inside) return;
        const volatile uintptr_t *words = (const volatile uintptr_t *)record;
        uintptr_t above = words[0], returns_to = words[1];
        if (!returns_to) return;
        add_frame(trace, returns_to);
        if (above <= record) return;
        record = above;
    }
}

static uintptr_t record_of_context(const void *context) {
    const ucontext_t *user = context;
#if defined(__x86_64__)
    return (uintptr_t)user->uc_mcontext.gregs[REG_RBP];
#else
    return (uintptr_t)user->uc_mcontext.regs[29];
#endif
}

/* What the unwinder saw from `wanted` on; false if that is not among it. */
static bool take_from(struct crn_trace *trace, void *const *seen, int count, uintptr_t wanted) {
    for (int i = 0; i < count; i++) {
        if ((uintptr_t)seen[i] != wanted) continue;
        while (i < count) add_frame(trace, (uintptr_t)seen[i++]);
        return true;
    }
    return false;
}

void crn_os_trace_prepare(void) {
    static bool is_prepared; /* atomic */
    if (__atomic_exchange_n(&is_prepared, true, __ATOMIC_RELAXED)) return;
    void *frame;
    if (backtrace && !crn_os_has_thread_sanitizer()) backtrace(&frame, 1);
}

CRN_NOINLINE void crn_os_trace(struct crn_trace *trace, const void *first, const void *context,
                               const char *stack_low, const char *stack_high) {
    uintptr_t wanted = context ? crn_os_context_program_counter(context) : (uintptr_t)first;
    trace->count = 0;
    trace->is_exact = context != NULL;
    void *seen[CRN_FRAMES_MAX + 16];
    int saved = errno;
    /* ThreadSanitizer objects to the library that the unwinder loads in a signal handler. */
    bool may_unwind = backtrace && !crn_os_has_thread_sanitizer();
    int count = may_unwind ? backtrace(seen, CRN_FRAMES_MAX + 16) : 0;
    errno = saved;
    if (take_from(trace, seen, count, wanted)) return;
    add_frame(trace, wanted);
    if (context) {
        follow_frames(trace, record_of_context(context), stack_low, stack_high);
        return;
    }
    struct crn_trace all = {.count = 0};
    follow_frames(&all, (uintptr_t)__builtin_frame_address(0), stack_low, stack_high);
    for (unsigned i = 0; i < all.count; i++) {
        if (all.frames[i] != wanted) continue;
        while (++i < all.count) add_frame(trace, all.frames[i]);
    }
}

/* ---- Names --------------------------------------------------------------------------------------
 */

static char symbolizer[PATH_MAX] = "addr2line";

void crn_os_use_symbolizer(const char *path) {
    snprintf(symbolizer, sizeof(symbolizer), "%s", strcmp(path, "0") == 0 ? "" : path);
}

/* On no stack: a report from a fault may stand on a small one. */
struct naming {
    struct {
        struct crn_module module;
        bool is_known;
    } names[CRN_FRAMES_MAX];
    char name[240], offsets[CRN_FRAMES_MAX][24], answer[32 * 1024], helper[PATH_MAX];
    _Alignas(16) char stack[16 * 1024]; /* of the helper before it is one */
};

/* As execvp would find it. Not by posix_spawn, which allocates: the report may come from inside
 * malloc. */
static bool find_helper(char *path) {
    const char *at = strchr(symbolizer, '/') ? NULL : getenv("PATH");
    if (!at) at = "";
    for (;;) {
        size_t length = strcspn(at, ":");
        bool fits = length + strlen(symbolizer) + 2 <= PATH_MAX;
        if (fits) {
            memcpy(path, at, length);
            path[length] = 0;
            if (length) strcat(path, "/");
            strcat(path, symbolizer);
            if (access(path, X_OK) == 0) return true;
        }
        if (!at[length]) return false;
        at += length + 1;
    }
}

struct helper_start {
    const char *path;
    char *const *arguments;
    int output;
};

/* Shares the program's memory, on a stack of its own, until it has become the helper: system calls
 * only. */
static CRN_NO_SANITIZE int become_helper(void *argument) {
    const struct helper_start *start = argument;
    uint64_t none[16] = {0};
    int nowhere = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY, 0);
    if (start->output == STDOUT_FILENO)
        syscall(SYS_fcntl, start->output, F_SETFD, 0);
    else
        syscall(SYS_dup3, start->output, STDOUT_FILENO, 0);
    syscall(SYS_dup3, nowhere, STDERR_FILENO, 0);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, none, NULL, (size_t)8);
    syscall(SYS_execve, start->path, start->arguments, environ);
    syscall(SYS_exit_group, 127);
    return 127;
}

/* No signal of the program's is handled by the child, which would do it in the program's memory. */
static pid_t start_helper(struct helper_start *start, char *stack_high) {
    uint64_t all[16], before[16];
    memset(all, 0xff, sizeof(all));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, all, before, (size_t)8);
    pid_t child = clone(become_helper, stack_high, CLONE_VM | CLONE_VFORK | SIGCHLD, start);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, before, NULL, (size_t)8);
    return child;
}

enum { HELPER_NS = 2000000000, HELPER_REST_NS = 100000000 };
static const char inlined_into[] = " (inlined by) ";

/* How many lines there are, those apart that go on about the address before. */
static unsigned count_addresses(const char *answer) {
    unsigned count = 0;
    for (const char *at = answer; (at = strchr(at, '\n')) != NULL;) {
        at++;
        count += strncmp(at, inlined_into, sizeof(inlined_into) - 1) != 0;
    }
    return count;
}

/* Reads to the end, or what comes within the time: once there is a line for each address the helper
 * has but a moment left. Not through libc, for Cairn stands in front of these calls and this thread
 * may be about to abort. */
static size_t read_lines(int file, unsigned count, uint64_t until_ns, char *answer, size_t bytes) {
    size_t length = 0;
    bool has_all = false;
    answer[0] = 0;
    while (length < bytes - 1) {
        uint64_t now = crn_os_now_ns();
        if (!has_all && count_addresses(answer) >= count) {
            has_all = true;
            until_ns = crn_min(until_ns, now + HELPER_REST_NS);
        }
        struct pollfd wanted = {.fd = file, .events = POLLIN};
        struct timespec left = {0, 0};
        if (now < until_ns) {
            left.tv_sec = (time_t)((until_ns - now) / 1000000000u);
            left.tv_nsec = (long)((until_ns - now) % 1000000000u);
        }
        long ready = syscall(SYS_ppoll, &wanted, 1L, &left, NULL, 0L);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) break;
        long got = syscall(SYS_read, file, answer + length, bytes - 1 - length);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        length += (size_t)got;
        answer[length] = 0;
    }
    return length;
}

/* It has said all that is read of it. */
static void end_helper(pid_t child) {
    syscall(SYS_kill, child, SIGKILL);
    while (syscall(SYS_wait4, child, NULL, 0, NULL) < 0 && errno == EINTR) {}
}

/* Runs the helper on a file's addresses; returns how much it wrote. */
static size_t ask_helper(struct naming *naming, const char *path, unsigned count) {
    int ends[2];
    /* ThreadSanitizer takes what the clone does for the thread's own. */
    if (crn_os_has_thread_sanitizer()) return 0;
    if (!symbolizer[0] || crn_os_is_privileged() || !find_helper(naming->helper)) return 0;
    if (pipe2(ends, O_CLOEXEC) != 0) return 0;
    char *arguments[4 + CRN_FRAMES_MAX + 1] = {symbolizer, (char[]){"-fpiC"}, (char[]){"-e"},
                                               (char *)(uintptr_t)path};
    for (unsigned i = 0; i < count; i++) arguments[4 + i] = naming->offsets[i];
    uint64_t until_ns = crn_os_now_ns() + HELPER_NS;
    struct helper_start start = {naming->helper, arguments, ends[1]};
    pid_t child = start_helper(&start, naming->stack + sizeof(naming->stack));
    syscall(SYS_close, ends[1]);
    size_t length = 0;
    if (child > 0) {
        length = read_lines(ends[0], count, until_ns, naming->answer, sizeof(naming->answer));
    }
    syscall(SYS_close, ends[0]);
    if (child > 0) end_helper(child);
    return length;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What the helper adds where it does not know a line, or knows more than that. */
static void cut_noise(char *line) {
    static const char *const noise[] = {" (discriminator ", " at ??:"};
    for (size_t i = 0; i < sizeof(noise) / sizeof(*noise); i++) {
        char *at = strstr(line, noise[i]);
        if (at) *at = 0;
    }
}

/* The line at `*at`, of which it is cut off, without what the helper adds; NULL at the end. */
static char *next_line(char **at) {
    char *line = *at, *end = line ? strchr(line, '\n') : NULL;
    if (!end) return NULL;
    *end = 0;
    *at = end + 1;
    cut_noise(line);
    return line;
}

bool crn_os_frame_is_own(const char *name) {
    const char *end = strstr(name, " at ");
    return strncmp(name, "cairn_", 6) == 0 && end && end[-1] == '_';
}

/* The next address of the answer: "name at file:line", and for each function that it is inlined
 * into ", inlined by name at file:line". NULL where there are none, or the file has no such
 * information ("?? ??:0"). */
static char *next_name(char **at, char *name, size_t bytes) {
    char *line = next_line(at);
    if (!line) return NULL;
    bool is_known = strncmp(line, "??", 2) != 0;
    size_t prefix = sizeof(inlined_into) - 1;
    name[0] = 0;
    for (;;) {
        bool has_more = *at && strncmp(*at, inlined_into, prefix) == 0;
        size_t length = strlen(name);
        if (!has_more || !crn_os_frame_is_own(line)) {
            snprintf(name + length, bytes - length, "%s%.180s", length ? ", inlined by " : "",
                     line);
        }
        if (!has_more) return is_known ? name : NULL;
        line = next_line(at);
        if (!line) return is_known ? name : NULL;
        line += prefix;
    }
}

/* Those of one file, from the first frame of it on. */
static void name_in_file(struct naming *naming, const struct crn_trace *trace, unsigned first,
                         char *texts, size_t bytes) {
    unsigned of[CRN_FRAMES_MAX], count = 0;
    const char *path = naming->names[first].module.path;
    for (unsigned i = first; i < trace->count; i++) {
        const struct crn_module *module = &naming->names[i].module;
        if (!naming->names[i].is_known || strcmp(module->path, path) != 0) continue;
        /* A call's line is that of the call, which ends where it returns to. */
        bool is_return = i > 0 || !trace->is_exact;
        snprintf(naming->offsets[count], sizeof(naming->offsets[count]), "0x%lx",
                 (unsigned long)(module->offset - is_return));
        of[count++] = i;
    }
    size_t length = ask_helper(naming, path, count);
    char *at = length ? naming->answer : NULL;
    for (unsigned i = 0; i < count; i++) {
        const char *name = next_name(&at, naming->name, sizeof(naming->name));
        unsigned long offset = (unsigned long)naming->names[of[i]].module.offset;
        char *text = texts + of[i] * bytes;
        if (name)
            snprintf(text, bytes, "%s (%.48s+%#lx)", name, base_name(path), offset);
        else
            snprintf(text, bytes, "%s+%#lx", path, offset);
    }
}

bool crn_os_frame_is_main(const char *name) {
    return strncmp(name, "main ", 5) == 0 || strstr(name, " inlined by main ") != NULL;
}

void crn_os_name_frames(const struct crn_trace *trace, char *texts, size_t bytes) {
    int saved = errno;
    struct naming *naming = crn_os_map(sizeof(*naming));
    for (unsigned i = 0; i < trace->count; i++) {
        snprintf(texts + i * bytes, bytes, "%#lx", (unsigned long)trace->frames[i]);
        if (!naming) continue;
        naming->names[i].is_known = crn_os_module_of(trace->frames[i], &naming->names[i].module);
    }
    for (unsigned i = 0; naming && i < trace->count; i++) {
        bool is_first = naming->names[i].is_known;
        for (unsigned k = 0; k < i && is_first; k++) {
            is_first = !naming->names[k].is_known ||
                       strcmp(naming->names[k].module.path, naming->names[i].module.path) != 0;
        }
        if (is_first) name_in_file(naming, trace, i, texts, bytes);
    }
    if (naming) crn_os_release(naming, sizeof(*naming));
    errno = saved;
}
