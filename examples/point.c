/* SPDX-License-Identifier: MIT
 *
 * A point is made, printed and deleted. With an argument the program then touches the deleted point
 * and ends with Cairn's report.
 */
#include <cairn/cairn.h>

#include <stdio.h>

typedef struct {
    int x, y;
} Point;
CAIRN_LEAF(Point);

int main(int argc, char **argv) {
    (void)argv;
    Point *point = cairn_new(Point);
    if (!point) return 1;
    point->x = 3;
    point->y = 4;
    printf("point: %d, %d\n", point->x, point->y);
    cairn_delete(point);
    printf("deleted: %s\n", cairn_is_deleted(point) ? "yes" : "no");
    fflush(stdout);
    if (argc > 1) printf("point: %d, %d\n", point->x, point->y);
    return 0;
}
