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
#include "tests/kit/scratch.h"

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

/* What newcomers type. */
static void help_in_other_words(void **state) {
    (void)state;
    char *text = strdup(run("extract --help")->out);
    assert_non_null(text);
    Run *r = run("help extract");
    assert_int_equal(r->code, 0);
    assert_string_equal(r->out, text);
    free(text);
    assert_int_equal(run("help xtract")->code, 2);
    says(run("help xtract")->err, "there is no command 'xtract'; the nearest is extract");
    assert_int_equal(run("-V")->code, 0);
    says(run("-V")->out, "\nwith HDF5");
}

/* What cannot be said is a failure: to a full disk, beyond the file size limit, into a stream that was closed. Who only
 * reads the first lines has had enough, which is none. */
static void lost_output_is_an_error(void **state) {
    (void)state;
    static const struct { const char *line; int code; } cases[] = {
        {"$Q --help > /dev/full", 1},
        {"$Q help doctor > /dev/full", 1},
        {"$Q --options > /dev/full", 1},
        {"$Q --version > /dev/full", 1},
        {"$Q plan model.layers=1 > /dev/full", 1},
        {"$Q plan model.layers=1 >&-", 1},
        {"(ulimit -f 0; exec $Q plan model.layers=1 2>&1 > out) | cat >&2; exit ${PIPESTATUS[0]}", 1},
        {"(ulimit -f 0; exec $Q --options 2>&1 > out) | cat >&2; exit ${PIPESTATUS[0]}", 1},
        {"$Q plan model.layers=1 | true; exit ${PIPESTATUS[0]}", 0},
        {"$Q plan model.layers=1 > /dev/null", 0},
    };
    char line[400], said[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = program_path();
        if (!path) skip();
        snprintf(line, sizeof line, "cd %s; Q=%s bash -c '%s' 2> said; rc=$?; exit $rc", scratch_dir(), path, cases[i].line);
        int status = system(line);
        FILE *f = fopen(scratch_path("said"), "r");
        assert_non_null(f);
        said[fread(said, 1, sizeof said - 1, f)] = 0;
        fclose(f);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != cases[i].code) fail_msg("%s: %d %s", cases[i].line, status, said);
        if (cases[i].code) says(said, "qformer: standard output cannot be written: ");
        else assert_string_equal(said, "");
    }
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

/* Threads of one core's time slice must not spin it away; whoever has set how they wait is heard. */
static void threads_wait_a_moment(void **state) {
    (void)state;
    const char *spins = getenv("GOMP_SPINCOUNT"), *policy = getenv("OMP_WAIT_POLICY");
    char was[2][64];
    snprintf(was[0], sizeof was[0], "%s", spins ? spins : "");
    snprintf(was[1], sizeof was[1], "%s", policy ? policy : "");
    unsetenv("GOMP_SPINCOUNT");
    unsetenv("OMP_WAIT_POLICY");
    says(run("doctor dry_run=true")->out, "sleeps after this many spins: 1000\n");
    setenv("OMP_WAIT_POLICY", "passive", 1);
    says(run("doctor dry_run=true")->out, "sleeps as OMP_WAIT_POLICY says: passive\n");
    setenv("GOMP_SPINCOUNT", "7", 1);
    says(run("doctor dry_run=true")->out, "sleeps after this many spins: 7\n");
    if (!spins) unsetenv("GOMP_SPINCOUNT");
    else setenv("GOMP_SPINCOUNT", was[0], 1);
    if (!policy) unsetenv("OMP_WAIT_POLICY");
    else setenv("OMP_WAIT_POLICY", was[1], 1);
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

/* The man page and what shells complete are written from the tables: every command and option stands in them. */
static void manual_is_whole(void **state) {
    (void)state;
    Run *page = run("--man"), *r;
    assert_int_equal(page->code, 0);
    says(page->out, ".TH QFORMER 1");
    says(page->out, ".B pretrain\n");
    static const char *const shells[] = {"bash", "zsh", "fish"};
    for (int i = 0; i < 3; i++) {
        char words[40];
        snprintf(words, sizeof words, "--completion %s", shells[i]);
        r = run(words);
        assert_int_equal(r->code, 0);
        says(r->out, "extract");
        says(r->out, "optim.lr=");
    }
    r = run("--completion tcsh");
    assert_int_equal(r->code, 2);
    says(r->err, "bash, zsh and fish, not for 'tcsh'");
}

/* A word of the command line is completed to commands, then to the command's keys, then to a key's choices. */
static void bash_completes(void **state) {
    (void)state;
    const char *program = program_path();
    if (!program || system("command -v bash >/dev/null")) skip();
    static const char *const typed[][2] = {{"qformer pre", "pretrain"}, {"qformer pretrain optim.sched", "optim.schedule="},
                                           {"qformer pretrain device = cu", "cuda"}};
    for (int i = 0; i < 3; i++) {
        char line[1000];
        snprintf(line, sizeof line, "bash -c 'source <(%s --completion bash); COMP_WORDS=(%s); "
                 "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _qformer 2>/dev/null; [ \"${COMPREPLY[*]}\" = \"%s\" ]'", program,
                 typed[i][0], typed[i][1]);
        if (system(line)) fail_msg("%s is not completed to %s", typed[i][0], typed[i][1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_lists_commands),
        cmocka_unit_test(help_and_version),
        cmocka_unit_test(help_in_other_words),
        cmocka_unit_test(lost_output_is_an_error),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(mistakes_are_2),
        cmocka_unit_test(mistake_in_a_file_has_its_line),
        cmocka_unit_test(doctor_looks_around), cmocka_unit_test(threads_wait_a_moment),
        cmocka_unit_test(options_are_the_reference),
        cmocka_unit_test(ended_by_a_signal),
        cmocka_unit_test(manual_is_whole), cmocka_unit_test(bash_completes),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_teardown);
}
