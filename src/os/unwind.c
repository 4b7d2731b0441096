/* SPDX-License-Identifier: MIT
 *
 * See unwind.h. A frame's way to its caller is in the unwind tables that every object has for
 * exceptions (.eh_frame: DWARF 5, section 6.4; .eh_frame_hdr: Linux Standard Base, 10.6). For most
 * code it is a rule of three numbers:
 *     CFA = stack or frame pointer + a constant      (the caller's stack pointer)
 *     the caller's frame pointer: as it is, or at CFA - a constant
 *     where it returns to: at CFA - a constant
 * What a return address's rule is costs a microsecond to find out, and is kept. So a stack of code
 * that was met before costs a few nanoseconds a frame, with frame pointers or without (the idea is
 * that of libunwind's fast trace, Tuura 2011). Frames for which such a rule is not enough, those of
 * signals and of functions that align their stack, end the walk with "no way": the C library's
 * unwinder knows one. On x86-64, code without tables is taken to keep frame pointers.
 *
 * Rules are kept in one word each, in sets of four. The word has all of the address that the set's
 * index has not (the multiplication is a bijection of 48 bits), so it is read and written whole,
 * without a lock, and an old one is simply written over. A file that is unloaded leaves its rules:
 * should other code come to its addresses, stacks through it may be wrong, or end early. The walk
 * reads nothing outside the thread's stack in any case.
 */
#define _GNU_SOURCE
#include "os/unwind.h"
#include "os/os.h"

#include <link.h>
#include <string.h>

#if defined(__x86_64__)
enum { DWARF_FP = 6, DWARF_SP = 7, DWARF_RA = 16, HAS_RECORDS = 1 };
#else
enum { DWARF_FP = 29, DWARF_SP = 31, DWARF_RA = 30, HAS_RECORDS = 0 };
#endif

/* ---- Rules --------------------------------------------------------------------------------------
 */

enum { WORD = sizeof(void *), OFFSET_BITS = 13, KIND_BITS = 2, RULE_BITS = 30 };
enum special { SPECIAL_END, SPECIAL_ODD, SPECIAL_NO_TABLE };

/* From the lowest bit: kind, CFA's offset, where the frame pointer is saved (0: it is as it was),
 * both in words, and whether the return address lies one word above that; else it is right below
 * CFA. */
struct rule {
    uint32_t bits;
};
enum { FP_SHIFT = KIND_BITS + OFFSET_BITS, BESIDE_SHIFT = FP_SHIFT + OFFSET_BITS };
_Static_assert(BESIDE_SHIFT + 1 <= RULE_BITS, "a rule fits");

CRN_INLINE enum crn_rule_kind kind_of(struct rule rule) {
    return (enum crn_rule_kind)(rule.bits & ((1u << KIND_BITS) - 1));
}
CRN_INLINE uint32_t offset_in(struct rule rule, unsigned shift) {
    return rule.bits >> shift & ((1u << OFFSET_BITS) - 1);
}
CRN_INLINE uintptr_t cfa_bytes(struct rule rule) {
    return (uintptr_t)offset_in(rule, KIND_BITS) * WORD;
}
CRN_INLINE uintptr_t fp_bytes(struct rule rule) {
    return (uintptr_t)offset_in(rule, FP_SHIFT) * WORD;
}
CRN_INLINE bool is_beside_fp(struct rule rule) {
    return rule.bits >> BESIDE_SHIFT & 1;
}

static struct rule make_rule(enum crn_rule_kind kind, int64_t cfa, int64_t fp, bool is_beside) {
    uint32_t offsets = (uint32_t)(cfa / WORD) << KIND_BITS | (uint32_t)(fp / WORD) << FP_SHIFT;
    return (struct rule){(uint32_t)kind | offsets | (uint32_t)is_beside << BESIDE_SHIFT};
}
static struct rule special(enum special what) {
    return make_rule(CRN_RULE_SPECIAL, (int64_t)what * WORD, 0, false);
}

/* ---- Tables -------------------------------------------------------------------------------------
 */

struct bytes {
    const uint8_t *at, *end;
    bool is_broken; /* read past the end, or not understood: what was read is 0 */
};

