/* SPDX-License-Identifier: MIT
 *
 * Nothing in this program is wrong, and no checker may say that there is: slots are used again and
 * again, large objects and heaps come and go and their addresses serve malloc afterwards, a child
 * is forked and a thread runs at the end. What heaps refer to in memory from malloc is no leak.
 *
 * quiet       is right
 * quiet leak  loses 99 bytes from malloc
 * quiet past  writes a byte past an object that lies where another one was
 */
#include <cairn/cairn.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 2000, LARGE = 30000, HUGE_BYTES = 3000000 };

typedef struct Holder Holder;
typedef cairn_ref(Holder) HolderRef;
struct Holder {
    HolderRef next;
    char *text;
    char tail[5];
};
CAIRN_TYPE(Holder, next);

static Holder *volatile kept;
static void **volatile words, **volatile many_words;
static pthread_barrier_t barrier;

static Holder *use_small(Holder *list, int i) {
    Holder *holder = cairn_make(Holder, .next = {list}, .tail = {1});
    char *text = cairn_format("%d and so on", i);
    Holder *several = cairn_new_array(Holder, (size_t)(i % 50 + 1));
    several[i % 50].text = text;
    several[i % 50].tail[4] = text[strlen(text)];
    if (i % 7 == 0) cairn_delete(text);
    if (i % 11 == 0) cairn_delete(several);
    return i % 10 ? holder : NULL;
}

static void use_large(int i) {
    char *bytes = cairn_alloc_bytes(LARGE + (size_t)i), *huge = cairn_alloc(HUGE_BYTES);
    bytes[LARGE + i - 1] = 1;
    huge[HUGE_BYTES - 1] = 1;
    if (i % 400 == 0) cairn_delete(bytes);
}

__attribute__((noinline)) static void work(void) {
    Holder *list = NULL;
    for (int i = 0; i < ROUNDS; i++) {
        list = use_small(list, i);
        if (i % 200 == 0) use_large(i);
    }
    cairn_collect(CAIRN_TRACE);
}

/* Stays in its function until the process ends, with the only pointer on its stack. */
static void *run(void *unused) {
    char *volatile only = malloc(77);
    Holder *holder = cairn_make(Holder, .text = malloc(78));
    only[0] = 1;
    work();
    pthread_barrier_wait(&barrier);
    for (;;) pause();
    cairn_keep(holder);
    return unused;
}

static void use_heap(void) {
    cairn_heap *heap;
    if (cairn_heap_create(NULL, &heap) != CAIRN_OK) exit(3);
    char *bytes = cairn_alloc_in(heap, HUGE_BYTES);
    bytes[HUGE_BYTES - 1] = cairn_strdup_in(heap, "text")[0];
    if (cairn_heap_destroy(heap) != CAIRN_OK) exit(4);
    char *memory = malloc((size_t)64 << 20);
    memset(memory, 1, HUGE_BYTES);
    free(memory);
}

static void use_child(void) {
    pid_t child = fork();
    if (child == 0) {
        work();
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) exit(5);
}

__attribute__((noinline)) static void lose(void) {
    char *volatile lost = malloc(99);
    lost[0] = 1;
    lost = NULL;
}

static void write_past(void) {
    Holder *volatile holder = cairn_new(Holder);
    ((volatile char *)holder)[sizeof(Holder)] = 1;
}

int main(int argc, char **argv) {
    for (int i = 0; i < 100; i++) {
        kept = cairn_make(Holder, .next = {kept}, .text = malloc(51));
    }
    words = cairn_alloc(64);
    words[3] = malloc(52);
    many_words = cairn_alloc(HUGE_BYTES);
    many_words[HUGE_BYTES / 16] = malloc(53);
    work();
    use_child();
    use_heap();
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    if (pthread_create(&thread, NULL, run, NULL) != 0) return 6;
    pthread_barrier_wait(&barrier);
    work();
    if (argc > 1 && strcmp(argv[1], "leak") == 0) lose();
    if (argc > 1 && strcmp(argv[1], "past") == 0) write_past();
    if (!words[3] || !many_words[HUGE_BYTES / 16]) return 7;
    return 0;
}
