/* SPDX-License-Identifier: MIT
 *
 * Types, references, the store barrier, deleting, weak references, roots.
 *
 * A reference is a field `cairn_ref(T)`. It reads as `object->field.p`; assigning to it does not
 * compile; it is stored with cairn_set and its sisters. Local variables, arguments, globals and
 * thread-locals hold plain pointers: they are found conservatively.
 */
#ifndef CAIRN_OBJECT_H
#define CAIRN_OBJECT_H

#include <cairn/foreach.h>
#include <cairn/runtime.h>

#include <stdlib.h>
#include <string.h>
#ifdef __cplusplus
#include <type_traits>
extern "C" {
#endif

typedef struct cairn_heap cairn_heap;
typedef struct cairn_type cairn_type;

/* What a call that can fail returns. */
typedef enum cairn_status {
    CAIRN_OK = 0,
    CAIRN_ERROR_ARGUMENT,      /* an argument is out of its range */
    CAIRN_ERROR_NO_MEMORY,     /* neither the system nor a collection gave memory */
    CAIRN_ERROR_LIMIT,         /* a limit of the heap or the system is reached */
    CAIRN_ERROR_ENVIRONMENT,   /* a CAIRN_ variable has a bad value; stderr says which */
    CAIRN_ERROR_NOT_SUPPORTED, /* this system or this build cannot do it */
    CAIRN_ERROR_BUSY,          /* in use by another thread */
} cairn_status;

/* A sentence for a status, static. */
CAIRN_API const char *cairn_status_text(cairn_status status);

/* ---- References ------------------------------------------------------------------------- */

/* A counted reference to a T or NULL. Give it a name with typedef: each use is a type of its own.
 */
#define cairn_ref(T)                                                                               \
    struct {                                                                                       \
        T *const p;                                                                                \
    }

/* A word that holds a reference or tagged bits; the type's options tell which. Read `.w`; store
 * with cairn_set_word. */
typedef struct cairn_word {
    const uintptr_t w;
} cairn_word;

/* A weak reference: does not keep its object alive and reads as NULL once that is gone. As a field
 * of a heap object it must be declared with CAIRN_WEAK; elsewhere it must lie where the collector
 * looks: in a static, on a stack, or in memory given to cairn_root_add. Zero is NULL. */
typedef struct cairn_weak {
    struct cairn_weak_cell *const cell;
} cairn_weak;

/* ---- Types ------------------------------------------------------------------------------ */

enum cairn_field_kind {
    CAIRN_FIELD_REF = 1, /* cairn_ref, or an array of them */
    CAIRN_FIELD_WORD,    /* cairn_word, or an array of them */
    CAIRN_FIELD_WEAK,    /* cairn_weak, or an array of them */
    CAIRN_FIELD_NESTED,  /* a struct of another declared type, or an array of them */
    CAIRN_FIELD_FLEX,    /* a flexible array member of cairn_ref */
};

struct cairn_field {
    size_t offset;      /* bytes */
    size_t size;        /* bytes, 0 for a flexible array member */
    cairn_type *nested; /* of CAIRN_FIELD_NESTED */
    enum cairn_field_kind kind;
};

/* How a type departs from the usual; zero is the usual. */
#ifdef __cplusplus
#define CAIRN_OR_ZERO_(member) member = {}
#else
#define CAIRN_OR_ZERO_(member) member
#endif
typedef struct cairn_type_options {
    /* Runs once, when the last reference went, or in cairn_delete on its thread; else on the
     * finalizer thread or in cairn_finalize_pending. With no lock held; may allocate, store,
     * collect and delete. What the object refers to is whole, weak references to the object read
     * NULL. If it stores the object before it returns, that lives on, without a finalizer. Must
     * return. In cycles the order is not set. Such a type has no arrays. */
    CAIRN_OR_ZERO_(void (*finalize)(void *object));
    CAIRN_OR_ZERO_(bool pinned); /* the object must never move */
    /* A CAIRN_WORD w is a reference if (w & word_mask) == word_tag; mask 0 means mask 7, tag 0. */
    CAIRN_OR_ZERO_(uintptr_t word_mask);
    CAIRN_OR_ZERO_(uintptr_t word_tag);
} cairn_type_options;

/* A descriptor; CAIRN_TYPE makes a static one, cairn_type_create one at run time. */
struct cairn_type {
    uint32_t bin;         /* atomic; 0 until the first allocation */
    uint32_t field_count; /* and CAIRN_REDZONED_ */
    size_t size, align;   /* bytes */
    const char *name;
    const struct cairn_field *fields;
    cairn_type_options options;
    struct crn_type *known;  /* atomic; what the collector made of it */
    uint32_t first_verdicts; /* of a new object's first 64 bytes; written before known */
};

CAIRN_API extern cairn_type cairn_type_reference_[1]; /* of cairn_new_array(NodeRef, n) */

/* Declare type T with its reference fields. File scope, in a header or a source file.
 * CAIRN_LEAF(T): a T holds no references. CAIRN_TYPE_WITH(T, (options), fields...).
 * Fields: a name of a cairn_ref member or of an array of them; CAIRN_NESTED(member, Type);
 * CAIRN_WEAK(member); CAIRN_WORD(member); CAIRN_FLEX(member). */
#define CAIRN_TYPE(T, ...)                                                                         \
    CAIRN_TYPE_(T, CAIRN_NO_OPTIONS_, CAIRN_EACH_(CAIRN_FIELD_, T, __VA_ARGS__))
#define CAIRN_TYPE_WITH(T, options, ...)                                                           \
    CAIRN_TYPE_(T, options, CAIRN_EACH_(CAIRN_FIELD_, T, __VA_ARGS__))
#define CAIRN_LEAF(T)                                                                              \
    __extension__ CAIRN_UNUSED_ static cairn_type cairn_type_of_##T[1] = {                         \
        {0, CAIRN_REDZONED_, sizeof(T), CAIRN_ALIGNOF_(T), #T, NULL,                               \
         CAIRN_APPLY_(CAIRN_OPTIONS_, CAIRN_NO_OPTIONS_), NULL, 0}}
