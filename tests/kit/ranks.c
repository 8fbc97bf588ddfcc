/* ranks: see ranks.h. */
#include "tests/kit/ranks.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/kit/check.h"

char dir[64] = "/tmp/qformer-ranks-XXXXXX";

bool able;                            /* there are mpirun, a program with MPI, and what else a test wants */

static const char *const COMMON =
    "model.layers=2 model.heads=2 model.queries=4 model.proj=16 model.cross_every=1 model.positions=40 "
    "model.dropout=0.1 train.log_every=1 optim.lr=1e-3 optim.warmup_steps=5 precision=f32 "
    "threads=1 data.threads=1 train.events=false data.train=scenes.h5 model.vocab=vocab.txt train.eval_every=0";

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void nap(double s) {
    nanosleep(&(struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)(fmod(s, 1) * 1e9)}, NULL);
}

pid_t start(const char *log, const char *line) {
    char out[160];
    snprintf(out, sizeof out, "%s/%s", dir, log);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);                    /* a test that fails leaves nothing running */
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

int finish(pid_t pid) {
    int status = 0, late = 0;
    double begin = now();
    for (; waitpid(pid, &status, WNOHANG) == 0; nap(0.01)) {
        if (now() - begin < PATIENCE + 10 * late) continue;
        kill(pid, late++ ? SIGKILL : SIGTERM);               /* the first lets mpirun end its ranks */
    }
    if (late) fail_msg("a run did not end within %d s", PATIENCE);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

char *text_of(const char *name) {
    static char text[1 << 20];
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return text;
}

const char *end_of(const char *out) {
    char name[80];
    snprintf(name, sizeof name, "%s.txt", out);
    const char *t = text_of(name);
    size_t n = strlen(t);
    return n > 3000 ? t + n - 3000 : t;
}

int count(const char *text, const char *word) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, word)); p += strlen(word)) n++;
    return n;
}

bool has_word(const char *path, const char *word, bool begins) {
    static char text[1 << 20];
    size_t n = 0, len = strlen(word), room = sizeof text - 1;
    int fd = open(path, O_RDONLY);
    for (ssize_t k; fd >= 0 && n < room && (k = read(fd, text + n, room - n)) > 0;) n += (size_t)k;
    if (fd >= 0) close(fd);
    text[n] = 0;
    for (size_t at = 0; at < n; at += strlen(text + at) + 1)
        if (begins ? strncmp(text + at, word, len) == 0 : strcmp(text + at, word) == 0) return true;
    return false;
}

