/* SPDX-License-Identifier: MIT
 *
 * Every place on stacks and in registers where a pointer may hide is seen. Method: hiding.h. For
 * registers a thread computes without a call, with the object's address in one register alone,
 * until it is told to go on: only the signal can stop it.
 */
#include "hiding.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static char on_failure; /* what a thread returns then */

/* ---- Registers and the red zone ---------------------------------------------------------------
 */

#if defined(__x86_64__) && !IS_SANITIZED
/* Each loads the address from *hidden (inverted), posts `ready`, spins, and returns what the place
 * held. No other register and no memory has the address meanwhile. */
#define SPIN_WITH(load, unload, ...)                                                               \
    uintptr_t result;                                                                              \
    __asm__ volatile("mov (%[hidden]), %%rax\n\t"                                                  \
                     "not %%rax\n\t" load "\n\t"                                                   \
                     "xor %%eax, %%eax\n\t"                                                        \
                     "movl $1, (%[ready])\n"                                                       \
                     "1: pause\n\t"                                                                \
                     "cmpl $0, (%[over])\n\t"                                                      \
                     "je 1b\n\t" unload                                                            \
                     : "=&a"(result)                                                               \
                     : [hidden] "r"(&hidden_address), [ready] "r"(&is_ready), [over] "r"(&is_over) \
                     : "memory", __VA_ARGS__);                                                     \
    return result;

static uintptr_t hidden_address;
static uint32_t is_ready, is_over;

__attribute__((noinline)) static uintptr_t spin_with_r13(void) {
    SPIN_WITH("mov %%rax, %%r13", "mov %%r13, %%rax", "r13")
}
__attribute__((noinline)) static uintptr_t spin_with_r11(void) {
    SPIN_WITH("mov %%rax, %%r11", "mov %%r11, %%rax", "r11")
}
__attribute__((noinline)) static uintptr_t spin_with_xmm(void) {
    SPIN_WITH("movq %%rax, %%xmm9", "movq %%xmm9, %%rax", "xmm9")
}
__attribute__((noinline)) static uintptr_t spin_with_high_xmm(void) {
    SPIN_WITH("movq %%rax, %%xmm9\n\tpslldq $8, %%xmm9", "psrldq $8, %%xmm9\n\tmovq %%xmm9, %%rax",
              "xmm9")
}
/* Also the upper half of a wide register. */
__attribute__((noinline, target("avx"))) static uintptr_t spin_with_ymm(void) {
    SPIN_WITH("vmovq %%rax, %%xmm9\n\tvinsertf128 $1, %%xmm9, %%ymm9, %%ymm9\n\t"
              "vpxor %%xmm8, %%xmm8, %%xmm8\n\tvinsertf128 $0, %%xmm8, %%ymm9, %%ymm9",
              "vextractf128 $1, %%ymm9, %%xmm9\n\tvmovq %%xmm9, %%rax", "xmm8", "xmm9")
}
/* The lowest word below the stack pointer that code without calls may use. */
__attribute__((noinline)) static uintptr_t spin_with_red_zone(void) {
    SPIN_WITH("mov %%rax, -128(%%rsp)", "mov -128(%%rsp), %%rax", "cc")
}

static void hide_inverted(void) {
    hidden_address = HIDE(make_watched());
}

static void *spin_on_thread(void *spin) {
    call_and_clean(hide_inverted);
    uintptr_t address = (*(uintptr_t(**)(void))spin)();
    return ((Node *)address)->value == MAGIC ? NULL : spin;
}

static void register_is_seen(uintptr_t (*spin)(void)) {
    __atomic_store_n(&is_ready, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&is_over, 0, __ATOMIC_RELEASE);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, spin_on_thread, &spin), 0);
    while (!__atomic_load_n(&is_ready, __ATOMIC_ACQUIRE)) sched_yield();
    bool is_seen = survives_collections();
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    void *result = NULL;
    if (is_seen) pthread_join(thread, &result);
    assert_true(is_seen);
    assert_null(result);
    assert_true(goes_in_time());
}

