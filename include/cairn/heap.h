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

/* ---- Allocation sites ----------------------------------------------------------------------- */

/* A file that is compiled with -DCAIRN_SITES records where it allocates: reports then say where an
 * object came from. Costs some 10 ns an allocation and 4 bytes per 16 of the heap. Files with and
 * without it mix; what the others allocate is reported as not recorded. The file's code must stay
 * loaded as long as its objects do. */
struct cairn_site {
    const char *file, *function;
    int line;
    uint32_t number; /* atomic; 0 until its first allocation */
};
CAIRN_API void cairn_site_note_(void *object, struct cairn_site *site);

CAIRN_INLINE_ void *cairn_noted_(void *object, struct cairn_site *site) {
    if (object) cairn_site_note_(object, site);
    return object;
}
#if defined(CAIRN_SITES)
#define CAIRN_NOTED_(allocation)                                                                   \
    cairn_noted_((allocation), __extension__({                                                     \
                     static struct cairn_site cairn_site_ = {__FILE__, __func__, __LINE__, 0};     \
                     &cairn_site_;                                                                 \
                 }))
#else
#define CAIRN_NOTED_(allocation) (allocation)
#endif

/* ---- Typed objects ------------------------------------------------------------------------ */

/* As the library computes it (heap/layout.h). In instrumented files an object has room behind its
 * end; see cairn/instrumented.h. */
#if defined(CAIRN_INSTRUMENTED)
#define CAIRN_ROOM_(T) (sizeof(T) + CAIRN_REDZONE_)
#else
#define CAIRN_ROOM_(T) (sizeof(T) ? sizeof(T) : 1)
#endif
#define CAIRN_SLOT_ALIGN_(T) ((size_t)(CAIRN_ALIGNOF_(T) < 16 ? 16 : CAIRN_ALIGNOF_(T)))
#define CAIRN_SLOT_SIZE_(T)                                                                        \
    ((CAIRN_ROOM_(T) + CAIRN_SLOT_ALIGN_(T) - 1) & ~(CAIRN_SLOT_ALIGN_(T) - 1))

/* In checked files what is new has its verdicts at once, as far as four of them reach, and its
 * neighbour keeps its own. Large ones may lie where there are none. */
#if defined(CAIRN_CHECKED) && !CAIRN_TSAN_
#define CAIRN_BORN_(T, object) cairn_born_(cairn_type_of_##T, CAIRN_ROOM_(T), (object))
#else
#define CAIRN_BORN_(T, object) (object)
#endif
CAIRN_INLINE_ void *cairn_born_(const cairn_type *type, size_t bytes, void *object) {
    uintptr_t a = (uintptr_t)object;
    bool is_judged = !(a & __atomic_load_n(&cairn_runtime.unjudged, __ATOMIC_ACQUIRE));
    if (bytes <= 8192 && CAIRN_LIKELY_(is_judged && object)) {
        size_t count = bytes > 48 ? 4 : (bytes + 15) / 16;
        __builtin_memcpy(cairn_runtime.verdicts + (a >> 4), &type->first_verdicts, count);
    }
    return object;
}

