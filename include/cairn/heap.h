/* SPDX-License-Identifier: MIT
 *
 * Heaps and allocation.
 *
 * Every allocator returns zeroed memory that the collector owns, or NULL after an emergency
 * collection and the out-of-memory handler. Each may collect. A NULL heap is the default heap,
 * which is made at the first call and lives as long as the process.
 */
#ifndef CAIRN_HEAP_H
#define CAIRN_HEAP_H

#include <cairn/object.h>
#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Typed objects ------------------------------------------------------------------------ */

#define CAIRN_SLOT_SIZE_(bytes) (((bytes) + 15u) & ~(size_t)15u)

/* One zeroed T. The fast path is load, add, compare, store. */
#define cairn_new(T) ((T *)cairn_new_(cairn_type_of_##T, CAIRN_SLOT_SIZE_(sizeof(T))))
#define cairn_new_in(heap, T) ((T *)cairn_new_type_in((heap), cairn_type_of_##T))

CAIRN_API void *cairn_new_type(cairn_type *type);
CAIRN_API void *cairn_new_type_in(cairn_heap *heap, cairn_type *type);

static inline void *cairn_new_(cairn_type *type, size_t slot_size) {
#if !defined(CAIRN_SITES)
    uint32_t bin = __atomic_load_n(&type->bin, __ATOMIC_RELAXED);
    if (CAIRN_LIKELY_(bin < cairn_thread.cursor_count)) {
        struct cairn_cursor *cursor = cairn_thread.cursors + bin;
        char *slot = cursor->next;
        if (CAIRN_LIKELY_(slot_size <= (size_t)(cursor->limit - slot))) {
            cursor->next = slot + slot_size;
            return slot;
        }
    }
#else
    (void)slot_size;
#endif
    return cairn_new_type(type);
}

/* One T with an initialiser: cairn_make(Node, .next = {n}, .value = 3). The initialiser is
 * evaluated first, once. */
