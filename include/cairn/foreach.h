/* SPDX-License-Identifier: MIT
 *
 * Internal to the public headers: apply a macro to every argument of a list.
 *
 * CAIRN_EACH_(M, T, a, b, c) expands to M(T, a) M(T, b) M(T, c). The first sixteen take one scan.
 * The rest works by deferred rescanning, sixteen at a time, for each scan reads again what is there
 * already; one list may hold up to 340 fields. An argument in parentheses is a tuple that names its
 * own handler: CAIRN_FIELD_ tells the two apart.
 */
#ifndef CAIRN_FOREACH_H
#define CAIRN_FOREACH_H

#define CAIRN_EVAL_(...)                                                                           \
    CAIRN_EVAL1_(CAIRN_EVAL1_(CAIRN_EVAL1_(CAIRN_EVAL1_(CAIRN_EVAL1_(CAIRN_EVAL1_(__VA_ARGS__))))))
#define CAIRN_EVAL1_(...)                                                                          \
    CAIRN_EVAL0_(CAIRN_EVAL0_(CAIRN_EVAL0_(CAIRN_EVAL0_(CAIRN_EVAL0_(CAIRN_EVAL0_(__VA_ARGS__))))))
#define CAIRN_EVAL0_(...) __VA_ARGS__

#define CAIRN_EMPTY_()
#define CAIRN_DEFER_(m) m CAIRN_EMPTY_ CAIRN_EMPTY_()()

#define CAIRN_SECOND_(a, b, ...) b
#define CAIRN_CHECK_(...) CAIRN_SECOND_(__VA_ARGS__, 0, ~)
#define CAIRN_CAT_(a, b) CAIRN_CAT2_(a, b)
#define CAIRN_CAT2_(a, b) a##b

/* The list ends with sixteen of CAIRN_END_, a tuple whose probe expands to a second argument, so
 * that sixteen can always be taken. */
#define CAIRN_END_ (end, ~)
#define CAIRN_FOUR_ENDS_ CAIRN_END_, CAIRN_END_, CAIRN_END_, CAIRN_END_
#define CAIRN_IS_END_(x) CAIRN_CHECK_(CAIRN_CAT_(CAIRN_END_PROBE_, CAIRN_IS_TUPLE_(x))(x))
#define CAIRN_END_PROBE_0(x) 0
#define CAIRN_END_PROBE_1(x) CAIRN_CAT_(CAIRN_END_TAG_, CAIRN_TUPLE_TAG_ x)
#define CAIRN_TUPLE_TAG_(tag, ...) tag
#define CAIRN_END_TAG_end ~, 1
#define CAIRN_END_TAG_nested 0
#define CAIRN_END_TAG_weak 0
#define CAIRN_END_TAG_word 0
#define CAIRN_END_TAG_flex 0

#define CAIRN_IS_TUPLE_(x) CAIRN_CHECK_(CAIRN_TUPLE_PROBE_ x)
#define CAIRN_TUPLE_PROBE_(...) ~, 1

#define CAIRN_EACH_(M, T, ...)                                                                     \
    CAIRN_EACH_PADDED_(M, T, __VA_ARGS__, CAIRN_FOUR_ENDS_, CAIRN_FOUR_ENDS_, CAIRN_FOUR_ENDS_,    \
                       CAIRN_FOUR_ENDS_, ~)
#define CAIRN_EACH_PADDED_(...) CAIRN_EACH_LIST_(__VA_ARGS__)
#define CAIRN_EACH_LIST_(M, T, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ...)                \
    CAIRN_EACH_SIXTEEN_(M, T, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                      \
    CAIRN_CAT_(CAIRN_EACH_REST_, CAIRN_IS_END_(p))(M, T, __VA_ARGS__)
#define CAIRN_EACH_SIXTEEN_(M, T, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                  \
    CAIRN_EACH_FOUR_(M, T, a, b, c, d)                                                             \
    CAIRN_EACH_FOUR_(M, T, e, f, g, h)                                                             \
    CAIRN_EACH_FOUR_(M, T, i, j, k, l) CAIRN_EACH_FOUR_(M, T, m, n, o, p)
#define CAIRN_EACH_FOUR_(M, T, a, b, c, d)                                                         \
    CAIRN_EACH_ONE_(M, T, a)                                                                       \
    CAIRN_EACH_ONE_(M, T, b) CAIRN_EACH_ONE_(M, T, c) CAIRN_EACH_ONE_(M, T, d)
#define CAIRN_EACH_ONE_(M, T, x) CAIRN_CAT_(CAIRN_EACH_ONE_, CAIRN_IS_END_(x))(M, T, x)
#define CAIRN_EACH_ONE_0(M, T, x) M(T, x)
#define CAIRN_EACH_ONE_1(M, T, x)
#define CAIRN_EACH_REST_0(...) CAIRN_EVAL_(CAIRN_EACH_STEP_(__VA_ARGS__))
#define CAIRN_EACH_REST_1(...)
#define CAIRN_EACH_STEP_(M, T, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ...)                \
    CAIRN_EACH_SIXTEEN_(M, T, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                      \
    CAIRN_CAT_(CAIRN_EACH_NEXT_, CAIRN_IS_END_(p))(M, T, __VA_ARGS__)
#define CAIRN_EACH_NEXT_0(...) CAIRN_DEFER_(CAIRN_EACH_AGAIN_)()(__VA_ARGS__)
#define CAIRN_EACH_NEXT_1(...)
#define CAIRN_EACH_AGAIN_() CAIRN_EACH_STEP_

#endif
