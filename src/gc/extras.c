/* SPDX-License-Identifier: MIT
 *
 * What an epoch and a trace do about extras.
 *
 * An epoch takes the news: extras that are young or that changed since the last one. Before it
 * counts the logs it gives the counts that pins and cells are owed; once everything is counted,
 * young objects of the news that have no count are dead. What is not news costs an epoch nothing.
 *
 * The finalizable of the dead young come first, and all that they refer to is counted before the
 * others are judged: an object that a finalizer may still reach keeps its cleanups for later.
 */
#include "gc/gc.h"

static struct crn_extra *news; /* of the epoch under way */

void crn_extras_count(void) {
    news = crn_extras_news_take();
    for (struct crn_extra *extra = news; extra; extra = extra->next_news) {
        crn_gc.workers[0].entries++;
        if (extra->next_news) CRN_PREFETCH(extra->next_news);
        if (extra->pin_count && !extra->is_pin_counted) {
            extra->is_pin_counted = true;
            crn_count_increment(extra->object);
        } else if (!extra->pin_count && extra->is_pin_counted) {
            extra->is_pin_counted = false;
            crn_push(&crn_gc.workers[0].decrements, extra->object);
        }
        if (extra->cell && !extra->is_cell_counted) {
            extra->is_cell_counted = true;
            crn_count_increment(extra->cell);
        }
    }
}

static bool is_dead_young(const struct crn_extra *extra) {
    return extra->is_young && *crn_count_of(extra->object) == 0;
}

void crn_extras_judge_young(void) {
    for (struct crn_extra *extra = news; extra; extra = extra->next_news) {
        void *object = extra->object;
        if (extra->finalizer != CRN_FINALIZER_WANTED || !is_dead_young(extra)) continue;
        if (crn_extra_dies(object, crn_block_of_start(object), CRN_DEATH_YOUNG)) {
            crn_count_increment(object); /* the held count */
        }
        crn_count_drain();
    }
    for (struct crn_extra *extra = news, *next; extra; extra = next) {
        next = extra->next_news;
        bool is_dead = is_dead_young(extra);
        extra->is_young = false;
        void *object = extra->object;
        if (is_dead) crn_extra_dies(object, crn_block_of_start(object), CRN_DEATH_YOUNG);
    }
    news = NULL;
}

/* ---- The trace ---- */

static void visit_counts(struct crn_extra *extra, void *visit) {
    void (*each)(void *object) = *(void (**)(void *))visit;
    if (extra->is_held) each(extra->object);
    if (extra->is_pin_counted) each(extra->object);
    if (extra->is_cell_counted) each(extra->cell);
}

void crn_extras_each_count(void (*visit)(void *object)) {
    crn_extras_each(visit_counts, &visit);
}