pid_t find_process(const char *out, int rank) {
    char relative[80], absolute[160], mark[40], path[300];
    pid_t found = 0;
    snprintf(relative, sizeof relative, "out=%s", out);
    snprintf(absolute, sizeof absolute, "out=%s/%s", dir, out);
    snprintf(mark, sizeof mark, "OMPI_COMM_WORLD_RANK=%d", rank);
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        if (!isdigit((unsigned char)e->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        if (has_word(path, "mpirun", true) || !(has_word(path, relative, false) || has_word(path, absolute, false)))
            continue;
        snprintf(path, sizeof path, "/proc/%s/environ", e->d_name);
        if (rank < 0 || has_word(path, mark, false)) found = (pid_t)atoi(e->d_name);
    }
    if (d) closedir(d);
    return found;
}

void send_to(const char *out, int rank, int sig) {
    pid_t pid = find_process(out, rank);
    if (pid <= 0) fail_msg("%s has no process of rank %d: %s", out, rank, end_of(out));
    assert_int_equal(kill(pid, sig), 0);
}

pid_t train(int ranks, const char *out, const char *more) {
    char line[600], log[64];
    snprintf(line, sizeof line, "exec $M -np %d $Q pretrain $A out=%s %s", ranks, out, more);
    snprintf(log, sizeof log, "%s.txt", out);
    return start(log, line);
}

void ended_well(pid_t m, const char *out) {
    int code = finish(m);
    if (code) fail_msg("%s ended with %d: %s", out, code, end_of(out));
}

void trained(int ranks, const char *out, const char *more) { ended_well(train(ranks, out, more), out); }

void must(const char *line) {
    int code = finish(start("must.txt", line));
    if (code) fail_msg("'%s' ended with %d: %s", line, code, end_of("must"));
}

void read_curve(Curve *c, const char *out) {
    static const char *const keys[COLUMNS] = {"loss", "itc", "itm", "itg", "grad_norm"};
    char name[80], *save = NULL;
    snprintf(name, sizeof name, "%s/log.jsonl", out);
    *c = (Curve){.n = 0};
    for (char *line = strtok_r(text_of(name), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        Json *j = NULL;
        int64_t step;
        if (json_parse(&j, line, strlen(line), name) != OK) continue;
        if (json_get(j, "loss") && json_int(json_get(j, "step"), &step) && step > 0 && step <= MOST_STEPS) {
            for (int k = 0; k < COLUMNS; k++) json_num(json_get(j, keys[k]), &c->loss[step][k]);
            if (step > c->n) c->n = (int)step;
        }
        json_free(j);
    }
}

/* Largest difference in these columns, as a part of the first curve's value when `relative`.
 * An empty one is far from everything. */
static double distance(const Curve *a, const Curve *b, int from, int to, int first, int last, bool relative) {
    double most = 0;
    for (int s = from; s <= to; s++)
        for (int k = first; k <= last; k++) {
            double x = a->loss[s][k], y = b->loss[s][k];
            if (!(x > 0 && y > 0)) return INFINITY;
            most = fmax(most, fabs(x - y) / (relative ? x : 1));
        }
    return most;
}

void alike(const char *what, const Curve *a, const Curve *b, int from, int to, double tolerance) {
    double loss = distance(a, b, from, to, 0, LOSSES - 1, false), norm = distance(a, b, from, to, NORM, NORM, true);
    print_message("%s: losses differ by %.2g at most, norms by a part of %.2g\n", what, loss, norm);
    if (!(loss < tolerance && norm < 5 * tolerance))
        fail_msg("%s: steps %d to %d differ by %.3g in losses, a part of %.3g in norms; %g is allowed", what, from, to,
                 loss, norm, tolerance);
}

int last_checkpoint(const char *out) {
    char path[500];
    int last = 0, step;
    snprintf(path, sizeof path, "%s/%s", dir, out);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s/%s/state.json", dir, out, e->d_name);
        if (sscanf(e->d_name, "step_%d", &step) == 1 && !strchr(e->d_name, '.') && step > last &&
            access(path, R_OK) == 0)
            last = step;
    }
    if (d) closedir(d);
    return last;
}

void goes_on(const char *out, int global_batch, const char *more) {
    char line[300];
    int step = last_checkpoint(out);
    if (!step) fail_msg("%s has no checkpoint", out);
    snprintf(line, sizeof line, "$Q pretrain $A out=%s train.batch=%d train.steps=%d %s", out, global_batch, step + 1,
             more);
    must(line);
    assert_int_equal(last_checkpoint(out), step + 1);
}

void wait_for_checkpoint(pid_t m, const char *out, int step) {
    siginfo_t ended = {.si_pid = 0};
    for (double begin = now(); last_checkpoint(out) < step; nap(0.01)) {
        waitid(P_PID, (id_t)m, &ended, WEXITED | WNOHANG | WNOWAIT);
        if (ended.si_pid || now() - begin > PATIENCE)
            fail_msg("%s %s step %d: %s", out, ended.si_pid ? "ended before" : "does not come to", step, end_of(out));
    }
}

void no_process_is_left(const char *out) {
    double begin = now();
    pid_t left = 0;
    while ((left = find_process(out, -1)) && now() - begin < 10) nap(0.05);
    if (left) fail_msg("process %d of %s is still there", (int)left, out);
}

int sentences(const char *text, const char *a, const char *b, const char *c) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, "qformer"));) {
        char line[1000];
        size_t len = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)len, p);
        bool speaks = strncmp(p, "qformer: ", 9) == 0 || strncmp(p, "qformer pretrain: ", 18) == 0;
        n += speaks && strstr(line, a) && strstr(line, b) && strstr(line, c);
        p += speaks ? len : 7;
    }
    return n;
}

