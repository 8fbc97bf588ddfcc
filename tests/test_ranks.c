/* test_ranks: several processes, by the program itself under mpirun (QFORMER_BIN, build/qformer by default).
 *
 * The same curve on 1 to 4 ranks; checkpoints that do not know how many there were; and everything that can go wrong on
 * one rank while the others wait for it: each of them ends in time, with one sentence that names the rank, and leaves
 * no process behind. Skipped where there is no mpirun, or a program without MPI. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/json.h"
#include "data/set.h"
#include "kernels/mem.h"

enum { TIMEOUT = 4, STEPS = 20 };            /* seconds; steps */

static char dir[64] = "/tmp/qformer-ranks-XXXXXX";
static bool able;

static const char *const MODEL =
    "model.layers=2 model.hidden=32 model.heads=2 model.queries=4 model.proj=16 model.cross_every=1 model.positions=40 "
    "model.dropout=0.1 train.log_every=1 optim.lr=1e-3 optim.warmup_steps=5 precision=f32 device=cpu "
    "threads=1 data.threads=1 train.events=false data.train=scenes.h5 model.vocab=vocab.txt dist.timeout_s=4";

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(double s) {
    nanosleep(&(struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)(fmod(s, 1) * 1e9)}, NULL);
}

/* ---- starting and watching processes ----------------------------------------------------------------------------- */

/* A shell line in the test's folder, output to the file `log`. It may use $M (mpirun), $Q (the program) and $A
 * (options). */
static pid_t start(const char *log, const char *line) {
    char out[160];
    snprintf(out, sizeof out, "%s/%s", dir, log);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (fd < 0 || chdir(dir) != 0) _exit(126);
        dup2(fd, 1);
        dup2(fd, 2);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

/* Exit code, or 1000 + signal. Waits at most a minute. */
static int finish(pid_t pid) {
    int status = 0;
    double begin = now();
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now() - begin > 60) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("a run did not end within a minute");
        }
        nap(0.01);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char *text_of(const char *name) {
    static char text[1 << 20];
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return text;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)); p += strlen(word)) n++;
    return n;
}

static bool has_word(const char *path, const char *word) {
    char text[1 << 15];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
    if (fd >= 0) close(fd);
    return n > 0 && memmem(text, (size_t)n, word, strlen(word));
}

