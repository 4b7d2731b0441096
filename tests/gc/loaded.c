/* SPDX-License-Identifier: MIT
 *
 * A program that loads Cairn at run time: nothing is interposed, and threads that were there before
 * make themselves known; dlclose does not take it away. Usage: loaded libcairn.so
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *(*alloc_in)(void *heap, size_t bytes);
static int (*thread_register)(void);
static void (*collect_in)(void *heap, int kind);
static char *volatile offered;
static sem_t go, arrived, passed;

static void die(const char *what) {
    fprintf(stderr, "loaded: %s\n", what);
    exit(1);
}

static void *find(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) die(name);
    return found;
}

/* Made before Cairn is there; holds the only pointer to an object on its stack. */
static void *hold(void *argument) {
    sem_wait(&go);
    if (thread_register() != 0) die("cannot register");
    char *volatile mine = offered;
    offered = NULL;
    sem_post(&arrived);
    while (sem_wait(&passed) != 0) {}
    if (strcmp(mine, "kept") != 0) die("the object was lost");
    return argument;
}

__attribute__((noinline)) static void offer(void) {
    offered = alloc_in(NULL, 100);
    strcpy(offered, "kept");
}

int main(int argc, char **argv) {
    if (argc != 2) die("name the library");
    sem_init(&go, 0, 0);
    sem_init(&arrived, 0, 0);
    sem_init(&passed, 0, 0);
    pthread_t thread;
    if (pthread_create(&thread, NULL, hold, NULL) != 0) die("no thread");
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library) die(dlerror());
    *(void **)&alloc_in = find(library, "cairn_alloc_");
    *(void **)&thread_register = find(library, "cairn_thread_register");
    *(void **)&collect_in = find(library, "cairn_collect_in");
    offer();
    sem_post(&go);
    while (sem_wait(&arrived) != 0) {}
    for (int i = 0; i < 5; i++) {
        collect_in(NULL, 1);
        for (int k = 0; k < 1000; k++) memset(alloc_in(NULL, 100), 'x', 100);
    }
    sem_post(&passed);
    pthread_join(thread, NULL);
    /* Its handlers and threads stay, so it does. */
    dlclose(library);
    collect_in(NULL, 1);
    raise(SIGURG);
    return 0;
}
