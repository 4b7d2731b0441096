/* SPDX-License-Identifier: MIT
 *
 * The same between threads: one deletes what another holds. A barrier of two, or a join, says who
 * comes first, so every run is the same.
 */
#include "dead.h"

static pthread_barrier_t turn;
static Node *shared;
static NodeRef field;
static bool must_fix;

static void next_turn(void) {
    pthread_barrier_wait(&turn);
}

static pthread_t start(bool is_fixed, void *(*run)(void *), void *argument) {
    pthread_t thread;
    must_fix = is_fixed;
    if (pthread_barrier_init(&turn, NULL, 2) != 0) abort();
    if (pthread_create(&thread, NULL, run, argument) != 0) abort();
    return thread;
}

static void *finish(pthread_t thread) {
    void *result;
    if (pthread_join(thread, &result) != 0) abort();
    return result;
}

/* ---- Deleted while another thread holds it ---- */

static void *read_next_turn(void *argument) {
    Node *node = opaque(argument);
    next_turn();
    READ(node->value);
    return NULL;
}

CASE(read_in_a_thread_of_what_its_creator_deleted) {
    Node *node = cairn_make(Node, .value = 1);
    pthread_t thread = start(is_fixed, read_next_turn, node);
    BAD(cairn_delete(node));
    next_turn();
    finish(thread);
    FIXED(cairn_delete(node));
}

static void *write_next_turn(void *argument) {
    Node *node = opaque(argument);
    next_turn();
    WRITE(node->value, 2);
    return NULL;
}

CASE(write_in_a_thread_to_what_its_creator_deleted) {
    Node *node = cairn_make(Node, .value = 1);
    pthread_t thread = start(is_fixed, write_next_turn, node);
    BAD(cairn_delete(node));
    cairn_collect(CAIRN_TRACE);
    next_turn();
    finish(thread);
    FIXED(cairn_delete(node));
}

static void *read_shared_next_turn(void *argument) {
    next_turn();
    READ(shared->value);
    return argument;
}

CASE(read_in_a_thread_of_a_deleted_global) {
    shared = cairn_make(Node, .value = 1);
    pthread_t thread = start(is_fixed, read_shared_next_turn, NULL);
    BAD(cairn_delete(shared));
    next_turn();
    finish(thread);
    FIXED(cairn_delete(shared));
}

static void *read_field_next_turn(void *argument) {
    next_turn();
    READ(cairn_load(&field)->value);
    return argument;
}

CASE(read_in_a_thread_through_a_field) {
    Node *node = cairn_make(Node, .value = 1);
    cairn_set(&field, node);
    pthread_t thread = start(is_fixed, read_field_next_turn, NULL);
    BAD(cairn_delete(node));
    next_turn();
    finish(thread);
    FIXED(cairn_delete(node));
    cairn_set(&field, NULL);
}

static void *store_next_turn(void *argument) {
    Node *node = opaque(argument), *fresh = cairn_new(Node);
    next_turn();
    cairn_set(&node->next, fresh);
    return NULL;
}

CASE(store_in_a_thread_into_what_its_creator_deleted) {
    Node *node = cairn_new(Node);
    pthread_t thread = start(is_fixed, store_next_turn, node);
    BAD(cairn_delete(node));
    next_turn();
    finish(thread);
    FIXED(cairn_delete(node));
}

static void *copy_next_turn(void *argument) {
    long taken[4];
    next_turn();
    memcpy(taken, argument, sizeof(taken));
    READ(taken[(size_t)corpus_sink % 4]);
    return NULL;
}

CASE(memcpy_in_a_thread_from_what_its_creator_deleted) {
    Block *block = cairn_new(Block);
    pthread_t thread = start(is_fixed, copy_next_turn, block);
    BAD(cairn_delete(block));
    next_turn();
    finish(thread);
    FIXED(cairn_delete(block));
}

/* ---- Deleted by the thread that it was handed to ---- */

static void *delete_argument(void *argument) {
    Node *node = argument;
    cairn_delete(node);
    return NULL;
}

CASE(read_of_what_was_handed_to_a_thread) {
    Node *node = cairn_make(Node, .value = 1);
    FIXED(READ(node->value));
    finish(start(is_fixed, delete_argument, opaque(node)));
    BAD(READ(node->value));
}

static void *delete_shared(void *argument) {
    cairn_delete(shared);
    return argument;
}

CASE(read_of_a_global_that_a_thread_deleted) {
    shared = cairn_make(Node, .value = 1);
    FIXED(READ(shared->value));
    finish(start(is_fixed, delete_shared, NULL));
    BAD(READ(shared->value));
}

static void *return_deleted(void *argument) {
    Node *node = cairn_make(Node, .value = 1), *result = opaque(node);
    if (!must_fix) cairn_delete(node);
    (void)argument;
    return result;
}

CASE(read_of_a_result_that_its_thread_deleted) {
    Node *result = finish(start(is_fixed, return_deleted, NULL));
    READ(result->value);
}

/* The queue's other end: what was taken out is deleted, and the producer goes on with it. */
static void *consume(void *argument) {
    next_turn();
    Node *node = cairn_load(&field);
    cairn_delete(node);
    next_turn();
    return argument;
}

