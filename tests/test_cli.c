/* test_cli: the program as a user types it: exit codes, what goes to which stream, --help of every command.
 * The program is $QFORMER_BIN, else build/qformer; without it everything here is skipped. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *program(void) {
    const char *p = getenv("QFORMER_BIN");
    return p ? p : "build/qformer";
}

typedef struct { int code; char out[1 << 16], err[1 << 14]; } Run;

static void read_back(int fd, char *buf, size_t size) {
    ssize_t n = pread(fd, buf, size - 1, 0);
    buf[n > 0 ? n : 0] = 0;
    close(fd);
}

static int temporary(void) {
    char path[] = "/tmp/qformer-cli-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

/* Runs the program with the words up to NULL, waits, and keeps its exit code (-1: a signal) and streams. */
static Run *run(const char *word, ...) {
    static Run r;
    char *argv[16] = { (char *)(uintptr_t)program() };
    int argc = 1, status;
    pid_t pid;
    va_list ap;
    va_start(ap, word);
    for (const char *w = word; w && argc < 15; w = va_arg(ap, const char *)) argv[argc++] = (char *)(uintptr_t)w;
    va_end(ap);
    if (access(argv[0], X_OK)) skip();
    int out = temporary(), err = temporary();
    posix_spawn_file_actions_t a;
    posix_spawn_file_actions_init(&a);
    posix_spawn_file_actions_adddup2(&a, out, 1);
    posix_spawn_file_actions_adddup2(&a, err, 2);
    assert_int_equal(posix_spawn(&pid, argv[0], &a, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&a);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_back(out, r.out, sizeof r.out);
    read_back(err, r.err, sizeof r.err);
    return &r;
}

static void says(const char *text, const char *wanted) {
    if (!strstr(text, wanted)) fail_msg("'%s' is missing in:\n%s", wanted, text);
}

static void alone_lists_commands(void **state) {
    (void)state;
    Run *r = run(NULL);
    assert_int_equal(r->code, 2);
    assert_string_equal(r->out, "");
    says(r->err, "usage: qformer <command> [config.yaml] [key=value ...]");
    says(r->err, "qformer doctor");
}

static void help_and_version(void **state) {
    (void)state;
    Run *r = run("--help", NULL);
    assert_int_equal(r->code, 0);
    says(r->out, "\n  doctor ");
    assert_string_equal(r->err, "");
    r = run("--version", NULL);
    assert_int_equal(r->code, 0);
    assert_int_equal(strncmp(r->out, "qformer ", 8), 0);
    says(r->out, "\nwith HDF5");
}

/* Whatever the list names has a help of its own, which shows options made from the table. */
static void every_command_has_help(void **state) {
    (void)state;
    char *list = strdup(run("--help", NULL)->out), usage[64];
    int n = 0;
    assert_non_null(list);
    for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n")) {
        char name[32];
        if (strncmp(line, "  ", 2) || sscanf(line, " %31s", name) != 1) continue;
        Run *r = run(name, "--help", NULL);
        snprintf(usage, sizeof usage, "usage: qformer %s [config.yaml]", name);
        assert_int_equal(r->code, 0);
        says(r->out, usage);
        says(r->out, "\n  seed ");
        n++;
    }
    free(list);
    assert_true(n >= 1);
}

static void mistakes_are_2(void **state) {
    (void)state;
    Run *r = run("doctr", NULL);
    assert_int_equal(r->code, 2);
    says(r->err, "there is no command 'doctr'; the nearest is doctor");
    r = run("xyzzy", NULL);
    assert_int_equal(r->code, 2);
    says(r->err, "'qformer --help' lists them");
    r = run("doctor", "devise=cpu", NULL);
    assert_int_equal(r->code, 2);
    says(r->err, "qformer doctor: command line: there is no option 'devise'; the nearest is device");
    assert_int_equal(run("doctor", "device=gpu", NULL)->code, 2);
    assert_int_equal(run("doctor", "threads=-1", NULL)->code, 2);
    assert_int_equal(run("doctor", "absent.yaml", NULL)->code, 2);
    assert_int_equal(run("doctor", "stray", NULL)->code, 2);
    assert_string_equal(run("doctor", "stray", NULL)->out, "");
}

static void mistake_in_a_file_has_its_line(void **state) {
    (void)state;
    char path[] = "/tmp/qformer-cli-XXXXXX.yaml", wanted[128];
    int fd = mkstemps(path, 5);
    static const char text[] = "seed: 1\noptim:\n  lr: fast\n";
    assert_true(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    close(fd);
    Run *r = run("doctor", path, NULL);
    unlink(path);
    snprintf(wanted, sizeof wanted, "%s:3: optim.lr is 'fast', a number from 0 to 10 is wanted", path);
    assert_int_equal(r->code, 2);
    says(r->err, wanted);
}

static void doctor_looks_around(void **state) {
    (void)state;
    Run *r = run("doctor", "dry_run=true", NULL);
    assert_int_equal(r->code, 0);
    says(r->out, "\nprocessor ");
    says(r->out, "\nmemory ");
    says(r->out, "\ndisk ");
    says(r->out, "\nGPU ");
}

static void options_are_the_reference(void **state) {
    (void)state;
    Run *r = run("--options", NULL);
    assert_int_equal(r->code, 0);
    says(r->out, "\nmodel:\n  # transformer layers (L) [1 to 96]\n  layers: 12\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_lists_commands),
        cmocka_unit_test(help_and_version),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(mistakes_are_2),
        cmocka_unit_test(mistake_in_a_file_has_its_line),
        cmocka_unit_test(doctor_looks_around),
        cmocka_unit_test(options_are_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