/* One zeroed T. The fast path is load, add, compare, store. */
#define cairn_new(T)                                                                               \
    ((T *)CAIRN_NOTED_(CAIRN_BORN_(T, cairn_new_(cairn_type_of_##T, CAIRN_SLOT_SIZE_(T)))))
#define cairn_new_in(heap, T)                                                                      \
    ((T *)CAIRN_NOTED_(CAIRN_BORN_(T, cairn_new_type_in_((heap), cairn_type_of_##T))))

/* The same for a layout that cairn_type_create made. */
#define cairn_new_type(type) CAIRN_NOTED_(cairn_new_type_in_(NULL, (type)))
#define cairn_new_type_in(heap, type) CAIRN_NOTED_(cairn_new_type_in_((heap), (type)))
CAIRN_API void *cairn_new_type_in_(cairn_heap *heap, cairn_type *type);

CAIRN_INLINE_ void *cairn_new_(cairn_type *type, size_t slot_size) {
    uint32_t bin = __atomic_load_n(&type->bin, __ATOMIC_RELAXED);
    if (CAIRN_LIKELY_(bin < cairn_thread.cursor_count)) {
        struct cairn_cursor *cursor = cairn_thread.cursors + bin;
        char *slot = cursor->next;
        if (CAIRN_LIKELY_(slot_size <= (size_t)(cursor->limit - slot))) {
            cursor->next = slot + slot_size;
            return slot;
        }
    }
    return cairn_new_type_in_(NULL, type);
}

/* One T with an initialiser: cairn_make(Node, .next = {n}, .value = 3). The initialiser is
 * evaluated first, once. */
#define cairn_make(T, ...) cairn_make_in(NULL, T, __VA_ARGS__)
#ifdef __cplusplus
/* Designators are an extension in C++17, fields left out are zero on purpose, and one cairn_make
 * may stand in another. */
#define cairn_make_in(heap, T, ...)                                                                \
    __extension__({                                                                                \
        _Pragma("GCC diagnostic push");                                                            \
        _Pragma("GCC diagnostic ignored \"-Wmissing-field-initializers\"");                        \
        _Pragma("GCC diagnostic ignored \"-Wshadow\"");                                            \
        T *cairn_made_ = (T *)CAIRN_NOTED_(                                                        \
            CAIRN_BORN_(T, cairn_make_of_<T>((heap), cairn_type_of_##T, T{__VA_ARGS__})));         \
        _Pragma("GCC diagnostic pop");                                                             \
        cairn_made_;                                                                               \
    })
#else
#define cairn_make_in(heap, T, ...)                                                                \
    ((T *)CAIRN_NOTED_(                                                                            \
        CAIRN_BORN_(T, cairn_make_((heap), cairn_type_of_##T, &(const T){__VA_ARGS__}))))
#endif
CAIRN_API void *cairn_make_(cairn_heap *heap, cairn_type *type, const void *initial);
#ifdef __cplusplus
extern "C++" {
template <class T> inline T *cairn_make_of_(cairn_heap *heap, cairn_type *type, const T &initial) {
    return (T *)cairn_make_(heap, type, &initial);
}
}
#endif

/* ---- Arrays ------------------------------------------------------------------------------- */

/* An array of `count` zeroed T, where T is a declared type or a named reference. Zero is fine: the
 * result is unique and has length 0. NULL if the size overflows. */
#define cairn_new_array(T, count) cairn_new_array_in(NULL, T, count)
#define cairn_new_array_in(heap, T, count)                                                         \
    ((T *)CAIRN_NOTED_(cairn_new_array_((heap), CAIRN_DESCRIPTOR_(T), (count))))
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

/* Elements of an array, string or plain bytes, as asked for; of a flexible member, but not fewer
 * than lie within sizeof its structure (and of a leaf type, structures); 1 for a single object.
 * O(1). */
CAIRN_API size_t cairn_length(const void *array);

/* A longer or shorter array with the same leading elements, new ones zeroed; the old one remains as
 * it was. NULL on failure. */
#define cairn_resize_array(array, count) cairn_resize_array_in(NULL, array, count)
#define cairn_resize_array_in(heap, array, count)                                                  \
    ((__typeof__(&*(array)))CAIRN_NOTED_(cairn_resize_array_((heap), (array), (count))))
CAIRN_API void *cairn_resize_array_(cairn_heap *heap, const void *array, size_t count);

/* One T followed by `count` elements of its flexible array member. */
#define cairn_new_flex(T, member, count) cairn_new_flex_in(NULL, T, member, count)
#define cairn_new_flex_in(heap, T, member, count)                                                  \
    ((T *)CAIRN_NOTED_(cairn_new_flex_((heap), cairn_type_of_##T, offsetof(T, member),             \
                                       sizeof(((T *)0)->member[0]), (count))))
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
#define cairn_alloc_in(heap, bytes) CAIRN_NOTED_(cairn_alloc_((heap), (bytes)))
#define cairn_alloc_bytes_in(heap, bytes) CAIRN_NOTED_(cairn_alloc_bytes_((heap), (bytes)))
CAIRN_API void *cairn_alloc_(cairn_heap *heap, size_t bytes);
CAIRN_API void *cairn_alloc_bytes_(cairn_heap *heap, size_t bytes);
/* Aligned to a power of two of at most 2 MiB; NULL for another alignment. */
#define cairn_alloc_aligned(bytes, align) cairn_alloc_aligned_in(NULL, (bytes), (align))
#define cairn_alloc_bytes_aligned(bytes, align) cairn_alloc_bytes_aligned_in(NULL, (bytes), (align))
#define cairn_alloc_aligned_in(heap, bytes, align)                                                 \
    CAIRN_NOTED_(cairn_alloc_aligned_((heap), (bytes), (align)))
#define cairn_alloc_bytes_aligned_in(heap, bytes, align)                                           \
    CAIRN_NOTED_(cairn_alloc_bytes_aligned_((heap), (bytes), (align)))
CAIRN_API void *cairn_alloc_aligned_(cairn_heap *heap, size_t bytes, size_t align);
CAIRN_API void *cairn_alloc_bytes_aligned_(cairn_heap *heap, size_t bytes, size_t align);

/* Strings: plain bytes that end in '\0'. cairn_length counts the '\0'. */
#define cairn_strdup(text) cairn_strdup_in(NULL, (text))
#define cairn_strndup(text, limit) cairn_strndup_in(NULL, (text), (limit))
#define cairn_format(...) cairn_format_in(NULL, __VA_ARGS__)
#define cairn_strdup_in(heap, text) ((char *)CAIRN_NOTED_(cairn_strdup_((heap), (text))))
#define cairn_strndup_in(heap, text, limit)                                                        \
    ((char *)CAIRN_NOTED_(cairn_strndup_((heap), (text), (limit))))
#define cairn_format_in(heap, ...) ((char *)CAIRN_NOTED_(cairn_format_((heap), __VA_ARGS__)))
CAIRN_API char *cairn_strdup_(cairn_heap *heap, const char *text);
CAIRN_API char *cairn_strndup_(cairn_heap *heap, const char *text, size_t limit);
CAIRN_API char *cairn_format_(cairn_heap *heap, const char *format, ...) CAIRN_PRINTF_(2, 3);

/* ---- Heaps ---------------------------------------------------------------------------------- */

typedef enum cairn_plan_kind {
    CAIRN_PLAN_DEFAULT = 0, /* CAIRN_PLAN, else counted */
    CAIRN_PLAN_COUNTED,     /* counts, and a trace behind them */
    CAIRN_PLAN_TRACED,      /* the trace alone decides what is dead; not in this release */
} cairn_plan_kind;

typedef struct cairn_options {
    size_t size;            /* sizeof(cairn_options), set by CAIRN_OPTIONS_INIT */
    const char *name;       /* for reports; copied; NULL: "heap" */
    size_t region_bytes;    /* address space to reserve, at least 32 MiB; 0: 256 GiB, or what
                               can be had */
    size_t limit_bytes;     /* beyond it objects above 16 KiB are refused, and traces come earlier;
                               0: CAIRN_LIMIT, else none */
    uint64_t pause_goal_ns; /* 0: CAIRN_PAUSE, else 1 ms; pauses serve all heaps, so the shortest of
                               theirs and the environment's counts */
    cairn_plan_kind plan;
    bool verify; /* recompute every count at each collection, as CAIRN_VERIFY=1 */
    bool trace;  /* a line per collection on stderr, as CAIRN_TRACE=1 */
} cairn_options;
#define CAIRN_OPTIONS_INIT                                                                         \
    { sizeof(cairn_options), NULL, 0, 0, 0, CAIRN_PLAN_DEFAULT, false, false }

/* Make a heap of its own. Options NULL: defaults. References may not cross heaps. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_heap_create(const cairn_options *options,
                                                         cairn_heap **heap);
/* End a heap and give back all its memory at once. Runs no finalizers and no cleanups of objects
 * that live, and waits for a finalizer of the heap that runs; weak references into it read as NULL.
 * No other thread may use the heap any more. CAIRN_ERROR_ARGUMENT: NULL or the default heap.
 * CAIRN_ERROR_BUSY: called in a finalizer of the heap. */
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
