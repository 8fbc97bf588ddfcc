/* test_kill: a run that is killed with SIGKILL at random moments, again and again, ends with the bytes of one that
 * never was.
 *
 * Drives the program itself (QFORMER_BIN, build/qformer by default). Saves every third step, so that many kills fall
 * into writing. Also: SIGTERM saves and ends with 0; a full disk while saving leaves what was there. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

extern char **environ;

static char dir[64] = "/tmp/qformer-kill-XXXXXX";
static const char *const MODEL[] = {"model.layers=2", "model.hidden=32", "model.heads=2", "model.queries=4",
                                    "model.proj=16", "model.cross_every=1",
                                    "model.positions=40", "model.dropout=0.1", "train.batch=8", "train.steps=60",
                                        "train.save_every=3",
                                    "train.eval_every=20", "train.keep=2", "optim.lr=1e-3", "optim.warmup_steps=5",
                                        "optim.ema=0.9", "precision=f32", "device=cpu", "threads=1", "data.threads=2"};
enum { MODEL_ARGS = sizeof MODEL / sizeof *MODEL };

static char *path(const char *name) {
    static char p[4][256];
    static int k;
    k = (k + 1) % 4;
    snprintf(p[k], sizeof p[k], "%s/%s", dir, name);
    return p[k];
}

static pid_t start(char *const argv[], const char *log) {
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    pid_t pid = -1;
    assert_int_equal(posix_spawn(&pid, argv[0], &fa, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&fa);
    return pid;
}

static int finish(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return status;
}

static char *binary(void) {
    char *b = getenv("QFORMER_BIN");
    static char standard[] = "build/qformer";
    return b ? b : standard;
}

static pid_t train(const char *out, const char *more) {
    char *argv[MODEL_ARGS + 8];
    static char o[300], data[300], vocab[300];
    snprintf(o, sizeof o, "out=%s", path(out));
    snprintf(data, sizeof data, "data.train=%s", path("scenes.h5"));
    snprintf(vocab, sizeof vocab, "model.vocab=%s", path("vocab.txt"));
    int n = 0;
    argv[n++] = binary();
    static char command[] = "pretrain";
    argv[n++] = command;
    argv[n++] = o, argv[n++] = data, argv[n++] = vocab;
    for (int i = 0; i < MODEL_ARGS; i++) argv[n++] = strdup(MODEL[i]);
    if (more) argv[n++] = strdup(more);
    argv[n] = NULL;
    pid_t pid = start(argv, path("log"));
    for (int i = 5; i < n; i++) free(argv[i]);
    return pid;
}

static void run(const char *a, const char *b, const char *c, const char *d) {
    char *argv[] = {binary(), strdup(a), strdup(b), c ? strdup(c) : NULL, d ? strdup(d) : NULL, NULL};
    assert_int_equal(finish(start(argv, path("log"))), 0);
    for (int i = 1; argv[i]; i++) free(argv[i]);
}

static int same(const char *a, const char *b) {
    char cmd[1300];
    snprintf(cmd, sizeof cmd, "cmp -s %s %s", a, b);
    return system(cmd) == 0;
}

static int setup(void **state) {
    (void)state;
    char out[300], in[300];
    if (!mkdtemp(dir)) return -1;
    snprintf(out, sizeof out, "out=%s", path("scenes.h5"));
    char *argv[] = {binary(), strdup("synth"), out, strdup("synth.train=96"), strdup("synth.val=24"),
                    strdup("synth.test=8"), strdup("synth.size=32"),
                    strdup("synth.images=none"), strdup("synth.facts=false"), NULL};
    int status = finish(start(argv, path("log")));
    for (int i = 1; argv[i]; i++)
        if (i != 2) free(argv[i]);
    if (status != 0) return -1;
    snprintf(in, sizeof in, "in=%s", path("scenes.h5"));
    snprintf(out, sizeof out, "out=%s", path("vocab.txt"));
    run("vocab", in, out, "vocab.size=200");
    return finish(train("whole", NULL));
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

static void all_files_equal(const char *a, const char *b) {
    static const char *const files[] = {"step_000060/model.safetensors", "step_000060/optimizer.safetensors",
                                        "step_000060/ema.safetensors", "step_000060/state.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char x[600], y[600];
        snprintf(x, sizeof x, "%s/%s", path(a), files[i]);
        snprintf(y, sizeof y, "%s/%s", path(b), files[i]);
        if (!same(x, y)) fail_msg("%s and %s differ", x, y);
    }
}

/* state.json holds the configuration, which names the folder: so both runs use the same name, one after the other. */
static void killed_twenty_times(void **state) {
    (void)state;
    char cmd[700];
    snprintf(cmd, sizeof cmd, "mv %s %s", path("whole"), path("kept"));
    assert_int_equal(system(cmd), 0);
    int kills = 0, runs = 0;
    unsigned seed = 12345;
    while (kills < 20) {
        snprintf(cmd, sizeof cmd, "rm -rf %s", path("whole"));
        assert_int_equal(system(cmd), 0);
        for (int status = 1, tries = 0; status != 0; tries++) {
            if (tries > 400) fail_msg("the run does not get on: %d kills, %d runs", kills, runs);
            pid_t pid = train("whole", NULL);
            seed = seed * 1664525u + 1013904223u;
            struct timespec t = {.tv_nsec = 20000000L + (long)(seed >> 8) % 500000000L};
            if (kills < 20 || tries < 60) {
                nanosleep(&t, NULL);
                if (kill(pid, SIGKILL) == 0) {}
            }
            status = finish(pid);
            if (WIFSIGNALED(status)) kills++;
            else if (status != 0) fail_msg("exit status %d after a kill; see %s", status, path("log"));
        }
        runs++;
        all_files_equal("whole", "kept");
    }
    print_message("%d kills in %d runs\n", kills, runs);
}

static void terminated_saves(void **state) {
    (void)state;
    pid_t pid = train("term", "train.save_every=0");
    struct timespec t = {.tv_nsec = 400000000L};
    nanosleep(&t, NULL);
    kill(pid, SIGTERM);
    assert_int_equal(finish(pid), 0);
    assert_int_equal(finish(train("term", "train.save_every=0")), 0);
    assert_int_equal(access(path("term/step_000060/state.json"), R_OK), 0);
    char a[300], b[300];
    snprintf(a, sizeof a, "%s", path("term/step_000060/model.safetensors"));
    snprintf(b, sizeof b, "%s", path("kept/step_000060/model.safetensors"));
    assert_true(same(a, b));
}

/* A limit on file size stands for a full disk: the save fails with a sentence,
 * and what was saved before still loads. */
static void full_disk_keeps_the_last(void **state) {
    (void)state;
    struct rlimit old, small;
    assert_int_equal(finish(train("disk", "train.steps=6")), 0);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 20000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int status = finish(train("disk", NULL));
    setrlimit(RLIMIT_FSIZE, &old);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_int_equal(access(path("disk/step_000006/state.json"), R_OK), 0);
    assert_int_equal(finish(train("disk", NULL)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_twenty_times),
        cmocka_unit_test(terminated_saves),
        cmocka_unit_test(full_disk_keeps_the_last),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