#ifdef __cplusplus
#define cairn_make(T, ...) cairn_make_in(NULL, T, __VA_ARGS__)
#define cairn_make_in(heap, T, ...)                                                                \
    __extension__({                                                                                \
        const T cairn_i_ = {__VA_ARGS__};                                                          \
        (T *)cairn_make_((heap), cairn_type_of_##T, &cairn_i_);                                    \
    })
#else
#define cairn_make(T, ...) cairn_make_in(NULL, T, __VA_ARGS__)
#define cairn_make_in(heap, T, ...)                                                                \
    ((T *)cairn_make_((heap), cairn_type_of_##T, &(const T){__VA_ARGS__}))
#endif
CAIRN_API void *cairn_make_(cairn_heap *heap, cairn_type *type, const void *initial);

/* ---- Arrays ------------------------------------------------------------------------------- */

/* An array of `count` zeroed T, where T is a declared type or a named reference. Zero is fine: the
 * result is unique and has length 0. NULL if the size overflows. */
#define cairn_new_array(T, count) cairn_new_array_in(NULL, T, count)
#define cairn_new_array_in(heap, T, count)                                                         \
    ((T *)cairn_new_array_((heap), CAIRN_DESCRIPTOR_(T), (count)))
CAIRN_API void *cairn_new_array_(cairn_heap *heap, cairn_type *type, size_t count);

struct cairn_any_ref_ {
    void *const p;
};
/* The descriptor of T; where T has none, it must be a named cairn_ref. A block-scope `extern` takes
 * the linkage and completes the type of a file-scope descriptor if there is one: an array of
 * unknown size is compatible with every size, an array of one is not compatible with two. */
#ifdef __cplusplus
} /* extern "C" */
template <class X, class = void> struct cairn_ref_test_ : std::false_type {};
template <class X>
struct cairn_ref_test_<X, std::void_t<decltype(X::p)>>
    : std::integral_constant<bool, std::is_const<decltype(X::p)>::value &&
                                       sizeof(X) == sizeof(void *)> {};
#define CAIRN_DESCRIPTOR_(T)                                                                       \
    __extension__({                                                                                \
        extern cairn_type cairn_type_of_##T[];                                                     \
        cairn_ref_test_<T>::value ? cairn_type_reference_ : cairn_type_of_##T;                     \
    })
extern "C" {
#else
#define CAIRN_DESCRIPTOR_(T)                                                                       \
    __extension__({                                                                                \
        extern cairn_type cairn_type_of_##T[];                                                     \
        enum {                                                                                     \
            cairn_declared_ =                                                                      \
                !__builtin_types_compatible_p(__typeof__(cairn_type_of_##T), cairn_type[2])        \
        };                                                                                         \
        (void)sizeof(                                                                              \
            __builtin_choose_expr(cairn_declared_, (struct cairn_any_ref_ *)0, (T *)0)->p);        \
        __builtin_choose_expr(cairn_declared_, cairn_type_of_##T, cairn_type_reference_);          \
    })
#endif

/* Elements of an array, string or plain bytes, as asked for; 1 for a single object. O(1). */
CAIRN_API size_t cairn_length(const void *array);

/* A longer or shorter array with the same leading elements, new ones zeroed; the old one remains as
 * it was. NULL on failure. */
#define cairn_resize_array(array, count)                                                           \
    ((__typeof__(&*(array)))cairn_resize_array_((array), (count)))
CAIRN_API void *cairn_resize_array_(const void *array, size_t count);

/* One T followed by `count` elements of its flexible array member. */
#define cairn_new_flex(T, member, count) cairn_new_flex_in(NULL, T, member, count)
#define cairn_new_flex_in(heap, T, member, count)                                                  \
    ((T *)cairn_new_flex_((heap), cairn_type_of_##T, offsetof(T, member),                          \
                          sizeof(((T *)0)->member[0]), (count)))
CAIRN_API void *cairn_new_flex_(cairn_heap *heap, cairn_type *type, size_t offset,
                                size_t element_size, size_t count);

/* ---- Layouts made at run time --------------------------------------------------------------- */

/* Copies the name and the fields; the type lives as long as the process. */
CAIRN_API CAIRN_NODISCARD cairn_status
cairn_type_create(const char *name, size_t size, size_t align, const struct cairn_field *fields,
                  size_t field_count, const cairn_type_options *options, cairn_type **type);

/* ---- Memory without a type ------------------------------------------------------------------ */

/* cairn_alloc: any pointers inside, scanned word by word. cairn_alloc_bytes: no pointers inside. */
#define cairn_alloc(bytes) cairn_alloc_in(NULL, (bytes))
#define cairn_alloc_bytes(bytes) cairn_alloc_bytes_in(NULL, (bytes))
CAIRN_API void *cairn_alloc_in(cairn_heap *heap, size_t bytes);
CAIRN_API void *cairn_alloc_bytes_in(cairn_heap *heap, size_t bytes);
/* Aligned to a power of two of at most 2 MiB. */
#define cairn_alloc_aligned(bytes, align) cairn_alloc_aligned_in(NULL, (bytes), (align))
#define cairn_alloc_bytes_aligned(bytes, align) cairn_alloc_bytes_aligned_in(NULL, (bytes), (align))
CAIRN_API void *cairn_alloc_aligned_in(cairn_heap *heap, size_t bytes, size_t align);
CAIRN_API void *cairn_alloc_bytes_aligned_in(cairn_heap *heap, size_t bytes, size_t align);

/* Strings: plain bytes that end in '\0'. cairn_length counts the '\0'. */
#define cairn_strdup(text) cairn_strdup_in(NULL, (text))
#define cairn_strndup(text, limit) cairn_strndup_in(NULL, (text), (limit))
#define cairn_format(...) cairn_format_in(NULL, __VA_ARGS__)
CAIRN_API char *cairn_strdup_in(cairn_heap *heap, const char *text);
CAIRN_API char *cairn_strndup_in(cairn_heap *heap, const char *text, size_t limit);
CAIRN_API char *cairn_format_in(cairn_heap *heap, const char *format, ...) CAIRN_PRINTF_(2, 3);

/* ---- Heaps ---------------------------------------------------------------------------------- */

typedef enum cairn_plan_kind {
    CAIRN_PLAN_DEFAULT = 0, /* CAIRN_PLAN, else counted */
    CAIRN_PLAN_COUNTED,     /* counts, and a trace behind them */
    CAIRN_PLAN_TRACED,      /* the trace alone decides what is dead */
} cairn_plan_kind;

typedef struct cairn_options {
    size_t size;            /* sizeof(cairn_options), set by CAIRN_OPTIONS_INIT */
    const char *name;       /* for reports; copied; NULL: "heap" */
    size_t region_bytes;    /* address space to reserve, at least 32 MiB; 0: 256 GiB, or what
                               can be had */
    size_t limit_bytes;     /* soft limit; 0: CAIRN_LIMIT, else none */
    uint64_t pause_goal_ns; /* 0: CAIRN_PAUSE, else 1 ms */
    cairn_plan_kind plan;
    bool verify; /* recompute every count after each collection, as CAIRN_VERIFY=1 */
    bool trace;  /* a line per collection on stderr, as CAIRN_TRACE=1 */
} cairn_options;
#define CAIRN_OPTIONS_INIT                                                                         \
    { sizeof(cairn_options), NULL, 0, 0, 0, CAIRN_PLAN_DEFAULT, false, false }

/* Make a heap of its own. Options NULL: defaults. References may not cross heaps. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_heap_create(const cairn_options *options,
                                                         cairn_heap **heap);
/* End a heap and give back all its memory at once. Runs no finalizers; weak references into it read
 * as NULL. No other thread may use the heap any more. The default heap cannot be destroyed. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_heap_destroy(cairn_heap *heap);
/* The heap that holds the address, NULL if none. */
CAIRN_API cairn_heap *cairn_heap_of(const void *address);

/* Called when an allocation has failed in spite of a collection; true: try once more. */
typedef bool (*cairn_out_of_memory_handler)(cairn_heap *heap, size_t bytes, void *context);
CAIRN_API void cairn_on_out_of_memory(cairn_out_of_memory_handler handler, void *context);

#ifdef __cplusplus
}
#endif

#endif