static uint64_t take(struct bytes *bytes, size_t count) {
    uint64_t value = 0;
    if ((size_t)(bytes->end - bytes->at) < count || count > sizeof(value)) {
        bytes->is_broken = true;
        return 0;
    }
    memcpy(&value, bytes->at, count); /* little-endian */
    bytes->at += count;
    return value;
}

static uint64_t take_leb(struct bytes *bytes, bool is_signed) {
    uint64_t value = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = (uint8_t)take(bytes, 1);
        if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    if (is_signed && shift < 64 && (byte & 0x40)) value |= UINT64_MAX << shift;
    return value;
}

static void skip(struct bytes *bytes, uint64_t count) {
    if (count > (size_t)(bytes->end - bytes->at)) {
        bytes->is_broken = true;
        count = 0;
    }
    bytes->at += count;
}

/* DW_EH_PE: the format in the low four bits, what it is relative to above. */
static uintptr_t take_pointer(struct bytes *bytes, uint8_t encoding) {
    const uint8_t *here = bytes->at;
    uint64_t value = 0;
    switch (encoding & 0x0f) {
    case 0x0: /* absptr */
    case 0x4: /* udata8 */
    case 0xc: /* sdata8 */
        value = take(bytes, 8);
        break;
    case 0x3: /* udata4 */
        value = take(bytes, 4);
        break;
    case 0xb: /* sdata4 */
        value = (uint64_t)(int64_t)(int32_t)take(bytes, 4);
        break;
    default:
        bytes->is_broken = true;
    }
    switch (encoding & 0xf0) {
    case 0x00:
        break;
    case 0x10: /* pcrel */
        value += (uintptr_t)here;
        break;
    default:
        bytes->is_broken = true;
    }
    return (uintptr_t)value;
}

struct object_search {
    uintptr_t code;
    const uint8_t *header; /* .eh_frame_hdr, or NULL */
};

static int look_for_object(struct dl_phdr_info *info, size_t bytes, void *context) {
    struct object_search *search = context;
    bool has_code = false;
    const uint8_t *header = NULL;
    (void)bytes;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t low = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD) has_code |= search->code - low < part->p_memsz;
        if (part->p_type == PT_GNU_EH_FRAME) header = (const uint8_t *)low;
    }
    if (has_code) search->header = header;
    return has_code;
}

static uint32_t word_at(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}
static uintptr_t from_header(const uint8_t *header, const uint8_t *at) {
    return (uintptr_t)header + (uintptr_t)(intptr_t)(int32_t)word_at(at);
}

/* By bisection in the header's table, in the form that every linker gives it: pairs of (code,
 * description), relative to the header, ascending. NULL: none. */
static const uint8_t *find_description(uintptr_t code, uintptr_t *start) {
    enum { VERSION = 1, COUNT_UDATA4 = 0x03, TABLE_DATAREL_SDATA4 = 0x3b, PAIR = 8 };
    struct object_search search = {.code = code};
    dl_iterate_phdr(look_for_object, &search);
    const uint8_t *header = search.header;
    bool is_usual = header && header[0] == VERSION && header[2] == COUNT_UDATA4 &&
                    header[3] == TABLE_DATAREL_SDATA4;
    if (!is_usual) return NULL;
    struct bytes bytes = {header + 4, header + 4 + 8 + 4, false};
    (void)take_pointer(&bytes, header[1]); /* where .eh_frame is */
    size_t low = 0, high = (size_t)take(&bytes, 4);
    if (bytes.is_broken) return NULL;
    const uint8_t *table = bytes.at;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (from_header(header, table + middle * PAIR) <= code)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return NULL;
    *start = from_header(header, table + (low - 1) * PAIR);
    return (const uint8_t *)from_header(header, table + (low - 1) * PAIR + 4);
}

/* ---- What a table's program says ----------------------------------------------------------------
 */

enum how { HOW_SAME, HOW_SAVED, HOW_UNDEFINED, HOW_ODD };
struct place {
    enum how how;
    int64_t offset; /* from CFA */
};
struct row {
    uint64_t cfa_register;
    int64_t cfa_offset;
    bool is_cfa_odd;
    struct place fp, ra;
};