/* A process whose arguments name `out`; of that rank when rank >= 0. */
static pid_t find_process(const char *out, int rank) {
    char arg[80], mark[40], path[300];
    pid_t found = 0;
    snprintf(arg, sizeof arg, "out=%s", out);
    snprintf(mark, sizeof mark, "OMPI_COMM_WORLD_RANK=%d", rank);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        if (!isdigit((unsigned char)e->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        if (!has_word(path, arg) || has_word(path, "mpirun")) continue;
        snprintf(path, sizeof path, "/proc/%s/environ", e->d_name);
        if (rank < 0 || has_word(path, mark)) found = (pid_t)atoi(e->d_name);
    }
    if (d) closedir(d);
    return found;
}

/* `more` on top of MODEL; one run of `ranks` processes. */
static pid_t train(int ranks, const char *out, const char *more) {
    char line[500], log[64];
    snprintf(line, sizeof line, "exec $M -np %d $Q pretrain $A out=%s %s", ranks, out, more);
    snprintf(log, sizeof log, "%s.txt", out);
    return start(log, line);
}

static void must(const char *line) {
    int code = finish(start("must.txt", line));
    if (code) fail_msg("'%s' ended with %d: %s", line, code, text_of("must.txt"));
}

/* ---- what a run left --------------------------------------------------------------------------------------------- */

typedef struct { double loss[3 * STEPS + 1][4]; int n; } Curve;

static void read_curve(Curve *c, const char *out) {
    static const char *const keys[] = {"loss", "itc", "itm", "itg"};
    char name[80], *save = NULL;
    snprintf(name, sizeof name, "%s/log.jsonl", out);
    *c = (Curve){.n = 0};
    for (char *line = strtok_r(text_of(name), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        Json *j = NULL;
        int64_t step;
        if (json_parse(&j, line, strlen(line), name) != OK) continue;
        if (json_get(j, "loss") && json_int(json_get(j, "step"), &step) && step > 0 && step <= 3 * STEPS) {
            for (int k = 0; k < 4; k++) json_num(json_get(j, keys[k]), &c->loss[step][k]);
            if (step > c->n) c->n = (int)step;
        }
        json_free(j);
    }
}

static double distance(const Curve *a, const Curve *b, int from, int to) {
    double most = 0;
    for (int s = from; s <= to; s++)
        for (int k = 0; k < 4; k++) {
            if (!(a->loss[s][k] > 0 && b->loss[s][k] > 0)) return INFINITY;
            most = fmax(most, fabs(a->loss[s][k] - b->loss[s][k]));
        }
    return most;
}

/* The last checkpoint loads: one rank goes on from it. */
static void goes_on(const char *out, int global_batch) {
    char line[300], path[160];
    int64_t step = 0;
    for (int64_t s = 1; s < 2000; s++) {
        snprintf(path, sizeof path, "%s/%s/step_%06lld/state.json", dir, out, (long long)s);
        if (access(path, R_OK) == 0) step = s;
    }
    if (!step) fail_msg("%s has no checkpoint", out);
    snprintf(line, sizeof line, "$Q pretrain $A out=%s train.eval_every=0 train.batch=%d train.steps=%lld", out,
             global_batch, (long long)step + 1);
    must(line);
    snprintf(path, sizeof path, "%s/%s/step_%06lld/state.json", dir, out, (long long)step + 1);
    assert_int_equal(access(path, R_OK), 0);
}

/* Waits until the run has saved its first checkpoint. */
static void wait_for_checkpoint(const char *out, int step) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s/step_%06d/state.json", dir, out, step);
    for (double begin = now(); access(path, R_OK) != 0; nap(0.01))
        if (now() - begin > 40) fail_msg("%s does not come to step %d: %s", out, step, text_of("must.txt"));
}

static void no_process_is_left(const char *out) {
    double begin = now();
    pid_t left = 0;
    while ((left = find_process(out, -1)) && now() - begin < 3) nap(0.05);
    if (left) fail_msg("process %d of %s is still there", (int)left, out);
}

/* How many ranks said a sentence that holds all of these words. */
static int sentences(const char *text, const char *a, const char *b, const char *c) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, "qformer pretrain: ")); p += 10) {
        char line[1000];
        snprintf(line, sizeof line, "%.*s", (int)strcspn(p, "\n"), p);
        n += strstr(line, a) && strstr(line, b) && strstr(line, c);
    }
    return n;
}

/* ---- the same numbers -------------------------------------------------------------------------------------------- */

static void need_mpi(void) {
    if (!able) skip();
}

static void same_curve_on_1_to_4_ranks(void **state) {
    (void)state;
    need_mpi();
    Curve c[5];
    char more[200], out[8];
    for (int n = 1; n <= 4; n++) {
        snprintf(out, sizeof out, "w%d", n);
        snprintf(more, sizeof more, "train.batch=%d train.steps=%d train.save_every=0 train.eval_every=10", 12 / n,
                 STEPS);
        assert_int_equal(finish(train(n, out, more)), 0);
        read_curve(&c[n], out);
        assert_int_equal(c[n].n, STEPS);
        snprintf(more, sizeof more, "%s.txt", out);
        assert_int_equal(count(text_of(more), "step 7/20"), 1);          /* one rank speaks */
        if (n > 1) print_message("%d ranks: losses differ by %.2g at most\n", n, distance(&c[1], &c[n], 1, STEPS));
        if (n > 1) assert_true(distance(&c[1], &c[n], 1, STEPS) < 1e-5);
    }
}

static void other_ways_to_join_gradients(void **state) {
    (void)state;
    need_mpi();
    static const struct { const char *name, *more; double tolerance; } ways[] = {
        {"half", "dist.wire=bf16", 3e-2}, {"full", "loss.itc_gradient=full", 1e-5}, {"accum", "optim.accum=2", 1e-5}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        Curve one, several;
        char more[200], name[40];
        for (int n = 1; n <= 3; n += 2) {
            snprintf(more, sizeof more, "%s train.batch=%d train.steps=%d train.save_every=0 train.eval_every=0",
                     ways[i].more, 12 / n, STEPS);
            snprintf(name, sizeof name, "%s%d", ways[i].name, n);
            assert_int_equal(finish(train(n, name, more)), 0);
            read_curve(n == 1 ? &one : &several, name);
        }
        print_message("%s: losses differ by %.2g\n", ways[i].more, distance(&one, &several, 1, STEPS));
        assert_true(distance(&one, &several, 1, STEPS) < ways[i].tolerance);
    }
}