static void registers_of_interrupted_thread_are_seen(void **state) {
    (void)state;
    register_is_seen(spin_with_r13);
    register_is_seen(spin_with_r11);
    register_is_seen(spin_with_xmm);
    register_is_seen(spin_with_high_xmm);
    if (__builtin_cpu_supports("avx")) register_is_seen(spin_with_ymm);
}
static void red_zone_of_interrupted_thread_is_seen(void **state) {
    (void)state;
    register_is_seen(spin_with_red_zone);
}

/* On a thread with an alternate signal stack the stop's handler runs there: both are scanned. */
static void *spin_with_alternate_stack(void *spin) {
    size_t bytes = 64 << 10;
    stack_t stack = {
        .ss_sp = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        .ss_size = bytes};
    if (sigaltstack(&stack, NULL) != 0) abort();
    void *result = spin_on_thread(spin);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    munmap(stack.ss_sp, bytes);
    return result;
}
static void interrupted_thread_with_alternate_stack_is_seen(void **state) {
    (void)state;
    uintptr_t (*const spins[])(void) = {spin_with_r13, spin_with_ymm, spin_with_red_zone};
    for (int i = 0; i < 3; i++) {
        if (i == 1 && !__builtin_cpu_supports("avx")) continue;
        __atomic_store_n(&is_ready, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&is_over, 0, __ATOMIC_RELEASE);
        pthread_t thread;
        void *result = NULL;
        uintptr_t (*spin)(void) = spins[i];
        assert_int_equal(pthread_create(&thread, NULL, spin_with_alternate_stack, &spin), 0);
        while (!__atomic_load_n(&is_ready, __ATOMIC_ACQUIRE)) sched_yield();
        bool is_seen = survives_collections();
        __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
        if (is_seen) pthread_join(thread, &result);
        assert_true(is_seen);
        assert_null(result);
    }
}

/* The caller's registers when a wait begins: cairn_blocking_begin's own frame is gone by then. */
__attribute__((noinline)) static uintptr_t wait_with_registers(void) {
    uintptr_t result;
    __asm__ volatile("mov %[hidden], %%rax\n\t"
                     "sub $128, %%rsp\n\t"
                     "push %%rbp\n\t"
                     "push %%rbx\n\t"
                     "not %%rax\n\t"
                     "mov %%rax, %%rbx\n\t"
                     "xor %%eax, %%eax\n\t"
                     "mov %%rsp, %%rbp\n\t"
                     "and $-16, %%rsp\n\t"
                     "call cairn_blocking_begin\n\t"
                     "movl $1, is_ready_for_wait(%%rip)\n"
                     "1: pause\n\t"
                     "cmpl $0, is_over_for_wait(%%rip)\n\t"
                     "je 1b\n\t"
                     "call cairn_blocking_end\n\t"
                     "mov %%rbx, %%rax\n\t"
                     "mov %%rbp, %%rsp\n\t"
                     "pop %%rbx\n\t"
                     "pop %%rbp\n\t"
                     "add $128, %%rsp"
                     : "=&a"(result)
                     : [hidden] "m"(hidden_address)
                     : "memory", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0",
                       "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");
    return result;
}
uint32_t is_ready_for_wait __attribute__((used, visibility("hidden")));
uint32_t is_over_for_wait __attribute__((used, visibility("hidden")));

static void *wait_on_thread(void *argument) {
    call_and_clean(hide_inverted);
    return ((Node *)wait_with_registers())->value == MAGIC ? NULL : argument;
}
static void registers_of_waiting_thread_are_seen(void **state) {
    (void)state;
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(pthread_create(&thread, NULL, wait_on_thread, &on_failure), 0);
    while (!__atomic_load_n(&is_ready_for_wait, __ATOMIC_ACQUIRE)) sched_yield();
    bool is_seen = survives_collections();
    __atomic_store_n(&is_over_for_wait, 1, __ATOMIC_RELEASE);
    if (is_seen) pthread_join(thread, &result);
    assert_true(is_seen);
    assert_null(result);
}
#endif

/* ---- Other stacks -----------------------------------------------------------------------------
 */

/* A handler on an alternate stack that collects itself: its frames and the interrupted ones. */
static bool both_were_seen;

static void collect_in_handler(int signal) {
    (void)signal;
    Node *volatile mine = cairn_make(Node, .value = 7);
    for (int i = 0; i < 3; i++) {
        cairn_collect(CAIRN_TRACE);
        for (int k = 0; k < 100; k++) (void)cairn_make(Node, .value = 1);
    }
    both_were_seen = mine->value == 7 && is_watched_alive();
}