#define CAIRN_LEAF_WITH(T, options)                                                                \
    __extension__ CAIRN_UNUSED_ static cairn_type cairn_type_of_##T[1] = {                         \
        {0, CAIRN_REDZONED_, sizeof(T), CAIRN_ALIGNOF_(T), #T, NULL,                               \
         CAIRN_APPLY_(CAIRN_OPTIONS_, options), NULL, 0}}

#define CAIRN_NESTED(member, Type) (nested, member, Type)
#define CAIRN_WEAK(member) (weak, member)
#define CAIRN_WORD(member) (word, member)
#define CAIRN_FLEX(member) (flex, member)

#define CAIRN_STRIP_(...) __VA_ARGS__
/* The options of a type as an initialiser; empty ones are all zero. */
#define CAIRN_OPTIONS_(...) CAIRN_OPTIONS_VALUE_(__VA_ARGS__)
#define CAIRN_APPLY_(macro, tuple) macro tuple
#define CAIRN_OPTIONS_VALUE_(...)                                                                  \
    { __VA_ARGS__ }
#ifdef __cplusplus
#define CAIRN_ALIGNOF_(T) alignof(T)
#define CAIRN_NO_OPTIONS_ ()
#else
#define CAIRN_ALIGNOF_(T) _Alignof(T)
#define CAIRN_NO_OPTIONS_ (NULL, false, 0, 0)
#endif

