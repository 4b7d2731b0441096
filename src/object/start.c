/* SPDX-License-Identifier: MIT
 *
 * The first call: settings from the environment, the address space, the default heap; and heaps.
 */
#include "base/described.h"
#include "base/report.h"
#include "heap/guard.h"
#include "object/births.h"
#include "object/object.h"
#include "os/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct crn_settings crn_settings = {.pause_goal_ns = 1000000};
cairn_heap *crn_default_heap, *crn_heaps;
static struct crn_lock start_lock;
static bool is_started; /* atomic */

#define DEFAULT_REGION CRN_GIB(256)

/* ---- The environment
 * --------------------------------------------------------------------------------- */

struct unit {
    const char *suffix;
    uint64_t factor;
};
static const struct unit byte_units[] = {{"", 1},          {"K", 1u << 10},   {"M", 1u << 20},
                                         {"G", 1u << 30},  {"KiB", 1u << 10}, {"MiB", 1u << 20},
                                         {"GiB", 1u << 30}};
static const struct unit time_units[] = {
    {"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};

static bool parse(const char *text, const struct unit *units, size_t unit_count, uint64_t *value) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0) return false;
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(end, units[i].suffix) != 0) continue;
        return !__builtin_mul_overflow(number, units[i].factor, value) && *value != 0;
    }
    return false;
}

static bool read_number(const char *name, const struct unit *units, size_t unit_count,
                        const char *example, uint64_t *value) {
    const char *text = getenv(name);
    if (!text) return false;
    CAIRN_REQUIRE(parse(text, units, unit_count, value),
                  "%s=%s is not understood; say for example %s=%s", name, text, name, example);
    return true;
}

/* A number from one to `most`; 0 if the variable is not set. */
static uint32_t read_count(const char *name, const char *example, uint32_t most) {
    uint64_t value = 0;
    if (!read_number(name, byte_units, 1, example, &value)) return 0;
    CAIRN_REQUIRE(value <= most, "%s=%s is too large; say for example %s=%s", name, getenv(name),
                  name, example);
    return (uint32_t)value;
}

static bool read_flag(const char *name, bool fallback) {
    const char *text = getenv(name);
    if (!text) return fallback;
    bool is_known = strcmp(text, "0") == 0 || strcmp(text, "1") == 0;
    CAIRN_REQUIRE(is_known, "%s=%s is not understood; say %s=1 or %s=0", name, text, name, name);
    return text[0] == '1';
}

/* A privileged program (set-user-ID and its like) takes no file, no policy and no helper from who
 * calls it. */
static void read_report_settings(void) {
    static const char *const policies[] = {"abort", "log", "callback"};
    if (crn_os_is_privileged()) return;
    const char *file = getenv("CAIRN_REPORT"), *policy = getenv("CAIRN_POLICY");
    CAIRN_REQUIRE(!file || crn_report_to_file(file), "CAIRN_REPORT=%s cannot be written to", file);
    unsigned chosen = 0;
    while (policy && chosen < 3 && strcmp(policy, policies[chosen]) != 0) chosen++;
    CAIRN_REQUIRE(chosen < 3, "CAIRN_POLICY=%s is not understood; say abort, log or callback",
                  policy);
    if (policy) cairn_report_set_policy((cairn_report_policy)chosen);
    if (getenv("CAIRN_SYMBOLIZER")) crn_os_use_symbolizer(getenv("CAIRN_SYMBOLIZER"));
}

/* Of libcairn-instrumented, in a program that is linked to it. */
CAIRN_API extern const char cairn_is_instrumented_ __attribute__((weak));

/* CAIRN_GUARD, and CAIRN_STACKS: 1, or how many frames. What is guarded has its stacks anyhow. */
static void read_guard_settings(void) {
    const char *guard = getenv("CAIRN_GUARD"), *stacks = getenv("CAIRN_STACKS");
    if (guard && strcmp(guard, "0") != 0) {
        crn_guard_init(read_count("CAIRN_GUARD", "1000", UINT32_MAX / 2));
        crn_births_init(CRN_BIRTHS_OF_GUARDED, CRN_STACK_DEPTH);
    }
    if (stacks && strcmp(stacks, "0") != 0) {
        uint32_t depth = read_count("CAIRN_STACKS", "16", CRN_FRAMES_MAX);
        crn_births_init(CRN_BIRTHS_OF_ALL, depth == 1 ? CRN_STACK_DEPTH : depth);
    }
}

