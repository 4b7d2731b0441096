/* SPDX-License-Identifier: MIT
 *
 * Internal to the public headers: apply a macro to every argument of a list.
 *
 * CAIRN_EACH_(M, T, a, b, c) expands to M(T, a) M(T, b) M(T, c). It works by deferred rescanning,
 * so that it needs no table of cases; one list may hold up to 340 fields. An argument in
 * parentheses is a tuple that names its own handler: CAIRN_FIELD_ tells the two apart.
 */
#ifndef CAIRN_FOREACH_H
#define CAIRN_FOREACH_H

#define CAIRN_EVAL_(...) CAIRN_EVAL4_(CAIRN_EVAL4_(CAIRN_EVAL4_(CAIRN_EVAL4_(__VA_ARGS__))))
#define CAIRN_EVAL4_(...) CAIRN_EVAL3_(CAIRN_EVAL3_(CAIRN_EVAL3_(CAIRN_EVAL3_(__VA_ARGS__))))
#define CAIRN_EVAL3_(...) CAIRN_EVAL2_(CAIRN_EVAL2_(CAIRN_EVAL2_(CAIRN_EVAL2_(__VA_ARGS__))))
#define CAIRN_EVAL2_(...) CAIRN_EVAL1_(CAIRN_EVAL1_(CAIRN_EVAL1_(CAIRN_EVAL1_(__VA_ARGS__))))
#define CAIRN_EVAL1_(...) CAIRN_EVAL0_(CAIRN_EVAL0_(__VA_ARGS__))
#define CAIRN_EVAL0_(...) __VA_ARGS__

#define CAIRN_EMPTY_()
#define CAIRN_DEFER_(m) m CAIRN_EMPTY_ CAIRN_EMPTY_()()

#define CAIRN_SECOND_(a, b, ...) b
#define CAIRN_CHECK_(...) CAIRN_SECOND_(__VA_ARGS__, 0, ~)
#define CAIRN_CAT_(a, b) CAIRN_CAT2_(a, b)
#define CAIRN_CAT2_(a, b) a##b

/* The list ends with CAIRN_END_, a tuple whose probe expands to a second argument. */
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

#define CAIRN_EACH_(M, T, ...) CAIRN_EVAL_(CAIRN_EACH_STEP_(M, T, __VA_ARGS__, (end, ~), ~))
#define CAIRN_EACH_STEP_(M, T, x, ...)                                                             \
    CAIRN_CAT_(CAIRN_EACH_NEXT_, CAIRN_IS_END_(x))(M, T, x, __VA_ARGS__)
#define CAIRN_EACH_NEXT_1(M, T, x, ...)
#define CAIRN_EACH_NEXT_0(M, T, x, ...) M(T, x) CAIRN_DEFER_(CAIRN_EACH_AGAIN_)()(M, T, __VA_ARGS__)
#define CAIRN_EACH_AGAIN_() CAIRN_EACH_STEP_

#endif