enum { REMEMBERED_MAX = 8 };
struct machine {
    struct bytes program;
    uint64_t code_align;
    int64_t data_align;
    uint8_t encoding; /* of addresses */
    bool is_signal, is_odd;
    uintptr_t location;
    struct row now, first, remembered[REMEMBERED_MAX];
    unsigned remembered_count;
};

static void set_place(struct machine *machine, uint64_t number, struct place place) {
    if (number == DWARF_FP) machine->now.fp = place;
    if (number == DWARF_RA) machine->now.ra = place;
}

static void restore_place(struct machine *machine, uint64_t number) {
    if (number == DWARF_FP) machine->now.fp = machine->first.fp;
    if (number == DWARF_RA) machine->now.ra = machine->first.ra;
}

static int64_t take_factored(struct machine *machine, bool is_signed) {
    return (int64_t)(take_leb(&machine->program, is_signed) * (uint64_t)machine->data_align);
}

static void set_saved(struct machine *machine, uint64_t number, bool is_signed) {
    set_place(machine, number, (struct place){HOW_SAVED, take_factored(machine, is_signed)});
}

static uint64_t take_number(struct machine *machine) {
    return take_leb(&machine->program, false);
}

/* Operations on one register. False: not one of them. */
static bool run_on_register(struct machine *machine, uint8_t code) {
    switch (code) {
    case 0x05: /* offset_extended */
        set_saved(machine, take_number(machine), false);
        return true;
    case 0x06: /* restore_extended */
        restore_place(machine, take_number(machine));
        return true;
    case 0x07: /* undefined */
        set_place(machine, take_number(machine), (struct place){HOW_UNDEFINED, 0});
        return true;
    case 0x08: /* same_value */
        set_place(machine, take_number(machine), (struct place){HOW_SAME, 0});
        return true;
    case 0x09: /* register */
    case 0x14: /* val_offset */
    case 0x15: /* val_offset_sf: a number follows */
        set_place(machine, take_number(machine), (struct place){HOW_ODD, 0});
        (void)take_number(machine);
        return true;
    case 0x10: /* expression */
    case 0x16: /* val_expression */
        set_place(machine, take_number(machine), (struct place){HOW_ODD, 0});
        skip(&machine->program, take_number(machine));
        return true;
    case 0x11: /* offset_extended_sf */
        set_saved(machine, take_number(machine), true);
        return true;
    }
    return false;
}

static void define_cfa(struct machine *machine, uint64_t number, int64_t offset) {
    machine->now.cfa_register = number;
    machine->now.cfa_offset = offset;
    machine->now.is_cfa_odd = false;
}

static bool run_on_cfa(struct machine *machine, uint8_t code) {
    struct row *now = &machine->now;
    uint64_t number;
    switch (code) {
    case 0x0c: /* def_cfa */
        number = take_number(machine);
        define_cfa(machine, number, (int64_t)take_number(machine));
        return true;
    case 0x0d: /* def_cfa_register */
        define_cfa(machine, take_number(machine), now->cfa_offset);
        return true;
    case 0x0e: /* def_cfa_offset */
        now->cfa_offset = (int64_t)take_number(machine);
        return true;
    case 0x0f: /* def_cfa_expression */
        now->is_cfa_odd = true;
        skip(&machine->program, take_number(machine));
        return true;
    case 0x12: /* def_cfa_sf */
        number = take_number(machine);
        define_cfa(machine, number, take_factored(machine, true));
        return true;
    case 0x13: /* def_cfa_offset_sf */
        now->cfa_offset = take_factored(machine, true);
        return true;
    }
    return false;
}

/* What is left: moving on, and the rows that are put aside. Others are not understood, among them
 * 0x2d, by which aarch64 says that return addresses are signed. */
