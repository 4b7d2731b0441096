/* SPDX-License-Identifier: MIT
 *
 * Many types: what a type costs that has a single object, and what a thread costs that uses many
 * types.
 *
 * Usage: types [types, default 10,000] [threads, default 1]. Every thread makes one object of every
 * type and all threads hold theirs at the same time. The figure is peak RSS.
 */
#include "layer.h"

#include <pthread.h>

#define TYPES_MAX 100000u
#define THREADS_MAX 1024u

typedef cairn_ref(void) AnyRef;

static cairn_type *types[TYPES_MAX];
static size_t type_count;
static pthread_barrier_t all_hold;

/* Sizes from 16 to 128 bytes, the first word a reference. */
static void types_create(void) {
    const struct cairn_field field = {0, sizeof(void *), NULL, CAIRN_FIELD_REF};
    for (size_t i = 0; i < type_count; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "Type%zu", i);
        size_t size = 16 * (1 + i % 8);
        if (cairn_type_create(name, size, 8, &field, 1, NULL, &types[i]) != CAIRN_OK) {
            bench_die("no type");
        }
    }
}

static void *make_one_of_each(void *argument) {
    AnyRef *held = bench_new_array(AnyRef, type_count);
    for (size_t i = 0; i < type_count; i++) {
        void *object = cairn_new_type(types[i]);
        if (object == NULL) bench_die("out of memory");
        ((uint64_t *)object)[1] = i;
        cairn_set(&held[i], object);
    }
    (void)pthread_barrier_wait(&all_hold);
    for (size_t i = 0; i < type_count; i++) {
        if (((const uint64_t *)held[i].p)[1] != i) bench_die("an object was lost");
    }
    return argument;
}

int main(int argc, char **argv) {
    type_count = bench_argument(argc, argv, 1, 10000);
    size_t thread_count = bench_argument(argc, argv, 2, 1);
    if (type_count > TYPES_MAX || thread_count > THREADS_MAX) bench_die("too many");
    types_create();

    static pthread_t threads[THREADS_MAX];
    (void)pthread_barrier_init(&all_hold, NULL, (unsigned)thread_count);
    for (size_t i = 1; i < thread_count; i++) {
        if (pthread_create(&threads[i], NULL, make_one_of_each, NULL) != 0) bench_die("no thread");
    }
    (void)make_one_of_each(NULL);
    for (size_t i = 1; i < thread_count; i++) (void)pthread_join(threads[i], NULL);
    bench_print_pauses();
    return 0;
}
