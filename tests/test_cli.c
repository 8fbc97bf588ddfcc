/* test_cli: the program as a user types it: exit codes, what goes to which stream, --help of every command.
 * The program is $QFORMER_BIN, else build/qformer; without it everything here is skipped. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/stat.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/kit/program.h"

/* Runs the program with these words. */
static Run *run(const char *words) {
    Run *r = program_run(NULL, words);
    if (!r) skip();
    return r;
}

static void says(const char *text, const char *wanted) {
    if (!strstr(text, wanted)) fail_msg("'%s' is missing in:\n%s", wanted, text);
}

static void alone_lists_commands(void **state) {
    (void)state;
    Run *r = run("");
    assert_int_equal(r->code, 2);
    assert_string_equal(r->out, "");
    says(r->err, "usage: qformer <command> [config.yaml] [key=value ...]");
    says(r->err, "qformer doctor");
}

static void help_and_version(void **state) {
    (void)state;
    Run *r = run("--help");
    assert_int_equal(r->code, 0);
    says(r->out, "\n  doctor ");
    assert_string_equal(r->err, "");
    r = run("--version");
    assert_int_equal(r->code, 0);
    assert_int_equal(strncmp(r->out, "qformer ", 8), 0);
    says(r->out, "\nwith HDF5");
}

/* Whatever the list names has a help of its own, which shows options made from the table. */
static void every_command_has_help(void **state) {
    (void)state;
    char *list = strdup(run("--help")->out), usage[64];
    int n = 0;
    assert_non_null(list);
    for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n")) {
        char name[32], help[48];
        if (strncmp(line, "  ", 2) || sscanf(line, " %31s", name) != 1) continue;
        snprintf(help, sizeof help, "%s --help", name);
        Run *r = run(help);
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
    Run *r = run("doctr");
    assert_int_equal(r->code, 2);
    says(r->err, "there is no command 'doctr'; the nearest is doctor");
    r = run("xyzzy");
    assert_int_equal(r->code, 2);
    says(r->err, "'qformer --help' lists them");
    r = run("doctor devise=cpu");
    assert_int_equal(r->code, 2);
    says(r->err, "qformer doctor: command line: there is no option 'devise'; the nearest is device");
    assert_int_equal(run("doctor device=gpu")->code, 2);
    assert_int_equal(run("doctor threads=-1")->code, 2);
    assert_int_equal(run("doctor absent.yaml")->code, 2);
    assert_int_equal(run("doctor stray")->code, 2);
    assert_string_equal(run("doctor stray")->out, "");
}

static void mistake_in_a_file_has_its_line(void **state) {
    (void)state;
    char path[] = "/tmp/qformer-cli-XXXXXX.yaml", wanted[128], line[64];
    int fd = mkstemps(path, 5);
    static const char text[] = "seed: 1\noptim:\n  lr: fast\n";
    assert_true(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    close(fd);
    snprintf(line, sizeof line, "doctor %s", path);
    Run *r = run(line);
    unlink(path);
    snprintf(wanted, sizeof wanted, "%s:3: optim.lr is 'fast', a number from 0 to 10 is wanted", path);
    assert_int_equal(r->code, 2);
    says(r->err, wanted);
}

static void doctor_looks_around(void **state) {
    (void)state;
    Run *r = run("doctor dry_run=true");
    assert_int_equal(r->code, 0);
    says(r->out, "\nprocessor ");
    says(r->out, "\nmemory ");
    says(r->out, "\ndisk ");
    says(r->out, "\nGPU ");
}

static void options_are_the_reference(void **state) {
    (void)state;
    Run *r = run("--options");
    assert_int_equal(r->code, 0);
    says(r->out, "\nmodel:\n  # transformer layers (L) [1 to 96]\n  layers: 12\n");
}

/* A command that does not ask for signals is ended by them, like any program. */
static void ended_by_a_signal(void **state) {
    (void)state;
    char dir[] = "/tmp/qformer-cli-XXXXXX", pipe[64], gt[80];
    if (!program_path()) skip();
    assert_non_null(mkdtemp(dir));
    snprintf(pipe, sizeof pipe, "%s/pipe", dir);
    snprintf(gt, sizeof gt, "gt=%s", pipe);
    assert_int_equal(mkfifo(pipe, 0600), 0);                   /* nobody writes: it waits */
    pid_t pid = fork();
    if (pid == 0) execl(program_path(), "qformer", "score", "captions.json", gt, (char *)NULL), _exit(127);
    struct rusage usage;
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    kill(pid, SIGTERM);
    int status = program_wait(pid, &usage);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    unlink(pipe);
    rmdir(dir);
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
        cmocka_unit_test(ended_by_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