static void run_other(struct machine *machine, uint8_t code) {
    struct bytes *program = &machine->program;
    bool has_room = machine->remembered_count < REMEMBERED_MAX;
    switch (code) {
    case 0x00: /* nop */
        return;
    case 0x02: /* advance_loc1, 2 and 4 */
    case 0x03:
    case 0x04:
        machine->location += take(program, (size_t)1 << (code - 2)) * machine->code_align;
        return;
    case 0x0a: /* remember_state */
        if (has_room) machine->remembered[machine->remembered_count++] = machine->now;
        machine->is_odd |= !has_room;
        return;
    case 0x0b: /* restore_state */
        machine->is_odd |= machine->remembered_count == 0;
        if (machine->is_odd) return;
        machine->now = machine->remembered[--machine->remembered_count];
        return;
    case 0x2e: /* GNU_args_size */
        (void)take_leb(program, false);
        return;
    }
    machine->is_odd = true;
}

/* Up to the row of an address. */
static void run(struct machine *machine, uintptr_t code_address) {
    struct bytes *program = &machine->program;
    while (program->at < program->end && !machine->is_odd && !program->is_broken) {
        struct row row = machine->now;
        uint8_t code = (uint8_t)take(program, 1), low = code & 0x3f;
        switch (code >> 6) {
        case 1: /* advance_loc */
            machine->location += low * machine->code_align;
            break;
        case 2: /* offset */
            set_saved(machine, low, false);
            break;
        case 3: /* restore */
            restore_place(machine, low);
            break;
        default:
            if (!run_on_register(machine, code) && !run_on_cfa(machine, code))
                run_other(machine, code);
        }
        if (machine->location > code_address) {
            machine->now = row;
            return;
        }
    }
    machine->is_odd |= program->is_broken;
}

/* A record of .eh_frame without its length and what that spans. */
static struct bytes open_record(const uint8_t *at) {
    struct bytes bytes = {at, at + 4, false};
    uint64_t length = take(&bytes, 4);
    bool is_usual = length != 0 && length != UINT32_MAX;
    bytes.end = bytes.at + (is_usual ? length : 0);
    bytes.is_broken = !is_usual;
    return bytes;
}

/* What the descriptions of one compilation have in common: a program that comes first, how the
 * rest is written. */
static bool read_common(struct machine *machine, const uint8_t *at) {
    struct bytes bytes = open_record(at);
    uint64_t id = take(&bytes, 4), version = take(&bytes, 1);
    const char *features = (const char *)bytes.at;
    size_t left = (size_t)(bytes.end - bytes.at);
    if (id != 0 || (version != 1 && version != 3) || strnlen(features, left) == left) return false;
    skip(&bytes, strlen(features) + 1);
    machine->code_align = take_leb(&bytes, false);
    machine->data_align = (int64_t)take_leb(&bytes, true);
    uint64_t returns = version == 1 ? take(&bytes, 1) : take_leb(&bytes, false);
    if (returns != DWARF_RA || *features++ != 'z') return false;
    uint64_t feature_bytes = take_leb(&bytes, false);
    struct bytes values = bytes;
    skip(&bytes, feature_bytes);
    values.end = bytes.at;
    for (; *features; features++) {
        if (*features == 'R')
            machine->encoding = (uint8_t)take(&values, 1);
        else if (*features == 'L')
            (void)take(&values, 1);
        else if (*features == 'P')
            (void)take_pointer(&values, (uint8_t)take(&values, 1) & 0x0f);
        else if (*features == 'S')
            machine->is_signal = true;
        else
            return false;
    }
    machine->program = bytes;
    return !bytes.is_broken && !values.is_broken;
}

static struct rule rule_of_row(const struct row *row) {
    bool is_first = row->ra.how == HOW_UNDEFINED || row->ra.how == HOW_SAME;
    if (is_first) return special(SPECIAL_END);
    bool is_known = row->cfa_register == DWARF_SP || row->cfa_register == DWARF_FP;
    int64_t most = ((int64_t)1 << OFFSET_BITS) * WORD, ra = -row->ra.offset, fp = 0;
    if (row->fp.how == HOW_SAVED) fp = -row->fp.offset;
    bool is_plain = !row->is_cfa_odd && is_known && row->cfa_offset >= 0 &&
                    row->cfa_offset < most && row->cfa_offset % WORD == 0 && fp >= 0 && fp < most &&
                    fp % WORD == 0 && row->fp.how != HOW_ODD && row->ra.how == HOW_SAVED &&
                    ra >= WORD && (ra == WORD || ra == fp - WORD);
    if (!is_plain) return special(SPECIAL_ODD);
    enum crn_rule_kind kind = row->cfa_register == DWARF_SP ? CRN_RULE_FROM_SP : CRN_RULE_FROM_FP;
    return make_rule(kind, row->cfa_offset, fp, ra != WORD);
}