/* Optimizer state in parts: the same curve and, saved with 3 ranks, a checkpoint like any other. */
static void sharded_optimizer(void **state) {
    (void)state;
    need_mpi();
    Curve plain, sharded, back;
    char more[200];
    snprintf(more, sizeof more,
             "train.batch=4 train.steps=%d train.save_every=0 train.eval_every=0 optim.ema=0.9 optim.clip=2", STEPS);
    assert_int_equal(finish(train(3, "plain", more)), 0);
    strcat(more, " dist.zero=true");
    assert_int_equal(finish(train(3, "zero", more)), 0);
    read_curve(&plain, "plain");
    read_curve(&sharded, "zero");
    print_message("dist.zero: losses differ by %.2g\n", distance(&plain, &sharded, 1, STEPS));
    assert_true(distance(&plain, &sharded, 1, STEPS) < 1e-5);
    for (int k = 0; k < 2; k++) { /* sharded goes on plain, plain goes on sharded */
        snprintf(more, sizeof more,
                 "train.batch=4 train.steps=%d train.save_every=0 train.eval_every=0 optim.ema=0.9 optim.clip=2 %s",
                 2 * STEPS, k ? "dist.zero=true" : "");
        assert_int_equal(finish(train(3, k ? "plain" : "zero", more)), 0);
        read_curve(k ? &back : &sharded, k ? "plain" : "zero");
    }
    print_message("exchanged: losses differ by %.2g\n", distance(&back, &sharded, STEPS + 1, 2 * STEPS));
    assert_true(distance(&back, &sharded, STEPS + 1, 2 * STEPS) < 1e-5);
    must("for f in model optimizer ema; do cmp plain/step_000040/$f.safetensors zero/step_000040/$f.safetensors || "
         "exit 1; done");
}

static void save_with_4_resume_with_1_and_2(void **state) {
    (void)state;
    need_mpi();
    Curve whole, c;
    char line[400], more[200], out[16];
    snprintf(more, sizeof more, "train.batch=3 train.save_every=%d train.eval_every=0 train.steps=%d", STEPS / 2,
             2 * STEPS);
    assert_int_equal(finish(train(4, "four", more)), 0);
    read_curve(&whole, "four");
    for (int n = 1; n <= 2; n++) {
        snprintf(out, sizeof out, "from4to%d", n);
        snprintf(line, sizeof line, "mkdir %s && cp -r four/step_%06d %s/", out, STEPS, out);
        must(line);
        snprintf(more, sizeof more, "train.batch=%d train.save_every=0 train.eval_every=0 train.steps=%d", 12 / n,
                 2 * STEPS);
        assert_int_equal(finish(train(n, out, more)), 0);
        read_curve(&c, out);
        assert_int_equal(c.n, 2 * STEPS);
        print_message("4 ranks, then %d: losses differ by %.2g\n", n, distance(&whole, &c, STEPS + 1, 2 * STEPS));
        assert_true(distance(&whole, &c, STEPS + 1, 2 * STEPS) < 1e-5);
        assert_true(c.loss[STEPS][0] == 0);                              /* it did start from the checkpoint */
    }
    snprintf(more, sizeof more, "train.batch=12 train.eval_every=0 train.steps=%d", 3 * STEPS);
    assert_int_not_equal(finish(train(2, "four", more)), 0);             /* another global batch */
    assert_int_not_equal(sentences(text_of("four.txt"), "12 pairs a step", "24", "train.batch=12"), 0);
}

/* Each rank in a folder of its own, which holds its own shard alone. */
static void prepare_local_shards(const char *name) {
    char line[400];
    snprintf(line, sizeof line,
             "mkdir %s %s/0 %s/1 && for r in 0 1; do cp vocab.txt %s/$r/ && cp -r set %s/$r/set; done", name, name,
             name, name, name);
    must(line);
    snprintf(line, sizeof line,
             "cd %s && s=$(ls 0/set | grep -v manifest) && set -- $s && rm 0/set/$2 1/set/$1 && test $# = 2", name);
    must(line);
}

