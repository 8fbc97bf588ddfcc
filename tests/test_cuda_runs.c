/* test_cuda_runs: whole commands on a GPU (or under vgpu-run), held against the same commands on the CPU.
 *
 * The CPU in f32 is the yardstick. Random numbers belong to places, not to devices, so both drop the same numbers and
 * draw the same negatives: in f32 a curve is the CPU's to rounding, in bf16 within 2 %. Also: the same bits again,
 * killed or not; every other command gives the CPU's answers; and each thing that can be wrong with a GPU is one
 * sentence. The program is QFORMER_BIN (build/qformer by default). Skipped where there is no GPU.
 *
 * Started with arguments this is the program itself, in which a kernel fails in the middle of a run: bad_launch.h. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

int qformer_main(int argc, char **argv);
#define main qformer_main
#include "qformer.c"
#undef main

#include "data/format/h5.h"
#include "data/format/json.h"
#include "kernels/backend.h"
#include "kernels/base/mem.h"
#include "tests/bad_launch.h"
#include "tests/kit/same_json.h"
#include "tests/kit/tower.h"
#include "tests/kit/weights.h"
#include "kernels/base/status.h"

/* ---- running commands -------------------------------------------------------------------------------------------- */

enum { SECONDS = 120, STEPS = 20, SOME = 12, FEW = 8, SHORT = 5 };

static char dir[64] = "/tmp/qformer-cuda-XXXXXX";
static bool gpu, emulated;

/* Two layers of two heads of 32: the width from which attention runs on tensor cores. */
static const char MODEL[] =
    "model.layers=2 model.hidden=64 model.heads=2 model.queries=4 model.proj=64 model.cross_every=1 model.positions=40 "
    "model.vocab=vocab.txt threads=1 data.threads=1 data.train=scenes.h5 train.batch=8 train.steps=20 optim.lr=3e-4 "
    "optim.warmup_steps=5 optim.schedule=constant train.log_every=1 train.eval_every=0 train.events=false";
static const char USED[] = "in=learned-4 data.test=scenes.h5 threads=1";

/* A shell line in the test's folder; it may use $Q (the program), $T (this program), $A (MODEL), $U (USED). What it
 * says goes to out.txt and err.txt. */
