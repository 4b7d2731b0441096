/* SPDX-License-Identifier: MIT
 *
 * Two copies of Cairn in one process are refused clearly; two loaded and one used are fine. Method:
 * children load two libraries that each have libcairn.a inside, out of sight of each other, and
 * call one or both. The parent has no Cairn of its own that was started.
 */
#include "../test.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static char output[4096];

static void use(const char *library, bool is_called) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        _exit(3);
    }
    int (*call)(void);
    *(void **)&call = dlsym(handle, "use_cairn");
    if (is_called && call() != 5) _exit(4);
}

/* What the child's end was; what it wrote is in output. */
static int run_child(bool calls_second) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        use(COPY_ONE, true);
        use(COPY_TWO, calls_second);
        use(COPY_ONE, true);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], output + length, sizeof(output) - 1 - length)) > 0) {
        length += (size_t)got;
    }
    output[length] = 0;
    close(ends[0]);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void two_copies_called_are_refused(void **state) {
    (void)state;
    int status = run_child(true);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(output, "two copies of Cairn in one process"));
    assert_non_null(strstr(output, COPY_ONE));
    assert_non_null(strstr(output, COPY_TWO));
}

static void a_copy_that_is_only_loaded_is_no_harm(void **state) {
    (void)state;
    int status = run_child(false);
    assert_string_equal(output, "");
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_copies_called_are_refused),
        cmocka_unit_test(a_copy_that_is_only_loaded_is_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