CASE(write_to_what_a_consumer_deleted) {
    pthread_t thread = start(is_fixed, consume, NULL);
    Node *node = cairn_make(Node, .value = 1), *mine = opaque(node);
    cairn_set(&field, node);
    next_turn();
    next_turn();
    FIXED(mine = cairn_new(Node));
    WRITE(mine->value, 2);
    finish(thread);
    cairn_set(&field, NULL);
}

static pthread_key_t key;
static void *read_own_value(void *argument) {
    pthread_setspecific(key, argument);
    next_turn();
    next_turn();
    Node *node = pthread_getspecific(key);
    READ(node->value);
    pthread_setspecific(key, NULL);
    return NULL;
}

CASE(read_of_a_deleted_specific_value) {
    if (pthread_key_create(&key, NULL) != 0) abort();
    Node *node = cairn_make(Node, .value = 1);
    pthread_t thread = start(is_fixed, read_own_value, node);
    next_turn();
    BAD(cairn_delete(node));
    next_turn();
    finish(thread);
    FIXED(cairn_delete(node));
}

/* ---- Deleted by two ---- */

static void *delete_next_turn(void *argument) {
    Node *node = argument;
    next_turn();
    if (must_fix) node = NULL;
    cairn_delete(node);
    return NULL;
}

CASE(delete_by_two_threads) {
    Node *node = cairn_new(Node);
    pthread_t thread = start(is_fixed, delete_next_turn, node);
    cairn_delete(node);
    next_turn();
    finish(thread);
}

static void *delete_field_next_turn(void *argument) {
    next_turn();
    cairn_delete_ref(&field);
    return argument;
}

CASE(delete_of_one_field_by_two_threads) {
    cairn_set(&field, cairn_new(Node));
    pthread_t thread = start(is_fixed, delete_field_next_turn, NULL);
    cairn_delete_ref(&field);
    FIXED(cairn_set(&field, NULL));
    next_turn();
    finish(thread);
}

CASE(delete_of_what_a_joined_thread_deleted) {
    Node *node = cairn_new(Node);
    finish(start(is_fixed, delete_argument, opaque(node)));
    FIXED(node = NULL);
    cairn_delete(node);
}

/* ---- Other wrongs of another thread's objects ---- */

static Block *row[256];
static void *write_past(void *argument) {
    long *words = ((Block *)argument)->values;
    WRITE(words[must_fix ? 3 : 4], 1);
    return NULL;
}

CASE(write_in_a_thread_past_an_object) {
    for (size_t i = 0; i < 256; i++) row[i] = cairn_new(Block);
    finish(start(is_fixed, write_past, opaque(row[100])));
}

/* The stack of a thread that is over is no place to keep an object. */
static volatile uintptr_t hidden_stack_place;
static void *leave_on_stack(void *argument) {
    hidden_stack_place = hidden_node();
    if (must_fix) shared = SHOW(Node, hidden_stack_place);
    return argument;
}

CASE(object_that_only_an_ended_thread_held) {
    shared = cairn_new(Node);
    finish(start(is_fixed, leave_on_stack, NULL));
    reclaim();
    READ(SHOW(Node, hidden_stack_place)->value);
}

const struct corpus_case corpus_threads[] = {
    {"read_in_a_thread_of_what_its_creator_deleted", read_in_a_thread_of_what_its_creator_deleted,
     "--RR", "use after delete"},
    {"write_in_a_thread_to_what_its_creator_deleted", write_in_a_thread_to_what_its_creator_deleted,
     "--RR", "use after delete"},
    {"read_in_a_thread_of_a_deleted_global", read_in_a_thread_of_a_deleted_global, "RRRR",
     "use after delete"},
    {"read_in_a_thread_through_a_field", read_in_a_thread_through_a_field, "-RRR",
     "use after delete"},
    {"store_in_a_thread_into_what_its_creator_deleted",
     store_in_a_thread_into_what_its_creator_deleted, "-RRR", "use after delete"},
    {"memcpy_in_a_thread_from_what_its_creator_deleted",
     memcpy_in_a_thread_from_what_its_creator_deleted, "-RRR", "use after delete"},
    {"read_of_what_was_handed_to_a_thread", read_of_what_was_handed_to_a_thread, "--RR",
     "use after delete"},
    {"read_of_a_global_that_a_thread_deleted", read_of_a_global_that_a_thread_deleted, "RRRR",
     "use after delete"},
    {"read_of_a_result_that_its_thread_deleted", read_of_a_result_that_its_thread_deleted, "--RR",
     "use after delete"},
    {"write_to_what_a_consumer_deleted", write_to_what_a_consumer_deleted, "--RR",
     "use after delete"},
    {"read_of_a_deleted_specific_value", read_of_a_deleted_specific_value, "--RR",
     "use after delete"},
    {"delete_by_two_threads", delete_by_two_threads, "RRRR", "double delete"},
    {"delete_of_one_field_by_two_threads", delete_of_one_field_by_two_threads, "RRRR",
     "double delete"},
    {"delete_of_what_a_joined_thread_deleted", delete_of_what_a_joined_thread_deleted, "RRRR",
     "double delete"},
    {"write_in_a_thread_past_an_object", write_in_a_thread_past_an_object, "--RR", "out of bounds"},
    {"object_that_only_an_ended_thread_held", object_that_only_an_ended_thread_held, "--RR",
     "use after death"},
    {NULL, NULL, NULL, NULL},
};
