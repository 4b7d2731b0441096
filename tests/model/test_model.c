/* SPDX-License-Identifier: MIT
 *
 * Random programs against a naive twin. Each thread owns a table of references and a twin of plain
 * structs that mirror every object; operations allocate, link, unlink, drop and delete links; at
 * checkpoints the reachable graph is walked in step with the twin's. Counts are recomputed by
 * CAIRN_VERIFY=1 in audit builds after every collection. CAIRN_TEST_SEED=N repeats a run; the seed
 * is printed.
 */
#include "../test.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { TABLE = 256, STEPS = 60000, THREADS = 3 };

typedef struct Twin Twin;
struct Twin {
    Twin *next, *other;
    long value;
    Twin *all; /* every twin ever made, to free at the end */
    long visit;
};

struct run {
    uint64_t random;
    NodeRef *table;
    Twin *twins[TABLE];
    Twin *all;
    long serial, visit;
};

static uint64_t draw(struct run *run, uint64_t below) {
    run->random ^= run->random << 13;
    run->random ^= run->random >> 7;
    run->random ^= run->random << 17;
    return run->random % below;
}

static Twin *new_twin(struct run *run, long value) {
    Twin *twin = calloc(1, sizeof(*twin));
    twin->value = value;
    twin->all = run->all;
    run->all = twin;
    return twin;
}

static void step(struct run *run) {
    size_t a = draw(run, TABLE), b = draw(run, TABLE);
    Node *from = run->table[a].p, *to = run->table[b].p;
    switch (draw(run, 8)) {
    case 0:
    case 1: {
        long value = ++run->serial;
        cairn_set(&run->table[a], cairn_make(Node, .next = {from}, .value = value));
        Twin *twin = new_twin(run, value);
        twin->next = run->twins[a];
        run->twins[a] = twin;
        break;
    }
    case 2:
        if (!from) break;
        cairn_set(&from->next, to);
        run->twins[a]->next = run->twins[b];
        break;
    case 3:
        if (!from) break;
        cairn_set(&from->other, to);
        run->twins[a]->other = run->twins[b];
        break;
    case 4:
        cairn_set(&run->table[a], NULL);
        run->twins[a] = NULL;
        break;
    case 5:
        cairn_set(&run->table[a], to);
        run->twins[a] = run->twins[b];
        break;
    case 6:
        if (!from) break;
        cairn_swap(&run->table[b], from->next.p);
        run->twins[b] = run->twins[a]->next;
        break;
    default:
        if (!from) break;
        cairn_set(&from->next, NULL);
        run->twins[a]->next = NULL;
        break;
    }
}

/* Walks both graphs in step with an explicit stack; values identify objects. */
static void compare(struct run *run) {
    size_t capacity = 1 << 20, count = 0;
    struct pair {
        const Node *node;
        Twin *twin;
    } *stack = malloc(capacity * sizeof(*stack));
    run->visit++;
    for (size_t i = 0; i < TABLE; i++) {
        stack[count++] = (struct pair){run->table[i].p, run->twins[i]};
        while (count > 0) {
            struct pair pair = stack[--count];
            if (!pair.node != !pair.twin) abort();
            if (!pair.node) continue;
            if (pair.node->value != pair.twin->value) abort();
            if (pair.twin->visit == run->visit) continue;
            pair.twin->visit = run->visit;
            stack[count++] = (struct pair){pair.node->next.p, pair.twin->next};
            stack[count++] = (struct pair){pair.node->other.p, pair.twin->other};
        }
    }
    free(stack);
}

static void *drive(void *argument) {
    struct run *run = argument;
    run->table = cairn_new_array(NodeRef, TABLE);
    for (int i = 0; i < STEPS; i++) {
        step(run);
        if (i % 5000 == 0) cairn_collect(draw(run, 2) ? CAIRN_COUNT : CAIRN_TRACE);
        if (i % 10000 == 0) compare(run);
    }
    compare(run);
    cairn_clear(run->table);
    run->table = NULL;
    while (run->all) {
        Twin *next = run->all->all;
        free(run->all);
        run->all = next;
    }
    return NULL;
}

static void random_programs_match_the_twin(void **state) {
    (void)state;
    const char *text = getenv("CAIRN_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL) * 2654435761u;
    printf("seed %llu\n", (unsigned long long)seed);
    pthread_t threads[THREADS];
    static struct run runs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        runs[i] = (struct run){.random = (seed + 1) * (uint64_t)(i + 1) | 1};
        assert_int_equal(pthread_create(&threads[i], NULL, drive, &runs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        cairn_blocking_begin();
        pthread_join(threads[i], NULL);
        cairn_blocking_end();
    }
    memset(runs, 0, sizeof(runs));
    assert_true(live_after(CAIRN_TRACE) < 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_programs_match_the_twin)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
