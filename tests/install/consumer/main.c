/* SPDX-License-Identifier: MIT
 *
 * A program outside the tree: allocates, links, drops, collects, from two threads.
 */
#include <cairn/cairn.h>

#include <pthread.h>
#include <stdio.h>
#include <time.h>

typedef struct Node Node;
typedef cairn_ref(Node) NodeRef;
struct Node {
    NodeRef next;
    long value;
};
CAIRN_TYPE(Node, next);

static void *work(void *argument) {
    Node *list = argument;
    const struct timespec instant = {0, 1000};
    for (long i = 1; i <= 20000; i++) list = cairn_make(Node, .next = {list}, .value = i);
    nanosleep(&instant, NULL);
    cairn_collect(CAIRN_TRACE);
    long count = 0;
    for (Node *at = list; at; at = at->next.p) count++;
    return (void *)count;
}

int main(void) {
    pthread_t thread;
    void *count = NULL;
    Node *first = cairn_new(Node);
    if (!first || pthread_create(&thread, NULL, work, first) != 0) return 1;
    pthread_join(thread, &count);
    cairn_collect(CAIRN_COUNT);
    cairn_stats stats = CAIRN_STATS_INIT;
    if (cairn_stats_get(NULL, &stats) != CAIRN_OK || stats.traces == 0) return 1;
    printf("consumer: %ld objects\n", (long)count);
    return count == (void *)20001 ? 0 : 1;
}
