/* SPDX-License-Identifier: MIT
 *
 * corpus            lists the cases: name, who catches it, titles of the report
 * corpus NAME bad   runs the broken program; exits with 0 if nobody reports
 * corpus NAME fixed runs its twin
 */
#include "corpus.h"

volatile long corpus_sink;

static const struct corpus_case *const families[] = {
    corpus_use_after_delete, corpus_deletes, corpus_bounds,
    corpus_references,       corpus_heaps,   corpus_threads,
};

static int run(const struct corpus_case *found, bool is_fixed) {
    found->run(is_fixed);
    /* Whatever was damaged comes out now. */
    cairn_collect(CAIRN_TRACE);
    cairn_collect(CAIRN_TRACE);
    return 0;
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++) {
        for (const struct corpus_case *at = families[i]; at->name; at++) {
            if (argc < 3)
                printf("%s %s %s\n", at->name, at->caught, at->titles);
            else if (strcmp(at->name, argv[1]) == 0)
                return run(at, strcmp(argv[2], "fixed") == 0);
        }
    }
    return argc < 3 ? 0 : 2;
}