static pid_t start(const char *line) {
    pid_t pid = fork();
    if (pid == 0) {
        int out, err;
        if (chdir(dir) != 0) _exit(126);
        out = open("out.txt", O_WRONLY | O_CREAT | O_TRUNC, 0644);
        err = open("err.txt", O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(out, 1);
        dup2(err, 2);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* Exit code, or 1000 + signal. */
static int finish(pid_t pid) {
    int status = 0;
    double begin = status_clock();
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (status_clock() - begin > SECONDS) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("a command did not end within %d s", SECONDS);
        }
        nap();
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char *text_of(const char *name) {
    static char text[2][1 << 20];
    static int k;
    char path[300], *t = text[k ^= 1];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(t, 1, sizeof text[0] - 1, f) : 0;
    if (f) fclose(f);
    t[n] = 0;
    return t;
}

ERR_PRINTF(1, 2) static bool is_there(const char *fmt, ...) {
    char name[200], path[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, R_OK) == 0;
}

ERR_PRINTF(1, 2) static void must(const char *fmt, ...) {
    char line[1000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    int code = finish(start(line));
    if (code) fail_msg("'%s' ended with %d: %s", line, code, text_of("err.txt"));
}

/* Trains once under that name, whoever asks first. */
static const char *trained(const char *name, const char *options) {
    if (!is_there("%s/latest", name)) must("exec $Q pretrain $A out=%s %s", name, options);
    return name;
}

static const char *bf16_on_gpu(void) {
    return trained("bf16", "device=cuda precision=bf16 train.steps=12 train.save_every=4");
}
static const char *f32_on_gpu(void) { return trained("f32", "device=cuda precision=f32"); }
static const char *f32_on_cpu(void) { return trained("f32-cpu", "device=cpu precision=f32"); }

/* What has learned something tells more kinds of mistakes apart than fresh weights do. */
#define LEARN " train.steps=200 optim.lr=2e-3 device=cpu precision=f32"
static const char *learned_1(void) { return trained("learned-1", "model.queries=1" LEARN); }
static const char *learned_4(void) { return trained("learned-4", "model.queries=4" LEARN); }

/* The command ends with 1 and one sentence, which has these words in it (NULL at the end). An emulated GPU also tells
 * what it found wrong. */
static void refused(const char *line, ...) {
    int code = finish(start(line)), sentences = 0;
    char *said = text_of("err.txt"), sentence[1024] = "", *save = NULL;
    if (code != 1) fail_msg("'%s' ended with %d: %s", line, code, said);
    bool of_vgpu = false;
    for (char *s = strtok_r(said, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
        of_vgpu = strncmp(s, "vgpu", 4) == 0 || (of_vgpu && *s == ' ');
        if (of_vgpu) continue;
        sentences++;
        snprintf(sentence, sizeof sentence, "%s", s);
    }
    if (sentences != 1 || strncmp(sentence, "qformer ", 8))
        fail_msg("'%s' said %d things, '%s'", line, sentences, sentence);
    va_list ap;
    va_start(ap, line);
    for (const char *word; (word = va_arg(ap, const char *));)
        if (!strstr(sentence, word)) fail_msg("'%s' is missing in: %s", word, sentence);
    va_end(ap);
}

/* ---- what a run left --------------------------------------------------------------------------------------------- */

typedef struct { double of[STEPS + 1][4]; int n; } Curve;

static Status add_step(void *ctx, int64_t index, const Json *item) {
    static const char *const keys[] = {"itc", "itm", "itg", "grad_norm"};
    Curve *c = ctx;
    int64_t step;
    (void)index;
    if (!json_get(item, "loss") || !json_int(json_get(item, "step"), &step) || step < 1 || step > STEPS) return OK;
    for (int k = 0; k < 4; k++) json_num(json_get(item, keys[k]), &c->of[step][k]);
    c->n = (int)step;
    return OK;
}

static void read_curve(Curve *c, const char *out) {
    char path[300];
    memset(c, 0, sizeof *c);
    snprintf(path, sizeof path, "%s/%s/log.jsonl", dir, out);
    assert_int_equal(json_each(path, add_step, c), OK);
}

/* The largest difference of a loss (with `norms`, of the gradient's norm too) of the first n steps, as a part of it. */
static double apart(const char *a, const char *b, int n, bool norms) {
    Curve x, y;
    double most = 0;
    read_curve(&x, a);
    read_curve(&y, b);
    for (int s = 1; s <= n; s++)
        for (int k = 0; k < 3 + norms; k++) {
            if (!(x.of[s][k] > 0 && y.of[s][k] > 0)) fail_msg("%s and %s: step %d is not in both", a, b, s);
            most = fmax(most, fabs(x.of[s][k] - y.of[s][k]) / y.of[s][k]);
        }
    return most;
}

static void close_to(const char *a, const char *b, int n, bool norms, double limit) {
    double d = apart(a, b, n, norms);
    print_message("  %s and %s: %.2g apart in %d steps\n", a, b, d, n);
    if (!(d <= limit)) fail_msg("%s is %.3g from %s in %d steps, %g is allowed", a, d, b, n, limit);
}

static void same_bits(const char *a, const char *b, int step) {
    static const char *const files[] = {"model", "optimizer"};
    for (int k = 0; k < 2; k++)
        must("f=step_%06d/%s.safetensors; cmp %s/$f %s/$f", step, files[k], a, b);
}

/* ---- the same answers -------------------------------------------------------------------------------------------- */

/* `name` of the folders cuda and cpu. */
static void same_answer(const char *name, double limit) {
    char a[128], b[128];
    snprintf(a, sizeof a, "cuda/%.100s", name);
    snprintf(b, sizeof b, "cpu/%.100s", name);
    same_results(text_of(a), text_of(b), name, limit);
}

/* A command, perhaps on what learned, in f32 on both devices: files in the folders cuda and cpu. */
static void on_both(const char *command) {
    learned_4();
    must("mkdir -p cuda cpu");
    for (int k = 0; k < 2; k++) {
        const char *d = k ? "cpu" : "cuda";
        must("out=%s; exec $Q %s device=%s precision=f32", d, command, d);
    }
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

/* One query: the best of several changes hands with the rounding, and a curve jumps (by up to a tenth, on the CPU as
 * well) without being wrong. */
static void bf16_from(const char *gpu_run, const char *cpu_run, int steps, const char *options) {
    static const char line[] = "exec $Q finetune $A train.init=%s model.queries=1 train.steps=%d %s out=%s %s";
    must(line, learned_1(), steps, options, gpu_run, "device=cuda precision=bf16");
    must(line, learned_1(), steps, options, cpu_run, "device=cpu precision=f32");
    close_to(gpu_run, cpu_run, steps, false, 0.02);
}

static void options_in_bf16(void) {
    bf16_from("all", "all-cpu", SHORT, "optim.accum=2 loss.itc_gradient=full loss.image_ids=true");
}

static void bf16_follows_the_cpu(void) { bf16_from("one", "one-cpu", STEPS, ""); }

static void f32_is_the_cpu(void) { close_to(f32_on_gpu(), f32_on_cpu(), STEPS, true, 1e-4); }

/* Threads, blocks and streams in another order, where the GPU is emulated. */
static void repeated_is_the_same_bits(void) {
    must("VGPU_SEED=7 exec $Q pretrain $A out=again device=cuda precision=bf16 train.steps=%d", SOME);
    same_bits(bf16_on_gpu(), "again", SOME);
}

static void killed_is_the_same_bits(void) {
    static const char line[] =
        "exec $Q pretrain $A out=killed device=cuda precision=bf16 train.steps=12 train.save_every=1";
    int code = 0;
    for (int tries = 0; tries < 5 && code != 1000 + SIGKILL; tries++) {
        must("rm -rf killed");
        pid_t pid = start(line);
        double begin = status_clock();
        while (!is_there("killed/step_000004/state.json") && status_clock() - begin < SECONDS) nap();
        kill(pid, SIGKILL);
        code = finish(pid);
    }
    assert_int_equal(code, 1000 + SIGKILL);
    assert_false(is_there("killed/step_%06d/state.json", SOME));
    must("%s", line);
    same_bits(bf16_on_gpu(), "killed", SOME);
}

/* Each changes the curve (or, in pieces, must not), and the GPU does as the CPU. */
static void options_are_the_cpus(void) {
    static const struct { const char *name, *options; bool same; } cases[] = {
        {"pieces", "optim.accum=2", true},
        {"full", "loss.itc_gradient=full", false},
        {"ids", "loss.image_ids=true", false},
        {"hardest", "loss.negatives=hardest optim.clip=1 optim.ema=0.9", false},
    };
    char a[32], b[32], options[200];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        snprintf(a, sizeof a, "%s-cuda", cases[k].name);
        snprintf(b, sizeof b, "%s-cpu", cases[k].name);
        snprintf(options, sizeof options, "%s train.steps=%d precision=f32 device=cuda", cases[k].options, SHORT);
        trained(a, options);
        snprintf(options, sizeof options, "%s train.steps=%d precision=f32 device=cpu", cases[k].options, SHORT);
        trained(b, options);
        close_to(a, b, SHORT, true, 1e-4);
        if (cases[k].same != (apart(a, f32_on_cpu(), SHORT, false) < 1e-4))
            fail_msg("%s does not do what it says", cases[k].options);
    }
}

/* A checkpoint does not know where it was made. */
static void goes_on_elsewhere(void) {
    must("rm -rf moved");
    must("exec $Q pretrain $A out=moved device=cuda precision=f32 train.steps=3");
    must("exec $Q pretrain $A out=moved device=cpu precision=f32 train.steps=4");
    must("exec $Q pretrain $A out=moved device=cuda precision=f32 train.steps=5");
    close_to("moved", f32_on_cpu(), SHORT, true, 1e-4);
}

static void finetunes_as_the_cpu(void) {
    on_both("finetune $A train.init=learned-4 out=$out/fine train.steps=3 optim.freeze=*layer.0.*");
    close_to("cuda/fine", "cpu/fine", 3, true, 1e-4);
    if (apart("cuda/fine", f32_on_cpu(), 3, false) < 0.1) fail_msg("it did not begin with the weights it was given");
}

static void validates_as_the_cpu(void) {
    on_both("pretrain $A out=$out/watched train.steps=4 train.eval_every=2 optim.ema=0.9");
    same_answer("watched/log.jsonl", 1e-4);
    assert_non_null(strstr(text_of("cuda/watched/log.jsonl"), "\"eval\""));
}

/* ---- every other command ----------------------------------------------------------------------------------------- */

static void retrieves_as_the_cpu(void) {
    on_both("retrieval $U out=$out retrieval.k=6");
    same_answer("retrieval.json", 1e-4);
    same_answer("retrieval.jsonl", 1e-4);
}

static void captions_as_the_cpu(void) {
    static const char *const modes[] = {"greedy", "beam"};
    for (int k = 0; k < 2; k++) {
        char options[200];
        snprintf(options, sizeof options, "caption $U out=$out/%s.json caption.mode=%s %s", modes[k], modes[k],
                 "caption.min_length=3 caption.max_length=12");
        on_both(options);
        snprintf(options, sizeof options, "%s.json", modes[k]);
        same_answer(options, 0);
    }
}

static void matches_as_the_cpu(void) {
    on_both("match $U out=$out");
    same_answer("match.jsonl", 1e-4);
    must("exec $Q match $U device=cuda precision=bf16 out=cuda overwrite=true");
    same_answer("match.jsonl", 0.05);
}

static void classifies_as_the_cpu(void) {
    must("printf 'circle\\nsquare\\ntriangle\\nring\\n' >names.txt");
    on_both("classify $U out=$out classify.names=names.txt 'classify.templates=a picture of a {}'");
    same_answer("classify.json", 1e-4);
    same_answer("classify.jsonl", 1e-4);
}

static float *floats_of(const char *name, const char *what, int64_t *n) {
    char path[300];
    H5File *f = NULL;
    H5Info info;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(h5_open(&f, path), OK);
    assert_int_equal(h5_info(f, what, &info), OK);
    float *x = mem_new((size_t)info.count, sizeof *x);
    assert_int_equal(h5_get(f, what, &info, H5K_F32, x), OK);
    h5_close(f);
    *n = info.count;
    return x;
}

static void embeds_as_the_cpu(void) {
    static const char *const parts[] = {"/images/queries", "/texts/features"};
    on_both("embed $U out=$out");
    for (int k = 0; k < 2; k++) {
        int64_t n, m;
        float *x = floats_of("cuda/embeddings.h5", parts[k], &n), *y = floats_of("cpu/embeddings.h5", parts[k], &m);
        assert_int_equal(n, m);
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(x[i] - y[i]) <= 1e-4f))
                fail_msg("%s: number %lld is %g, not %g", parts[k], (long long)i, (double)x[i], (double)y[i]);
        free(x);
        free(y);
    }
}

static void reports_as_the_cpu(void) {
    on_both("report $U out=$out");
    same_answer("report.json", 1e-4);
    assert_non_null(strstr(text_of("cuda/report.html"), "<th>device of this page</th><td>cuda in f32</td>"));
}

static void extracts_as_the_cpu(void) {
    must("printf '[{\"image\": \"test/000000.png\", \"caption\": \"a\"},"
         " {\"image\": \"test/000001.png\", \"caption\": \"b\"}]' >pairs.json");
    must("for d in cuda cpu; do $Q extract extract.annotations=pairs.json in=. out=$d.h5 extract.encoder=patches "
         "extract.size=32 extract.patch=16 device=$d || exit 1; done; cmp cuda.h5 cpu.h5");
}

/* The features of a set, and how far the farthest of a set's is away from them. */
static float *features_of(const char *name) {
    int64_t n;
    float *x = floats_of(name, "/images/features", &n);
    assert_int_equal(n, 12 * 2 * (3 + 64) * 8);
    return x;
}

static double farthest(const char *name, const float *want) {
    float *x = features_of(name);
    double worst = 0;
    for (int64_t i = 0; i < 12 * 2 * (3 + 64) * 8; i++) {
        double d = fabs((double)x[i] - (double)want[i]);
        worst = d <= worst ? worst : d;
    }
    free(x);
    return worst;
}

/* Pictures through an encoder to a set: two lanes of batches there, of which the last is not full. */
static void encodes_as_the_cpu(void) {
    char path[128];
    snprintf(path, sizeof path, "%s/tower.safetensors", dir);
    weights_text(path, tower_dinov3);
    must("for k in cuda:f32 cpu:f32 cuda:bf16; do $Q extract in=test out=${k#*:}-${k%%:*}.h5 "
         "extract.encoder=tower.safetensors extract.heads=2 extract.size=16 extract.batch=5 extract.views=2 "
         "extract.dtype=f32 threads=1 device=${k%%:*} precision=${k#*:} || exit 1; done");
    float *cpu = features_of("f32-cpu.h5");
    double wide = farthest("f32-cuda.h5", cpu), half = farthest("bf16-cuda.h5", cpu);
    print_message("  f32 %.2g, bf16 %.2g\n", wide, half);
    assert_true(wide <= 1e-4 && half <= 0.1 && half > wide);
    free(cpu);
}

/* ---- what can be wrong with a GPU -------------------------------------------------------------------------------- */

static void too_large_is_a_sentence(void) {
    refused("exec $Q pretrain $A out=none device=cuda model.layers=96 model.hidden=16384", " GiB are needed (weights ",
            "a smaller train.batch", " GiB are wanted in one piece, ", NULL);
    if (emulated) {
        refused("VGPU_MEM_MB=80 exec $Q pretrain $A out=none device=cuda", "GiB are wanted", "of 0.08 GiB", NULL);
        refused("VGPU_MEM_MB=16 exec $Q pretrain $A out=none device=cuda", "GiB are wanted", "of 0.02 GiB", NULL);
        learned_4();
        refused("VGPU_MEM_MB=40 exec $Q retrieval $U device=cuda", "GiB are wanted", "of 0.04 GiB", NULL);
    }
    assert_false(is_there("none"));
}

static void no_gpu_is_a_sentence(void) {
    refused("VGPU_DEVICES=0 CUDA_VISIBLE_DEVICES= exec $Q pretrain $A out=none device=cuda", "no GPU is visible here",
            "device=cpu works", NULL);
    assert_false(is_there("none"));
    must("VGPU_DEVICES=0 CUDA_VISIBLE_DEVICES= exec $Q pretrain $A out=auto device=auto train.steps=1");
    assert_non_null(strstr(text_of("out.txt"), "\ndevice    cpu in "));
    must("exec $Q pretrain $A out=auto device=auto train.steps=2");
    assert_non_null(strstr(text_of("out.txt"), "\ndevice    cuda in bf16"));
}

static void too_old_is_a_sentence(void) {
    if (!emulated) skip();
    refused("VGPU_CC=75 exec $Q pretrain $A out=none device=cuda", "has compute capability 7.5; 8.0 (A100) or newer",
            NULL);
    assert_false(is_there("none"));
}

/* The sentence names the step, and the kernel where launches wait for it (else the last ones enqueued). What was saved
 * before it loads, and the run ends as if nothing had been. */
static void a_failing_kernel_is_a_sentence(void) {
    char step[32];
    Curve c;
    refused("VGPU_ABORT=0 FAULT=sum_rows:14 "
            "exec $T pretrain $A out=fault device=cuda precision=bf16 train.save_every=1",
            "qformer pretrain: step ", "illegal memory access", "last enqueued: ", NULL);
    read_curve(&c, "fault");
    assert_in_range(c.n, 1, FEW - 2);
    snprintf(step, sizeof step, "pretrain: step %d: ", c.n + 1);
    assert_non_null(strstr(text_of("err.txt"), step));
    assert_true(is_there("fault/step_%06d/state.json", c.n));
    assert_false(is_there("fault/step_%06d", c.n + 1));
    must("exec $T pretrain $A out=fault device=cuda precision=bf16 train.steps=%d", FEW);
    assert_null(strstr(text_of("out.txt"), "step 1/"));
    same_bits(bf16_on_gpu(), "fault", FEW);
    refused("VGPU_ASYNC=0 CUDA_LAUNCH_BLOCKING=1 VGPU_ABORT=0 FAULT=sum_rows:2 "
            "exec $T pretrain $A out=none device=cuda precision=bf16",
            "step 1: ", "failed in embed_bwd (rows) of ", NULL);
}

/* ---- setting up -------------------------------------------------------------------------------------------------- */

static int setup(void **state) {
    (void)state;
    const char *b = getenv("QFORMER_BIN");
    const Backend *cuda;
    static char q[4096], t[4096];
    gpu = backend_cuda(&cuda, DT_BF16, 0) == OK;
    if (!gpu) print_message("no GPU: %s\n", err_message());
    emulated = access("/dev/nvidiactl", F_OK) != 0;
    if (!gpu) return 0;
    if (!mkdtemp(dir) || !realpath(b ? b : "build/qformer", q) || !realpath("/proc/self/exe", t)) return -1;
    setenv("Q", q, 1);
    setenv("T", t, 1);
    setenv("A", MODEL, 1);
    setenv("U", USED, 1);
    setenv("OMP_NUM_THREADS", "1", 1);                   /* it is all small: threads would only wait for one another */
    setenv("VGPU_BLAS_THREADS", "1", 1);
    must("exec $Q synth out=scenes.h5 synth.train=24 synth.val=12 synth.test=12 synth.size=32 synth.facts=false");
    must("exec $Q vocab in=scenes.h5 out=vocab.txt vocab.size=200");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return !gpu || getenv("KEEP") ? 0 : system(cmd);
}

typedef void Test(void);

static void on_a_gpu(void **state) {
    if (!gpu) skip();
    (*(Test **)*state)();
}

#define TEST(name) { #name, on_a_gpu, NULL, NULL, &(Test *){name} }

int main(int argc, char **argv) {
    if (argc > 1) return qformer_main(argc, argv);
    const struct CMUnitTest tests[] = {
        TEST(bf16_follows_the_cpu), TEST(f32_is_the_cpu), TEST(repeated_is_the_same_bits),
        TEST(killed_is_the_same_bits), TEST(options_are_the_cpus), TEST(options_in_bf16), TEST(goes_on_elsewhere),
        TEST(finetunes_as_the_cpu), TEST(validates_as_the_cpu), TEST(retrieves_as_the_cpu), TEST(captions_as_the_cpu),
        TEST(matches_as_the_cpu), TEST(classifies_as_the_cpu), TEST(embeds_as_the_cpu), TEST(reports_as_the_cpu),
        TEST(extracts_as_the_cpu), TEST(encodes_as_the_cpu), TEST(too_large_is_a_sentence), TEST(no_gpu_is_a_sentence),
        TEST(too_old_is_a_sentence), TEST(a_failing_kernel_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