/* A call may be the last thing in its function: the code is looked up one byte before it ends. */
static CRN_NOINLINE struct rule learn(uintptr_t returns_to) {
    uintptr_t code = returns_to - 1;
    struct machine machine = {.is_odd = false};
    const uint8_t *at = find_description(code, &machine.location);
    if (!at) return special(SPECIAL_NO_TABLE);
    struct bytes bytes = open_record(at);
    const uint8_t *pointer = bytes.at;
    uint64_t back = take(&bytes, 4);
    if (back == 0 || !read_common(&machine, pointer - back)) return special(SPECIAL_ODD);
    uintptr_t start = take_pointer(&bytes, machine.encoding);
    uintptr_t length = take_pointer(&bytes, machine.encoding & 0x0f);
    skip(&bytes, take_leb(&bytes, false));
    if (bytes.is_broken) return special(SPECIAL_ODD);
    if (code - start >= length) return special(SPECIAL_NO_TABLE);
    machine.location = 0;
    run(&machine, 0);
    machine.first = machine.now;
    machine.location = start;
    machine.program = bytes;
    run(&machine, code);
    if (machine.is_odd || machine.is_signal) return special(SPECIAL_ODD);
    return rule_of_row(&machine.now);
}

/* ---- Rules that are kept ------------------------------------------------------------------------
 */

enum { CODE_BITS = 48, SET_BITS = 14, WAYS = 4, TAG_BITS = CODE_BITS - SET_BITS };
#define KEPT_BYTES (((size_t)WAYS << SET_BITS) * sizeof(uint64_t))
_Static_assert(TAG_BITS + RULE_BITS == 64, "an entry is a word: tag, rule");

static uint64_t *kept; /* atomic; by set; 0: empty, as no rule is */

static uint64_t *make_kept(void) {
    uint64_t *fresh = crn_os_map(KEPT_BYTES), *other = NULL;
    if (!fresh) return NULL;
    if (__atomic_compare_exchange_n(&kept, &other, fresh, false, __ATOMIC_RELEASE,
                                    __ATOMIC_ACQUIRE)) {
        return fresh;
    }
    crn_os_release(fresh, KEPT_BYTES);
    return other;
}

/* In another way than the first, or nowhere yet: then one of the ways is written over. */
static CRN_NOINLINE struct rule rule_slow(uintptr_t code, uint64_t *set, uint64_t tag) {
    unsigned free_way = WAYS;
    for (unsigned way = 0; way < WAYS; way++) {
        uint64_t entry = __atomic_load_n(&set[way], __ATOMIC_RELAXED);
        struct rule rule = {(uint32_t)entry & (((uint32_t)1 << RULE_BITS) - 1)};
        if (entry >> RULE_BITS == tag && rule.bits) return rule;
        if (!entry && free_way == WAYS) free_way = way;
    }
    struct rule rule = learn(code);
    unsigned way = free_way < WAYS ? free_way : (unsigned)(tag ^ code) % WAYS;
    __atomic_store_n(&set[way], tag << RULE_BITS | rule.bits, __ATOMIC_RELAXED);
    return rule;
}

/* Relaxed: an entry is a word that says all that is to be known. */
CRN_INLINE struct rule rule_of(uint64_t *table, uintptr_t code) {
    uint64_t spread = (code * 0x9e3779b97f4a7c15u) & (((uint64_t)1 << CODE_BITS) - 1);
    uint64_t tag = spread & (((uint64_t)1 << TAG_BITS) - 1);
    uint64_t *set = table + (spread >> TAG_BITS) * WAYS;
    uint64_t entry = __atomic_load_n(&set[0], __ATOMIC_RELAXED);
    struct rule rule = {(uint32_t)entry & (((uint32_t)1 << RULE_BITS) - 1)};
    if (CRN_LIKELY(entry >> RULE_BITS == tag && rule.bits)) return rule;
    return rule_slow(code, set, tag);
}