void said(const char *out, int least, int most, const char *a, const char *b, const char *c) {
    char name[80];
    snprintf(name, sizeof name, "%s.txt", out);
    int n = sentences(text_of(name), a, b, c);
    if (n < least || n > most)
        fail_msg("'%s ... %s ... %s' was said by %d ranks, not by %d to %d: %s", a, b, c, n, least, most, end_of(out));
}

void terminated(int ranks, int victim, const char *more, int step, int global_batch, const char *then) {
    pid_t m = train(ranks, "term", more);
    wait_for_checkpoint(m, "term", step);
    send_to("term", victim, SIGTERM);
    assert_int_equal(finish(m), 0);
    assert_int_equal(count(end_of("term"), "stopped after step"), 1);
    no_process_is_left("term");
    goes_on("term", global_batch, then);
}

void need_ranks(void) {
    if (!able) skip();
}

void prepare_local_shards(const char *name) {
    char line[400];
    snprintf(line, sizeof line,
             "mkdir %s %s/0 %s/1 && for r in 0 1; do cp vocab.txt %s/$r/ && cp -r set %s/$r/set; done", name, name,
             name, name, name);
    must(line);
    snprintf(line, sizeof line,
             "cd %s && s=$(ls 0/set | grep -v manifest) && set -- $s && rm 0/set/$2 1/set/$1 && test $# = 2", name);
    must(line);
}

pid_t train_local(const char *name, const char *more) {
    char line[1000], log[64];
    int n = snprintf(line, sizeof line, "exec $M");
    for (int r = 0; r < 2; r++)
        n += snprintf(line + n, sizeof line - (size_t)n,
                      " %s-np 1 -wdir $PWD/%s/%d $Q pretrain $A data.train=set/manifest.json "
                      "data.local_shards=true train.batch=6 out=$PWD/%s/out %s",
                      r ? ": " : "", name, r, name, more);
    snprintf(log, sizeof log, "%s.txt", name);
    return start(log, line);
}

void poison_rank_1(const char *name) {
    char path[300];
    snprintf(path, sizeof path, "ls %s/1/set | grep h5$", name);
    must(path);
    char *shard = text_of("must.txt");
    snprintf(path, sizeof path, "%s/%s/1/set/%.*s", dir, name, (int)strcspn(shard, "\n"), shard);
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

int ranks_setup(const char *options, const char *condition) {
    const char *b = getenv("QFORMER_BIN");
    char bin[4096], line[1000];                              /* absolute: some ranks run in folders of their own */
    if (!mkdtemp(dir) || !realpath(b ? b : "build/qformer", bin)) return -1;
    snprintf(line, sizeof line, "%s dist.timeout_s=%d %s", COMMON, PATIENCE, options);
    setenv("Q", bin, 1);
    setenv("A", line, 1);
    setenv("M", "mpirun --oversubscribe --bind-to none", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMPI_MCA_orte_tmpdir_base", dir, 1);             /* what a killed mpirun leaves goes with the folder */
    setenv("OMPI_MCA_btl_vader_backing_directory", dir, 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);             /* of MPI's own, as the order of its locks */
    setenv("TSAN_OPTIONS", "detect_deadlocks=0", 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    snprintf(line, sizeof line, "command -v mpirun && $Q doctor | grep '^MPI' | grep -v none && %s", condition);
    able = finish(start("must.txt", line)) == 0;
    if (!able) return 0;
    must("$Q synth out=scenes.h5 synth.train=96 synth.val=24 synth.test=8 synth.size=32 synth.images=none "
         "synth.facts=false && $Q vocab in=scenes.h5 out=vocab.txt vocab.size=200");
    must("$Q repack in=scenes.h5 out=set/ repack.shard_images=64");
    return 0;
}

int ranks_teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return getenv("KEEP") ? 0 : system(cmd);
}