__attribute__((noinline)) static void raise_with_object(void) {
    Node *volatile own = make_watched();
    raise(SIGUSR1);
    if (own->value != MAGIC) abort();
}

static void *handle_on_alternate_stack(void *argument) {
    (void)argument;
    (void)cairn_new(Node);
    size_t bytes = 256 << 10;
    stack_t stack = {.ss_sp = malloc(bytes), .ss_size = bytes};
    struct sigaction action = {.sa_handler = collect_in_handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    if (sigaltstack(&stack, NULL) != 0) abort();
    raise_with_object();
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
    return NULL;
}

static void handler_on_alternate_stack_collects(void **state) {
    (void)state;
    both_were_seen = false;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, handle_on_alternate_stack, NULL), 0);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
    assert_true(both_were_seen);
}

/* The same with a handler that stands while another thread collects. */
static Node *volatile *handler_slot;
static void fill_handler_slot(void) {
    *handler_slot = make_watched();
}
static void stand_in_handler(int signal) {
    (void)signal;
    Node *volatile mine = NULL;
    handler_slot = &mine;
    call_and_clean(fill_handler_slot);
    stand_at_gate();
    if (mine->value != MAGIC) abort();
}

static void *stand_on_alternate_stack(void *argument) {
    (void)argument;
    (void)cairn_new(Node);
    size_t bytes = 256 << 10;
    stack_t stack = {.ss_sp = malloc(bytes), .ss_size = bytes};
    struct sigaction action = {.sa_handler = stand_in_handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    if (sigaltstack(&stack, NULL) != 0) abort();
    raise(SIGUSR1);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    free(stack.ss_sp);
    return NULL;
}

static void waiting_handler_on_alternate_stack_is_seen(void **state) {
    (void)state;
    gate_init();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stand_on_alternate_stack, NULL), 0);
    wait_at(&arrived);
    assert_true(survives_collections());
    sem_post(&passed);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
}

/* A coroutine that holds the object while it is switched away from, and collects while it runs with
 * another on the thread's own stack. */
static ucontext_t own_context, coroutine_context;
static char *coroutine_stack;
enum { COROUTINE_BYTES = 256 << 10 };

static Node *volatile *slot;
static void fill_slot(void) {
    *slot = make_watched();
}
static void run_coroutine(void) {
    Node *volatile mine = NULL;
    slot = &mine;
    call_and_clean(fill_slot); /* in no register, which swapcontext would save elsewhere */
    swapcontext(&coroutine_context, &own_context);
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    if (mine->value != MAGIC) abort();
    mine = NULL;
    swapcontext(&coroutine_context, &own_context);
}