static pid_t train_local(const char *name, const char *more) {
    char line[1000], log[64];
    int n = snprintf(line, sizeof line, "exec $M");
    for (int r = 0; r < 2; r++)
        n += snprintf(line + n, sizeof line - (size_t)n,
                      " %s-np 1 -wdir $PWD/%s/%d $Q pretrain $A data.train=set/manifest.json "
                      "data.local_shards=true train.eval_every=0 train.batch=6 out=$PWD/%s/out %s",
                      r ? ": " : "", name, r, name, more);
    snprintf(log, sizeof log, "%s.txt", name);
    return start(log, line);
}

static void local_shards(void **state) {
    (void)state;
    need_mpi();
    prepare_local_shards("local");
    assert_int_equal(finish(train_local("local", "train.steps=20")), 0);
    assert_int_equal(count(text_of("local.txt"), "step 20/20"), 1);
}

/* ---- what can go wrong ------------------------------------------------------------------------------------------- */

static const char *const LONG = "train.batch=4 train.steps=100000 train.save_every=5 train.eval_every=0";

static void terminated_on_one_rank(void **state) {
    (void)state;
    need_mpi();
    pid_t m = train(3, "term", LONG);
    wait_for_checkpoint("term", 5);
    kill(find_process("term", 2), SIGTERM);
    assert_int_equal(finish(m), 0);
    assert_int_equal(count(text_of("term.txt"), "stopped after step"), 1);
    goes_on("term", 12);
    no_process_is_left("term");
}

static void killed(void **state) {
    (void)state;
    need_mpi();
    pid_t m = train(3, "killed", LONG);
    wait_for_checkpoint("killed", 5);
    double begin = now();
    kill(find_process("killed", 1), SIGKILL);
    assert_int_not_equal(finish(m), 0);
    assert_true(now() - begin < TIMEOUT);
    assert_int_equal(sentences(text_of("killed.txt"), "rank 1 is gone", " in step ", "the "), 2);
    no_process_is_left("killed");
    goes_on("killed", 12);
}

static void stopped(void **state) {
    (void)state;
    need_mpi();
    pid_t m = train(3, "stopped", LONG);
    wait_for_checkpoint("stopped", 5);
    double begin = now();
    kill(find_process("stopped", 0), SIGSTOP);
    assert_int_not_equal(finish(m), 0);
    assert_true(now() - begin < TIMEOUT + 3);
    assert_in_range(sentences(text_of("stopped.txt"), "rank 0 (process", "which is stopped) did not come to the",
                              " in step "),
                    2, 3);
    no_process_is_left("stopped");
    goes_on("stopped", 12);
}

/* A limit on the size of files stands for a full disk. */
static void full_disk_on_rank_0(void **state) {
    (void)state;
    need_mpi();
    char line[1000];
    assert_int_equal(finish(train(3, "disk", "train.batch=4 train.steps=5 train.save_every=5 train.eval_every=0")), 0);
    snprintf(line, sizeof line,
             "exec $M -np 1 sh -c 'trap \"\" XFSZ; ulimit -f 40; exec \"$0\" \"$@\"' $Q pretrain $A out=disk %s : "
             "-np 2 $Q pretrain $A out=disk %s",
             LONG, LONG);
    assert_int_equal(finish(start("disk.txt", line)), 1);
    assert_int_equal(sentences(text_of("disk.txt"), "rank 0 failed in step 10", "disk/step_000010", "File too large"),
                     2);
    assert_int_equal(sentences(text_of("disk.txt"), "disk/step_000010", "File too large", ""), 3);
    no_process_is_left("disk");
    goes_on("disk", 12);
}

static pid_t unlike(const char *out, const char *other_bin, const char *other_option) {
    char line[1000], log[64];
    snprintf(line, sizeof line, "exec $M -np 1 $Q pretrain $A out=%s %s : -np 1 %s pretrain $A out=%s %s %s", out, LONG,
             other_bin, out, LONG, other_option);
    snprintf(log, sizeof log, "%s.txt", out);
    return start(log, line);
}

static void other_configuration(void **state) {
    (void)state;
    need_mpi();
    assert_int_not_equal(finish(unlike("config", "$Q", "loss.smoothing=0.2")), 0);
    assert_int_equal(sentences(text_of("config.txt"), "rank 1 has another configuration", "smoothing: 0.2", "rank 0"),
                     1);
    no_process_is_left("config");
    assert_int_not_equal(finish(unlike("config2", "$Q", "no.such_option=1")), 0);
    assert_int_equal(sentences(text_of("config2.txt"), "rank 1 failed", "no.such_option", ""), 1);
    no_process_is_left("config2");
}