#define CAIRN_TYPE_(T, OPTIONS, ...)                                                               \
    CAIRN_UNUSED_ static const struct cairn_field cairn_fields_of_##T[] = {__VA_ARGS__};           \
    __extension__ CAIRN_UNUSED_ static cairn_type cairn_type_of_##T[1] = {                         \
        {0,                                                                                        \
         (uint32_t)(sizeof(cairn_fields_of_##T) / sizeof(struct cairn_field)) | CAIRN_REDZONED_,   \
         sizeof(T), CAIRN_ALIGNOF_(T), #T, cairn_fields_of_##T,                                    \
         CAIRN_APPLY_(CAIRN_OPTIONS_, OPTIONS), NULL, 0}}

#define CAIRN_FIELD_(T, x) CAIRN_CAT_(CAIRN_FIELD_TUPLE_, CAIRN_IS_TUPLE_(x))(T, x)
#define CAIRN_FIELD_TUPLE_0(T, f) CAIRN_FIELD_REF_(T, f)
#define CAIRN_FIELD_TUPLE_1(T, tuple) CAIRN_FIELD_KIND_(T, CAIRN_STRIP_ tuple)
#define CAIRN_FIELD_KIND_(...) CAIRN_FIELD_KIND2_(__VA_ARGS__)
#define CAIRN_FIELD_KIND2_(T, kind, ...) CAIRN_FIELD_KIND_##kind(T, __VA_ARGS__)
#define CAIRN_FIELD_KIND_nested(T, f, Type)                                                        \
    {offsetof(T, f),                                                                               \
     sizeof(((T *)0)->f) + CAIRN_MUST_(CAIRN_SAME_(CAIRN_ELEMENT_(((T *)0)->f), Type),             \
                                       nested_field_is_not_of_that_type),                          \
     cairn_type_of_##Type, CAIRN_FIELD_NESTED},
#define CAIRN_FIELD_KIND_weak(T, f)                                                                \
    {offsetof(T, f),                                                                               \
     sizeof(((T *)0)->f) + CAIRN_MUST_(CAIRN_SAME_(CAIRN_ELEMENT_(((T *)0)->f), cairn_weak),       \
                                       field_is_no_cairn_weak),                                    \
     NULL, CAIRN_FIELD_WEAK},
#define CAIRN_FIELD_KIND_word(T, f)                                                                \
    {offsetof(T, f),                                                                               \
     sizeof(((T *)0)->f) + CAIRN_MUST_(CAIRN_SAME_(CAIRN_ELEMENT_(((T *)0)->f), cairn_word),       \
                                       field_is_no_cairn_word),                                    \
     NULL, CAIRN_FIELD_WORD},
#define CAIRN_FIELD_KIND_flex(T, f)                                                                \
    {offsetof(T, f),                                                                               \
     CAIRN_MUST_(CAIRN_IS_REF_(CAIRN_FLEX_ELEMENT_(((T *)0)->f)), field_is_no_cairn_ref), NULL,    \
     CAIRN_FIELD_FLEX},
#define CAIRN_FIELD_REF_(T, f)                                                                     \
    {offsetof(T, f),                                                                               \
     sizeof(((T *)0)->f) +                                                                         \
         CAIRN_MUST_(CAIRN_IS_REF_(CAIRN_ELEMENT_(((T *)0)->f)), field_is_no_cairn_ref),           \
     NULL, CAIRN_FIELD_REF},

/* 0, or a compile error that shows the message. */
#ifdef __cplusplus
#define CAIRN_MUST_(condition, message) (cairn_must_<(condition)>())
#else
#define CAIRN_MUST_(condition, message)                                                            \
    (0 * sizeof(struct {                                                                           \
         int unused;                                                                               \
         _Static_assert(condition, #message);                                                      \
     }))
#endif

#ifndef __cplusplus
#define CAIRN_SAME_(expression, Type) __builtin_types_compatible_p(__typeof__(expression), Type)
#define CAIRN_DECAYED_(x) (1 ? (x) : (x))
#define CAIRN_IS_ARRAY_(x)                                                                         \
    (!__builtin_types_compatible_p(__typeof__(x), __typeof__(CAIRN_DECAYED_(x))))
/* The innermost element of a field that may be an array of up to two dimensions. */
#define CAIRN_ELEMENT_(x) CAIRN_ELEMENT1_(CAIRN_ELEMENT1_(x))
#define CAIRN_FLEX_ELEMENT_(x) ((x)[0])
#define CAIRN_ELEMENT1_(x) (*__builtin_choose_expr(CAIRN_IS_ARRAY_(x), (x), &(x)))
/* A struct of one const pointer: `.p` must exist, be const, be a pointer and be all there is. */
#define CAIRN_IS_REF_(x)                                                                           \
    (sizeof(x) == sizeof(void *) && __builtin_classify_type((x).p) == 5 &&                         \
     __builtin_types_compatible_p(__typeof__(&(x).p), const __typeof__((x).p) *))
#endif

#ifdef __cplusplus
} /* extern "C" */
template <bool condition> constexpr size_t cairn_must_() {
    static_assert(condition, "this field is not what the declaration says");
    return 0;
}
template <class X> using cairn_element_t = std::remove_all_extents_t<X>;
template <class X>
constexpr bool cairn_is_ref_v =
    sizeof(X) == sizeof(void *) &&
    std::is_const<decltype(X::p)>::value &&std::is_pointer<decltype(X::p)>::value;
#define CAIRN_ELEMENT_(x) cairn_element_t<std::remove_reference_t<decltype((x))>>
#define CAIRN_SAME_(X, Type) (std::is_same<X, Type>::value)
#define CAIRN_IS_REF_(...) CAIRN_IS_REF2_(__VA_ARGS__)
#define CAIRN_FLEX_ELEMENT_(x) std::remove_reference_t<decltype((x)[0])>
extern "C" {
#endif

/* ---- Checked builds ---------------------------------------------------------------------- */

/* Where in the program something happens. */
#define CAIRN_SITE_ __FILE__, __func__, __LINE__

/* A file that is compiled with -DCAIRN_CHECKED looks before it leaps. What cairn_get and cairn_load
 * return, and what cairn_set, cairn_swap and cairn_cas store, must be NULL, the start of an object
 * that is not deleted, or outside every heap. What is stored into must be a declared field of a
 * living object of the same heap. cairn_at and cairn_copy stay within one object; so do memcpy,
 * memmove, memset and qsort, which may not write over a declared field (in C; C++ has no macros of
 * these names). Whatever is not so is a report that names the line. Files with and without may be
 * mixed. */
#if defined(CAIRN_CHECKED)
#define CAIRN_HERE_ , CAIRN_SITE_
#define CAIRN_HERE_PARAMETERS_ , const char *file, const char *function, int line
#define CAIRN_HERE_PASSED_ , file, function, line
#define CAIRN_CHECK_STORE_(field, value)                                                           \
    cairn_look_at_store_((field), (value), file, function, line)
#define CAIRN_CHECK_COPY_(dst, src, count, bytes)                                                  \
    cairn_check_copy_(dst, src, count, bytes, file, function, line)
#else
#define CAIRN_HERE_
#define CAIRN_HERE_PARAMETERS_
#define CAIRN_HERE_PASSED_
#define CAIRN_CHECK_STORE_(field, value) CAIRN_ASK_STORE_(field)
#define CAIRN_CHECK_COPY_(dst, src, count, bytes) ((void)0)
#endif
CAIRN_API void *cairn_check_value_(void *value, const char *file, const char *function, int line);
CAIRN_API void *cairn_check_type_(void *value, cairn_type *type, const char *file,
                                  const char *function, int line);
CAIRN_API void cairn_check_store_(void **field, void *value, const char *file, const char *function,
                                  int line);
/* Most of what is looked at has been before, and has a verdict. */
CAIRN_INLINE_ void *cairn_look_at_value_(void *value, const char *file, const char *function,
                                         int line) {
    if (CAIRN_LIKELY_(cairn_is_known_start_(value)) || !value) return value;
    return cairn_check_value_(value, file, function, line);
}
CAIRN_INLINE_ void cairn_look_at_store_(void **field, void *value, const char *file,
                                        const char *function, int line) {
    uintptr_t apart = (uintptr_t)field ^ (uintptr_t)value;
    uintptr_t heap_bits = __atomic_load_n(&cairn_runtime.heap_bits, __ATOMIC_RELAXED);
    bool is_target_good = !value || (cairn_is_known_start_(value) && !(apart & heap_bits));
    if (CAIRN_LIKELY_(cairn_is_known_field_(field) && is_target_good)) return;
    cairn_check_store_(field, value, file, function, line);
}
CAIRN_API void *cairn_check_index_(const void *array, size_t index, size_t element_bytes,
                                   const char *file, const char *function, int line);
CAIRN_API void cairn_check_copy_(const void *dst, const void *src, size_t count,
                                 size_t element_bytes, const char *file, const char *function,
                                 int line);

CAIRN_API void *cairn_check_memcpy_(const char *file, const char *function, int line, void *to,
                                    const void *from, size_t bytes);
CAIRN_API void *cairn_check_memmove_(const char *file, const char *function, int line, void *to,
                                     const void *from, size_t bytes);
CAIRN_API void *cairn_check_memset_(const char *file, const char *function, int line, void *to,
                                    int value, size_t bytes);
CAIRN_API void cairn_check_qsort_(const char *file, const char *function, int line, void *array,
                                  size_t count, size_t element_bytes,
                                  int (*compare)(const void *, const void *));
CAIRN_INLINE_ bool cairn_may_copy_(const void *to, const void *from, size_t bytes) {
    return CAIRN_LIKELY_(cairn_is_known_(&cairn_thread.written, to, bytes) &&
                         cairn_is_known_(&cairn_thread.read, from, bytes));
}
CAIRN_INLINE_ void *cairn_memcpy_here_(const char *file, const char *function, int line, void *to,
                                       const void *from, size_t bytes) {
    if (cairn_may_copy_(to, from, bytes)) return __builtin_memcpy(to, from, bytes);
    return cairn_check_memcpy_(file, function, line, to, from, bytes);
}
CAIRN_INLINE_ void *cairn_memmove_here_(const char *file, const char *function, int line, void *to,
                                        const void *from, size_t bytes) {
    if (cairn_may_copy_(to, from, bytes)) return __builtin_memmove(to, from, bytes);
    return cairn_check_memmove_(file, function, line, to, from, bytes);
}
CAIRN_INLINE_ void *cairn_memset_here_(const char *file, const char *function, int line, void *to,
                                       int value, size_t bytes) {
    if (CAIRN_LIKELY_(cairn_is_known_(&cairn_thread.written, to, bytes)))
        return __builtin_memset(to, value, bytes);
    return cairn_check_memset_(file, function, line, to, value, bytes);
}
/* In C; in C++ the names are those of members of std too. The usual headers are included above, for
 * their declarations must come first. A file that declares these functions itself, or has members
 * of their names, defines CAIRN_NO_PLAIN_COPY_CHECKS. */
#if defined(CAIRN_CHECKED) && !defined(__cplusplus) && !defined(CAIRN_NO_PLAIN_COPY_CHECKS)
#undef memcpy
#undef memmove
#undef memset
#undef qsort
#define memcpy(...) cairn_memcpy_here_(CAIRN_SITE_, __VA_ARGS__)
#define memmove(...) cairn_memmove_here_(CAIRN_SITE_, __VA_ARGS__)
#define memset(...) cairn_memset_here_(CAIRN_SITE_, __VA_ARGS__)
#define qsort(...) cairn_check_qsort_(CAIRN_SITE_, __VA_ARGS__)
#endif

CAIRN_INLINE_ void cairn_store_here_(void **field, void *value CAIRN_HERE_PARAMETERS_) {
    CAIRN_CHECK_STORE_(field, value);
    cairn_store_(field, value);
}
CAIRN_INLINE_ void *cairn_swap_here_(void **field, void *value CAIRN_HERE_PARAMETERS_) {
    CAIRN_CHECK_STORE_(field, value);
    return cairn_swap_(field, value);
}
CAIRN_INLINE_ bool cairn_cas_here_(void **field, void **expected,
                                   void *value CAIRN_HERE_PARAMETERS_) {
    CAIRN_CHECK_STORE_(field, value);
    return cairn_cas_(field, expected, value);
}

/* ---- Storing references ------------------------------------------------------------------ */

/* cairn_set(&n->field, value): the store. `value` is a pointer of the field's type: the start of an
 * object of the same heap, an address in no heap (a static object, say), or NULL. The next epoch
 * ends the program if it is the middle of an object. Each argument is evaluated once. Releases:
 * another thread that reads the field with cairn_load sees the object's contents. Any thread; never
 * blocks longer than a pause; may collect. cairn_set_at(link, value): the same through a `T *const
 * *`. */
#ifdef __cplusplus
#define cairn_set(link, value) cairn_set_to_((link), (value)CAIRN_HERE_)
#define cairn_set_at(link, value) cairn_set_at_to_((link), (value)CAIRN_HERE_)
#else
#define cairn_set(link, value)                                                                     \
    __extension__({                                                                                \
        CAIRN_STORES_(*(link), (link)->p, value);                                                  \
        cairn_store_here_(CAIRN_FIELD_ADDRESS_(&(link)->p), CAIRN_ERASE_(value) CAIRN_HERE_);      \
    })
#define cairn_set_at(link, value)                                                                  \
    __extension__({                                                                                \
        _Static_assert(CAIRN_FITS_(*(link), value), "the value does not fit the reference");       \
        cairn_store_here_(CAIRN_FIELD_ADDRESS_(link), CAIRN_ERASE_(value) CAIRN_HERE_);            \
    })
#endif

/* Reading. cairn_get(n->field) is n->field.p; cairn_load(&n->field) acquires. cairn_at(array, i) is
 * array[i], to read or to take the address of. In checked builds each looks first; see above. */
#if defined(CAIRN_CHECKED)
#define CAIRN_VALUE_(value) cairn_look_at_value_((value)CAIRN_HERE_)
#define cairn_get(reference)                                                                       \
    ((CAIRN_POINTER_OF_((reference).p))CAIRN_VALUE_(CAIRN_ERASE_((reference).p)))
#define cairn_at(array, index)                                                                     \
    (*(__typeof__(&(array)[0]))cairn_check_index_((array), (size_t)(index), sizeof((array)[0]),    \
                                                  CAIRN_SITE_))
#else
#define CAIRN_VALUE_(value) (value)
#define cairn_get(reference) ((reference).p)
#define cairn_at(array, index) ((array)[index])
#endif
/* cairn_cast(T, pointer) is (T *)pointer, for references and arguments that say void: in checked
 * files a pointer to an object must be to the start of a T or of an array of T. T is a declared
 * type. */
#if defined(CAIRN_CHECKED)
#define cairn_cast(T, pointer)                                                                     \
    ((T *)cairn_check_type_(CAIRN_ERASE_(pointer), cairn_type_of_##T CAIRN_HERE_))
#else
#define cairn_cast(T, pointer) ((T *)CAIRN_ERASE_(pointer))
#endif
#define cairn_load(link)                                                                           \
    ((CAIRN_POINTER_OF_((link)->p))CAIRN_VALUE_(                                                   \
        __atomic_load_n(CAIRN_FIELD_ADDRESS_(&(link)->p), __ATOMIC_ACQUIRE)))

/* cairn_swap(&n->field, value) returns the old value. cairn_cas(&n->field, &expected, value) stores
 * if the field holds `expected`, else puts what it holds there; returns whether it stored. */
#ifdef __cplusplus
#define cairn_swap(link, value) cairn_swap_to_((link), (value)CAIRN_HERE_)
#define cairn_cas(link, expected, value) cairn_cas_to_((link), (expected), (value)CAIRN_HERE_)
#else
#define cairn_swap(link, value)                                                                    \
    __extension__({                                                                                \
        CAIRN_STORES_(*(link), (link)->p, value);                                                  \
        (CAIRN_POINTER_OF_((link)->p))                                                             \
            cairn_swap_here_(CAIRN_FIELD_ADDRESS_(&(link)->p), CAIRN_ERASE_(value) CAIRN_HERE_);   \
    })
#define cairn_cas(link, expected, value)                                                           \
    __extension__({                                                                                \
        CAIRN_STORES_(*(link), (link)->p, value);                                                  \
        _Static_assert(CAIRN_POINTEE_IS_(expected, CAIRN_POINTER_OF_((link)->p) *),                \
                       "what is expected is not a variable of the reference's type");              \
        cairn_cas_here_(CAIRN_FIELD_ADDRESS_(&(link)->p), CAIRN_FIELD_ADDRESS_(expected),          \
                        CAIRN_ERASE_(value) CAIRN_HERE_);                                          \
    })
#endif

/* Store a word that is a reference or tagged bits into a CAIRN_WORD field. */
#ifdef __cplusplus
#define cairn_set_word(field, bits) cairn_set_word_((field), (uintptr_t)(bits))
#else
#define cairn_set_word(field, bits)                                                                \
    (_Generic((field), cairn_word * : cairn_set_word_)((field), (uintptr_t)(bits)))
#endif
CAIRN_INLINE_ void cairn_set_word_(cairn_word *field, uintptr_t bits) {
    CAIRN_ASK_STORE_(field);
    cairn_store_((void **)(uintptr_t)&field->w, (void *)bits);
}

/* The macros declare no variable, so each may stand in an argument of any other; what is named more
 * than once is named where it is not evaluated. */
#define CAIRN_FIELD_ADDRESS_(address) ((void **)(uintptr_t)(address))
#define CAIRN_ERASE_(pointer) ((void *)(uintptr_t)(pointer))
#ifdef __cplusplus
#define CAIRN_POINTER_OF_(x) std::remove_cv_t<std::remove_reference_t<decltype((x))>>
#else
/* `(x) + 0`-like decay without arithmetic: the conditional drops the const of the pointer itself.
 */
#define CAIRN_POINTER_OF_(x) __typeof__(CAIRN_DECAYED_(x))
#define CAIRN_POINTEE_IS_(value, pointer_type)                                                     \
    __builtin_types_compatible_p(__typeof__(CAIRN_DECAYED_(value)), pointer_type)
#define CAIRN_FITS_(target, value)                                                                 \
    (__builtin_classify_type(value) == 5 &&                                                        \
     (CAIRN_POINTEE_IS_(value, __typeof__(CAIRN_DECAYED_(target))) ||                              \
      CAIRN_POINTEE_IS_(value, void *) ||                                                          \
      CAIRN_POINTEE_IS_(target, const __typeof__(*(value)) *) ||                                   \
      CAIRN_POINTEE_IS_(target, const void *) ||                                                   \
      (CAIRN_POINTEE_IS_(target, void *) &&                                                        \
       !CAIRN_POINTEE_IS_(value, const __typeof__(*(value)) *))))
#define CAIRN_IS_CONST_(x) __builtin_types_compatible_p(__typeof__(&(x)), const __typeof__(x) *)
#define CAIRN_STORES_(holder, target, value)                                                       \
    _Static_assert(!CAIRN_IS_CONST_(holder), "the object that is stored into is const");           \
    _Static_assert(CAIRN_FITS_(target, value), "the value does not fit the reference")
#endif

CAIRN_API void cairn_copy_(void *dst, const void *src, size_t count, size_t element_size);
CAIRN_INLINE_ void cairn_copy_here_(void *dst, const void *src, size_t count,
                                    size_t element_size CAIRN_HERE_PARAMETERS_) {
    CAIRN_CHECK_COPY_(dst, src, count, element_size);
    cairn_copy_(dst, src, count, element_size);
}
CAIRN_API void cairn_sort_(void *array, size_t count, size_t element_size,
                           int (*compare)(const void *, const void *));

#ifdef __cplusplus
extern "C++" {
template <class L> using cairn_target_t = std::remove_const_t<decltype(L::p)>;
template <class T> struct cairn_same_ { typedef T type; };
template <class L> inline void **cairn_field_of_(L *link) {
    static_assert(!std::is_const<L>::value, "the object that is stored into is const");
    return CAIRN_FIELD_ADDRESS_(&link->p);
}
template <class L>
inline void cairn_set_to_(L *link, cairn_target_t<L> value CAIRN_HERE_PARAMETERS_) {
    cairn_store_here_(cairn_field_of_(link), CAIRN_ERASE_(value) CAIRN_HERE_PASSED_);
}
template <class T>
inline void cairn_set_at_to_(T *const *link,
                             typename cairn_same_<T>::type *value CAIRN_HERE_PARAMETERS_) {
    cairn_store_here_(CAIRN_FIELD_ADDRESS_(link), CAIRN_ERASE_(value) CAIRN_HERE_PASSED_);
}
template <class L>
inline cairn_target_t<L> cairn_swap_to_(L *link, cairn_target_t<L> value CAIRN_HERE_PARAMETERS_) {
    return (cairn_target_t<L>)cairn_swap_here_(cairn_field_of_(link),
                                               CAIRN_ERASE_(value) CAIRN_HERE_PASSED_);
}
template <class L>
inline bool cairn_cas_to_(L *link, cairn_target_t<L> *expected,
                          cairn_target_t<L> value CAIRN_HERE_PARAMETERS_) {
    return cairn_cas_here_(cairn_field_of_(link), CAIRN_FIELD_ADDRESS_(expected),
                           CAIRN_ERASE_(value) CAIRN_HERE_PASSED_);
}
template <class T>
inline void cairn_copy_to_(T *dst, const typename cairn_same_<T>::type *src,
                           size_t count CAIRN_HERE_PARAMETERS_) {
    static_assert(!std::is_const<T>::value, "the object that is stored into is const");
    cairn_copy_here_((void *)dst, (const void *)src, count, sizeof(T) CAIRN_HERE_PASSED_);
}
}
#endif

/* Bulk work on memory that holds references. `count` is elements of dst's type; ranges may overlap.
 * cairn_clear sets a whole object to zero. cairn_sort sorts an array in place with qsort's compare.
 */
#ifdef __cplusplus
#define cairn_copy(dst, src, count) cairn_copy_to_((dst), (src), (count)CAIRN_HERE_)
#define cairn_sort(array, count, compare) cairn_sort_((array), (count), sizeof(*(array)), (compare))
#else
#define cairn_copy(dst, src, count)                                                                \
    __extension__({                                                                                \
        _Static_assert(!CAIRN_IS_CONST_(*(dst)), "the object that is stored into is const");       \
        _Static_assert(__builtin_types_compatible_p(__typeof__(*(dst)), __typeof__(*(src))),       \
                       "the elements of source and destination differ in type");                   \
        cairn_copy_here_((void *)(uintptr_t)(dst), (src), (count), sizeof(*(dst)) CAIRN_HERE_);    \
    })
#define cairn_sort(array, count, compare)                                                          \
    __extension__({                                                                                \
        _Static_assert(!CAIRN_IS_CONST_(*(array)), "the object that is stored into is const");     \
        cairn_sort_((void *)(uintptr_t)(array), (count), sizeof(*(array)), (compare));             \
    })
#endif
CAIRN_API void cairn_clear(void *object);

/* ---- Deleting ---------------------------------------------------------------------------- */

/* Ends *variable now: runs its finalizer here, queues its cleanups, clears its weak references and
 * its fields, poisons the rest, and sets the variable (an lvalue, evaluated once) to a tombstone
 * that traps when touched. NULL is a no-op. The slot is free again at an epoch at which nothing,
 * counted, pinned or on a stack, refers to it. A trace turns every field that still refers to it
 * into a tombstone too (the declared cairn_ref fields of objects; words with tags, untyped memory,
 * roots and stacks keep the slot waiting). What such a field then holds may be copied and stored
 * like any value; what the variable holds may not, and is an error at the next epoch. Deleting what
 * is deleted, or what is no object, or a pointer into one, is an error that reports and aborts; of
 * two threads that delete one object at once, one does. Any thread, finalizers included; no lock is
 * held while it reports or finalizes. Cost: some 40 ns, and the object's size.
 * cairn_delete_ref(&n->field): the same for what a field refers to; the field becomes the
 * tombstone. */
#define cairn_delete(variable)                                                                     \
    __extension__({                                                                                \
        __typeof__(variable) *cairn_d_ = &(variable);                                              \
        *cairn_d_ = (__typeof__(variable))cairn_delete_(CAIRN_ERASE_(*cairn_d_), CAIRN_SITE_);     \
    })
#define cairn_delete_ref(link) cairn_delete_ref_(CAIRN_FIELD_ADDRESS_(&(link)->p), CAIRN_SITE_)
CAIRN_API void *cairn_delete_(void *object, const char *file, const char *function, int line);
CAIRN_API void cairn_delete_ref_(void **field, const char *file, const char *function, int line);

/* Whether the pointer is a tombstone or names a deleted object whose slot still waits. */
CAIRN_API bool cairn_is_deleted(const void *pointer);

/* ---- What keeps objects alive ------------------------------------------------------------- */

/* Counted references to the object from fields, roots apart; exact right after
 * cairn_collect(CAIRN_COUNT); 255 means 255 or more; 0 for what is no object. */
CAIRN_API size_t cairn_count(const void *object);

/* Keep the object alive and in place until as many unpins. Returns the object. NULL is a no-op.
 * Unpinning what is not pinned, and pinning what is no object, are errors that report. Any thread;
 * may collect. Costs an epoch nothing while it lasts. */
#define cairn_pin(object) ((__typeof__(&*(object)))cairn_pin_(CAIRN_ERASE_(object)))
CAIRN_API void *cairn_pin_(void *object);
CAIRN_API void cairn_unpin(const void *object);

/* Scan [address, address + bytes) for pointers at every collection, until removed. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_root_add(const void *address, size_t bytes);
CAIRN_API void cairn_root_remove(const void *address);
/* The same for a coroutine's or a signal's stack [low, high). */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_stack_add(const void *low, const void *high);
CAIRN_API void cairn_stack_remove(const void *low);

/* The pointer is in use at least until here. */
static inline void cairn_keep(const void *pointer) {
    __asm__ volatile("" : : "r"(pointer) : "memory");
}

/* Weak references. cairn_weak_set(weak, NULL) clears; else it allocates a small cell at the first
 * use on an object: false, and nothing changed, when there is no memory. The object may be of any
 * heap. cairn_weak_get returns the object, which its result then keeps alive like any pointer, or
 * NULL if it is dead, deleted, or its heap has ended. Any thread; two threads that set and get one
 * weak reference at once see one of its values. Two loads; never blocks. */
CAIRN_API bool cairn_weak_set(cairn_weak *weak, void *object);
CAIRN_API void *cairn_weak_get(const cairn_weak *weak);

/* Call function(argument) after the object is gone, on the finalizer thread or in
 * cairn_finalize_pending, with no lock held. Several per object; run in the order added, after its
 * finalizer. `argument` must not name the object. cairn_delete queues them at once; ending a heap
 * runs none. CAIRN_ERROR_ARGUMENT: NULL, or the object is deleted. CAIRN_ERROR_NO_MEMORY: not
 * added; what was added is never lost for memory. */
CAIRN_API CAIRN_NODISCARD cairn_status cairn_cleanup_add(void *object,
                                                         void (*function)(void *argument),
                                                         void *argument);
/* Run what waits to be finalized on this thread, finalizers and cleanups; returns how many calls it
 * made. What another thread has begun is not waited for. May be called in a finalizer. */
CAIRN_API size_t cairn_finalize_pending(void);

#ifdef __cplusplus
}
#define CAIRN_IS_REF2_(...) (cairn_is_ref_v<__VA_ARGS__>)
#endif

#endif