static void coroutine_stack_added_is_seen(void **state) {
    (void)state;
#if IS_SANITIZED
    skip(); /* they would have to be told of each switch */
#endif
    coroutine_stack =
        mmap(NULL, COROUTINE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(cairn_stack_add(coroutine_stack, coroutine_stack + COROUTINE_BYTES), CAIRN_OK);
    getcontext(&coroutine_context);
    coroutine_context.uc_stack.ss_sp = coroutine_stack;
    coroutine_context.uc_stack.ss_size = COROUTINE_BYTES;
    coroutine_context.uc_link = &own_context;
    makecontext(&coroutine_context, run_coroutine, 0);
    Node *volatile own = cairn_make(Node, .value = 5);
    swapcontext(&own_context, &coroutine_context);
    assert_true(survives_collections());
    swapcontext(&own_context, &coroutine_context); /* collects there */
    assert_int_equal(own->value, 5);
    cairn_stack_remove(coroutine_stack);
    memset(&coroutine_context, 0, sizeof(coroutine_context)); /* has saved registers */
    assert_true(goes_in_time());
    munmap(coroutine_stack, COROUTINE_BYTES);
}

/* A thread that never allocates and reads the only pointer from a global. */
static Node *volatile offered;
static void *take_from_global(void *argument) {
    (void)argument;
    assert_int_equal(cairn_thread_register(), CAIRN_OK);
    Node *volatile mine = offered;
    offered = NULL;
    stand_at_gate();
    return mine->value == MAGIC ? NULL : argument;
}
static void offer(void) {
    offered = make_watched();
}
static void stack_of_thread_that_never_allocates_is_seen(void **state) {
    (void)state;
    gate_init();
    call_and_clean(offer);
    pthread_t thread;
    void *result = NULL;
    assert_int_equal(pthread_create(&thread, NULL, take_from_global, &on_failure), 0);
    wait_at(&arrived);
    assert_true(survives_collections());
    sem_post(&passed);
    cairn_blocking_begin();
    pthread_join(thread, &result);
    cairn_blocking_end();
    assert_null(result);
    assert_true(goes_in_time());
}

/* Under AddressSanitizer with fake stacks this array is not on the stack. */
__attribute__((noinline)) static void use_array(Node *volatile *array, void (*meanwhile)(void)) {
    array[3] = make_watched();
    clean_stack();
    meanwhile();
    if (array[3]->value != MAGIC) abort();
}
static void collect_here(void) {
    for (int i = 0; i < 3; i++) cairn_collect(CAIRN_TRACE);
    if (!is_watched_alive()) abort();
}
__attribute__((noinline)) static void hold_in_array(void (*meanwhile)(void)) {
    Node *volatile array[8] = {NULL};
    use_array(array, meanwhile);
}
static void *hold_array_at_gate(void *argument) {
    (void)argument;
    (void)cairn_new(Node);
    hold_in_array(stand_at_gate);
    return NULL;
}
static void local_array_is_seen(void **state) {
    (void)state;
    hold_in_array(collect_here);
    gate_init();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, hold_array_at_gate, NULL), 0);
    wait_at(&arrived);
    assert_true(survives_collections());
    sem_post(&passed);
    cairn_blocking_begin();
    pthread_join(thread, NULL);
    cairn_blocking_end();
}

/* ---- What is no hiding place ------------------------------------------------------------------
 */

#if !IS_SANITIZED
enum { LITTER = 64, LITTER_WORDS = 8 * LITTER, FEW = LITTER / 16 };
static uintptr_t littered[LITTER];
static cairn_weak weak_litter[LITTER];

__attribute__((noinline)) static void make_litter(void) {
    for (size_t i = 0; i < LITTER; i++) {
        Node *node = cairn_new(Node);
        assert_true(cairn_weak_set(&weak_litter[i], node));
        littered[i] = HIDE(node);
    }
}

/* Where the frames of a collection will lie, with holes that they do not write. */
__attribute__((noinline)) static void litter(void) {
    void *below[LITTER_WORDS];
    for (size_t i = 0; i < LITTER_WORDS; i++) below[i] = SHOW(void, littered[i % LITTER]);
    __asm__ volatile("" : : "r"(below) : "memory");
}

static void collect_over_litter(void) {
    make_litter();
    litter();
    clean_registers();
    cairn_collect(CAIRN_COUNT);
    litter();
    clean_registers();
    cairn_collect(CAIRN_TRACE);
}

/* Frames of the collector itself are no roots, but for the one that the program called: that one
 * holds the caller's registers, and perhaps a word that it does not use. */
static void frames_below_the_one_that_collects_are_not_seen(void **state) {
    (void)state;
    run_apart(collect_over_litter);
    size_t alive = 0;
    for (size_t i = 0; i < LITTER; i++) alive += cairn_weak_get(&weak_litter[i]) != NULL;
    assert_in_range(alive, 0, FEW);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#if !IS_SANITIZED
        cmocka_unit_test(frames_below_the_one_that_collects_are_not_seen),
#endif
#if defined(__x86_64__) && !IS_SANITIZED
        cmocka_unit_test(registers_of_interrupted_thread_are_seen),
        cmocka_unit_test(red_zone_of_interrupted_thread_is_seen),
        cmocka_unit_test(interrupted_thread_with_alternate_stack_is_seen),
        cmocka_unit_test(registers_of_waiting_thread_are_seen),
#endif
        cmocka_unit_test(handler_on_alternate_stack_collects),
        cmocka_unit_test(waiting_handler_on_alternate_stack_is_seen),
        cmocka_unit_test(coroutine_stack_added_is_seen),
        cmocka_unit_test(stack_of_thread_that_never_allocates_is_seen),
        cmocka_unit_test(local_array_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