static uint64_t *kept_rules(void) {
    uint64_t *table = __atomic_load_n(&kept, __ATOMIC_ACQUIRE);
    return CRN_LIKELY(table) ? table : make_kept();
}

enum crn_rule_kind crn_os_rule_kind(uintptr_t returns_to) {
    uint64_t *table = kept_rules();
    return table ? kind_of(rule_of(table, returns_to)) : CRN_RULE_NONE;
}

/* ---- Walking ------------------------------------------------------------------------------------
 */

struct frame {
    uintptr_t code, sp, fp;
};

/* Here. */
#if defined(__x86_64__)
#define OWN_FRAME(frame)                                                                           \
    __asm__ volatile("mov %%rsp, %0\n\tmov %%rbp, %1\n\tlea 0(%%rip), %2"                          \
                     : "=&r"((frame).sp), "=&r"((frame).fp), "=&r"((frame).code))
#else
#define OWN_FRAME(frame)                                                                           \
    __asm__ volatile("mov %0, sp\n\tmov %1, x29\n\tadr %2, ."                                      \
                     : "=&r"((frame).sp), "=&r"((frame).fp), "=&r"((frame).code))
#endif

enum step { STEP_DONE, STEP_END, STEP_ODD };

/* Of a frame whose rule is none of the two usual ones. */
static enum step step_of_special(struct rule *rule) {
    enum special what = (enum special)offset_in(*rule, KIND_BITS);
    if (what == SPECIAL_ODD) return STEP_ODD;
    if (what == SPECIAL_END || !HAS_RECORDS) return STEP_END;
    *rule = make_rule(CRN_RULE_FROM_FP, 2 * WORD, 2 * WORD, false);
    return STEP_DONE;
}

/* To the caller. Nothing outside [sp, high) is read; there is no code at 0 nor above CODE_BITS. */
CRN_INLINE CRN_NO_SANITIZE enum step go_up(uint64_t *table, struct frame *frame, uintptr_t high) {
    struct rule rule = rule_of(table, frame->code);
    if (CRN_UNLIKELY(kind_of(rule) == CRN_RULE_SPECIAL)) {
        enum step step = step_of_special(&rule);
        if (step != STEP_DONE) return step;
    }
    uintptr_t cfa = (kind_of(rule) == CRN_RULE_FROM_SP ? frame->sp : frame->fp) + cfa_bytes(rule);
    uintptr_t saved = cfa - fp_bytes(rule);
    bool is_inside = cfa > frame->sp && cfa <= high && cfa % WORD == 0 && saved >= frame->sp;
    if (CRN_UNLIKELY(!is_inside)) return STEP_END;
    uintptr_t returns_at = is_beside_fp(rule) ? saved + WORD : cfa - WORD;
    frame->code = *(const volatile uintptr_t *)returns_at;
    if (saved != cfa) frame->fp = *(const volatile uintptr_t *)saved;
    frame->sp = cfa;
    return CRN_LIKELY((frame->code - 1) >> CODE_BITS == 0) ? STEP_DONE : STEP_END;
}

CRN_NOINLINE CRN_NO_SANITIZE unsigned crn_os_unwind(uintptr_t *frames, unsigned most,
                                                    const void *first, const char *stack_high) {
    enum { OWN_FRAMES_MAX = 16 };
    uint64_t *table = kept_rules();
    struct frame frame;
    unsigned count = 0;
    if (!table) return 0;
    OWN_FRAME(frame);
    for (unsigned own = 0; own < OWN_FRAMES_MAX && frame.code != (uintptr_t)first; own++) {
        if (go_up(table, &frame, (uintptr_t)stack_high) != STEP_DONE) return 0;
    }
    if (frame.code != (uintptr_t)first) return 0;
    enum step step = STEP_DONE;
    while (step == STEP_DONE) {
        frames[count++] = frame.code;
        if (count == most) return count;
        step = go_up(table, &frame, (uintptr_t)stack_high);
    }
    return step == STEP_ODD ? 0 : count;
}