static void other_build(void **state) {
    (void)state;
    need_mpi();
    must("cp $Q other && printf x >>other");
    assert_int_not_equal(finish(unlike("build", "./other", "")), 0);
    assert_int_equal(sentences(text_of("build.txt"), "rank 1 has another build of this program", "hash", "rank 0"), 1);
    no_process_is_left("build");
}

static void shard_missing_on_one(void **state) {
    (void)state;
    need_mpi();
    prepare_local_shards("missing");
    must("rm missing/1/set/*.h5");
    assert_int_not_equal(finish(train_local("missing", LONG)), 0);
    assert_int_equal(sentences(text_of("missing.txt"), "rank 1 failed", "no shard for part 1 of 2", ""), 1);
    no_process_is_left("missing/out");
}

/* Overwrites an image's features with ones: not a number in every float type. */
static void poison(const char *shard) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, shard);
    Set *s = NULL;
    assert_int_equal(set_open(&s, path), OK);
    size_t bytes = set_row_bytes(s), size = 0;
    char *row = mem_new(bytes, 1), *file = NULL;
    float scale;
    assert_int_equal(set_read_row(s, 0, false, row, &scale), OK);
    set_close(s);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size = (size_t)ftell(f);
    rewind(f);
    file = mem_new(size, 1);
    assert_int_equal(fread(file, 1, size, f), size);
    char *at = memmem(file, size, row, bytes);
    assert_non_null(at);
    memset(row, 0xff, bytes);
    fseek(f, at - file, SEEK_SET);
    assert_int_equal(fwrite(row, 1, bytes, f), bytes);
    fclose(f);
    free(file);
    free(row);
}

static void not_a_number_on_one(void **state) {
    (void)state;
    need_mpi();
    prepare_local_shards("nan");
    char name[200];
    must("ls nan/1/set | grep h5$");
    snprintf(name, sizeof name, "nan/1/set/%.*s", (int)strcspn(text_of("must.txt"), "\n"), text_of("must.txt"));
    poison(name);
    assert_int_equal(finish(train_local("nan", "train.steps=100 data.verify_crc=false optim.on_nonfinite=stop")), 1);
    assert_int_equal(sentences(text_of("nan.txt"), "is not finite", "first on rank 1", "step "), 2);
    no_process_is_left("nan/out");
}

static int setup(void **state) {
    (void)state;
    const char *b = getenv("QFORMER_BIN");
    char bin[4096];                                          /* absolute: some ranks run in folders of their own */
    if (!mkdtemp(dir) || !realpath(b ? b : "build/qformer", bin)) return -1;
    setenv("Q", bin, 1);
    setenv("A", MODEL, 1);
    setenv("M", "mpirun --oversubscribe --bind-to none", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);             /* of MPI's own */
    setenv("OMP_NUM_THREADS", "1", 1);
    able = finish(start("must.txt", "command -v mpirun && $Q doctor | grep '^MPI' | grep -v none")) == 0;
    must("$Q synth out=scenes.h5 synth.train=96 synth.val=24 synth.test=8 synth.size=32 synth.images=none "
         "synth.facts=false");
    must(
        "$Q vocab in=scenes.h5 out=vocab.txt vocab.size=200 && $Q repack in=scenes.h5 out=set/ repack.shard_images=64");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return getenv("KEEP") ? 0 : system(cmd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_curve_on_1_to_4_ranks),
        cmocka_unit_test(other_ways_to_join_gradients),
        cmocka_unit_test(sharded_optimizer),
        cmocka_unit_test(save_with_4_resume_with_1_and_2),
        cmocka_unit_test(local_shards),
        cmocka_unit_test(terminated_on_one_rank),
        cmocka_unit_test(killed),
        cmocka_unit_test(stopped),
        cmocka_unit_test(full_disk_on_rank_0),
        cmocka_unit_test(other_configuration),
        cmocka_unit_test(other_build),
        cmocka_unit_test(shard_missing_on_one),
        cmocka_unit_test(not_a_number_on_one),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