static void read_environment(void) {
    uint64_t value;
    if (read_number("CAIRN_LIMIT", byte_units, 7, "512M", &value)) crn_settings.limit_bytes = value;
    if (read_number("CAIRN_PAUSE", time_units, 4, "1ms", &value))
        crn_settings.pause_goal_ns = value;
    crn_settings.stress_collect = read_count("CAIRN_STRESS", "100", UINT32_MAX);
    crn_settings.fail_allocation = read_count("CAIRN_FAIL", "100", UINT32_MAX);
    crn_os_fail_at(read_count("CAIRN_FAIL_META", "100", UINT32_MAX));
    crn_settings.stress_stop_ns = (uint64_t)read_count("CAIRN_STRESS_STOP", "200", 1000000) * 1000;
    crn_settings.is_tracing = read_flag("CAIRN_TRACE", false);
    crn_settings.is_verifying = read_flag("CAIRN_VERIFY", false);
    crn_settings.has_reclaimer = read_flag("CAIRN_RECLAIMER", true);
    if (getenv("CAIRN_HUGE_PAGES")) crn_os_use_huge_pages(read_flag("CAIRN_HUGE_PAGES", false));
    /* ThreadSanitizer has a state of each thread ready only in its own interceptors. */
    crn_settings.is_passive = !read_flag("CAIRN_INTERPOSE", true) || crn_os_has_thread_sanitizer();
    if (read_number("CAIRN_SIGNAL", byte_units, 1, "23", &value)) {
        CAIRN_REQUIRE(
            value <= INT32_MAX && crn_os_signal_may_stop((int)value),
            "CAIRN_SIGNAL=%llu cannot stop threads; name a signal that is neither a fault "
            "nor reserved, for example CAIRN_SIGNAL=10",
            (unsigned long long)value);
        crn_os_stop_signal = (int)value;
    }
    read_report_settings();
    crn_checker_init(read_flag("CAIRN_CHECKER", true));
    crn_redzone_bytes = &cairn_is_instrumented_ || crn_checker_watches ? CAIRN_REDZONE_ : 0;
    const char *plan = getenv("CAIRN_PLAN");
    if (plan) {
        CAIRN_REQUIRE(strcmp(plan, "counted") == 0,
                      "CAIRN_PLAN=%s is not in this release; say counted", plan);
    }
    read_guard_settings();
}

/* ---- Heaps
 * ---------------------------------------------------------------------------------------------- */

static cairn_heap *make_heap(const char *name, size_t region_bytes, size_t limit_bytes) {
    cairn_heap *heap = crn_meta_alloc(sizeof(*heap));
    if (!heap) return NULL;
    /* Not by snprintf, whose pages of libc few programs have touched when they start. */
    for (size_t i = 0; i + 1 < sizeof(heap->core.name) && name[i]; i++) {
        heap->core.name[i] = name[i];
    }
    heap->limit_bytes = limit_bytes;
    if (!crn_heap_init(&heap->core, region_bytes)) {
        crn_meta_free(heap, sizeof(*heap));
        return NULL;
    }
    return heap;
}

/* Under a limit on address space the region takes a quarter: shadows and the program need the rest.
 */
static size_t default_region(void) {
    size_t limit = crn_os_address_limit();
    return limit == SIZE_MAX ? DEFAULT_REGION : crn_min(DEFAULT_REGION, limit / 4);
}

void crn_start(void) {
    if (__atomic_load_n(&is_started, __ATOMIC_ACQUIRE)) return;
    cairn_section_enter_();
    crn_lock_acquire(&crn_newcomers_lock);
    crn_lock_acquire(&start_lock);
    bool is_first = !is_started;
    if (is_first) {
        const char *own, *other;
        CAIRN_REQUIRE(!crn_os_other_copy(&own, &other),
                      "two copies of Cairn in one process\n"
                      "  what: one is in %s, another in %s\n"
                      "  next step: link both to one libcairn.so, or keep one of them out",
                      other, own);
        read_environment();
        CAIRN_REQUIRE(crn_space_init(), "cannot start: no address space for the tables");
        cairn_heap *heap = make_heap("default", default_region(), crn_settings.limit_bytes);
        CAIRN_REQUIRE(heap, "cannot start: no address space for a heap");
        crn_heaps = heap;
        crn_default_heap = heap;
        CAIRN_REQUIRE(crn_hooks.start(), "cannot start: no memory for the collector");
        CAIRN_REQUIRE(!crn_guard_period || crn_listen_for_faults(), "cannot listen for faults");
        __atomic_store_n(&is_started, true, __ATOMIC_RELEASE);
    }
    crn_lock_release(&start_lock);
    crn_lock_release(&crn_newcomers_lock);
    if (!cairn_thread.self) {
        CAIRN_REQUIRE(crn_thread_attach(NULL), "cannot start: no memory for a thread");
    }
    cairn_section_leave_();
    if (is_first && (crn_guard_period || crn_births_kept)) crn_os_trace_prepare();
    if (is_first) crn_hooks.started();
}

cairn_status cairn_heap_create(const cairn_options *options, cairn_heap **out) {
    if (!out || (options && options->size != sizeof(*options))) return CAIRN_ERROR_ARGUMENT;
    const cairn_options defaults = CAIRN_OPTIONS_INIT;
    if (!options) options = &defaults;
    if (options->plan > CAIRN_PLAN_TRACED) return CAIRN_ERROR_ARGUMENT;
    if (options->plan == CAIRN_PLAN_TRACED) return CAIRN_ERROR_NOT_SUPPORTED;
    crn_enter();
    size_t region = options->region_bytes ? options->region_bytes : default_region();
    region = crn_max(region, CRN_MIB(32)); /* the least that a region can be */
    size_t limit = options->limit_bytes ? options->limit_bytes : crn_settings.limit_bytes;
    cairn_heap *heap = make_heap(options->name ? options->name : "heap", region, limit);
    if (heap) {
        heap->pause_goal_ns = options->pause_goal_ns;
        heap->is_tracing = options->trace;
        heap->is_verifying = options->verify;
        crn_lock_acquire(&start_lock);
        heap->next = crn_heaps;
        /* Heaps have segments of their own. */
        __atomic_store_n(&cairn_runtime.heap_bits, ~(CRN_SEGMENT_BYTES - 1), __ATOMIC_RELAXED);
        /* Release: a collection that sees the heap sees it complete. */
        __atomic_store_n(&crn_heaps, heap, __ATOMIC_RELEASE);
        crn_lock_release(&start_lock);
        *out = heap;
    }
    crn_leave();
    return heap ? CAIRN_OK : CAIRN_ERROR_NO_MEMORY;
}

cairn_heap *cairn_heap_of(const void *address) {
    if (!crn_default_heap) return NULL; /* the tables are not there before the first call */
    struct crn_block *block = crn_block_of_interior(address);
    return block ? (cairn_heap *)block->heap : NULL;
}

bool crn_heap_is_alive(const cairn_heap *heap) {
    crn_lock_acquire(&start_lock);
    const cairn_heap *at = crn_heaps;
    while (at && at != heap) at = at->next;
    crn_lock_release(&start_lock);
    return at != NULL;
}

void crn_heap_unlink(cairn_heap *heap) {
    crn_lock_acquire(&start_lock);
    cairn_heap **at = &crn_heaps;
    while (*at && *at != heap) at = &(*at)->next;
    if (*at) *at = heap->next;
    crn_lock_release(&start_lock);
}

const char *cairn_status_text(cairn_status status) {
    switch (status) {
    case CAIRN_OK:
        return "success";
    case CAIRN_ERROR_ARGUMENT:
        return "an argument is out of its range";
    case CAIRN_ERROR_NO_MEMORY:
        return "out of memory";
    case CAIRN_ERROR_LIMIT:
        return "a limit is reached";
    case CAIRN_ERROR_ENVIRONMENT:
        return "an environment variable has a bad value";
    case CAIRN_ERROR_NOT_SUPPORTED:
        return "not supported here";
    case CAIRN_ERROR_BUSY:
        return "in use by another thread";
    }
    return "unknown status";
}

/* ---- For debuggers ---- */

#if defined(CRN_GDB_SCRIPT)
/* In the archive: the script that gdb loads with the program, by its file's name (1: it is in
 * Python). Loaded with the program, and so not taken by strip. */
static const char gdb_script[] __attribute__((CRN_RETAINED used, section(".debug_gdb_scripts"))) =
    "\1" CRN_GDB_SCRIPT;
#endif

CRN_DESCRIBED_AS(described) = {
    CRN_NUMBER(CRN_DESCRIBED_VERSION),
    CRN_MEMBER(cairn_heap, next),
    CRN_MEMBER(cairn_heap, waiting_objects),
};

CRN_TABLES_AS(tables) = {
    CRN_TABLE(crn_heaps),
};
