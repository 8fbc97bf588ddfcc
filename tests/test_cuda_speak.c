/* test_cuda_speak: training of stage 2 and of objective=lm on a GPU (or under vgpu-run) against the same commands on
 * the CPU in f32: losses and norms with what the language model drops, in pieces, features sent ahead; the
 * same bits again after a kill; the same answers and captions. Skipped where there is no GPU. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "kernels/backend.h"
#include "tests/kit/folder.h"
#include "tests/kit/lmfolder.h"

enum { STEPS = 6 };

static bool gpu;

/* By the shell: an emulated GPU compiles its kernels at their first use. */
static void must(const char *line) {
    int code = folder_shell(line);
    if (code) fail_msg("'%s' ended with %d", line, code);
}

#define RUN " data.train=set.h5 train.batch=8 train.steps=6 train.log_every=1 train.eval_every=0 train.watched=0" \
    " train.save_every=2 train.events=false optim.warmup_steps=2 optim.lr=2e-3 threads=1 >>said 2>&1"
#define SPEAK "exec $Q pretrain stage=2 stage2.lm=lm stage2.lm_dropout=true optim.accum=2 data.sample=images" \
    " stage2.texts=3 model.layers=2 model.hidden=64 model.heads=2 model.queries=4 model.cross_every=1"
#define READ "exec $Q pretrain objective=lm model.vocab=words.txt stage2.texts=3 lm.layers=2 lm.hidden=64 lm.heads=2"

static int setup(void **state) {
    const Backend *cuda;
    gpu = backend_cuda(&cuda, DT_BF16, 0) == OK;
    if (folder_setup(state)) return 1;
    if (!gpu) return print_message("no GPU: %s\n", err_message()), 0;
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("VGPU_BLAS_THREADS", "1", 1);
    lmfolder_make("lm", DT_BF16);
    return folder_shell("$Q synth out=set.h5 synth.train=24 synth.val=4 synth.test=4 synth.captions=2 "
                        "synth.questions=2 synth.size=32 >said && "
                        "$Q vocab in=set.h5 out=words.txt vocab.size=300 >>said");
}

typedef struct { double loss[STEPS + 1], norm[STEPS + 1]; } Curve;

static Status add_step(void *ctx, int64_t index, const Json *item) {
    Curve *c = ctx;
    int64_t step;
    (void)index;
    if (!json_int(json_get(item, "step"), &step) || step < 1 || step > STEPS) return OK;
    json_num(json_get(item, "loss"), &c->loss[step]);
    json_num(json_get(item, "grad_norm"), &c->norm[step]);
    return OK;
}

static void close_to(const char *a, const char *b, double limit) {
    Curve x = {{0}, {0}}, y = {{0}, {0}};
    double most = 0;
    assert_int_equal(json_each(folder_path(a), add_step, &x), OK);
    assert_int_equal(json_each(folder_path(b), add_step, &y), OK);
    for (int s = 1; s <= STEPS; s++) {
        if (!(x.loss[s] > 0 && y.loss[s] > 0 && y.norm[s] > 0)) fail_msg("%s and %s: step %d is not in both", a, b, s);
        most = fmax(most, fabs(x.loss[s] / y.loss[s] - 1));
        if (limit < 1e-3) most = fmax(most, fabs(x.norm[s] / y.norm[s] - 1));
    }
    print_message("  %s and %s: %.2g apart\n", a, b, most);
    if (!(most <= limit)) fail_msg("%s is %.3g from %s, %g is allowed", a, most, b, limit);
}

static void speaks_as_the_cpu(void) {
    must(SPEAK " out=cpu device=cpu precision=f32" RUN);
    must(SPEAK " out=cuda device=cuda precision=f32" RUN);
    must(SPEAK " out=half device=cuda precision=bf16" RUN);
    close_to("cuda/log.jsonl", "cpu/log.jsonl", 1e-4);
    close_to("half/log.jsonl", "cpu/log.jsonl", 0.02);
}

/* SIGKILL behind a checkpoint, anywhere in the steps that follow. */
static void killed_is_the_same_bits(void) {
    folder_write("kill.sh", SPEAK " out=killed device=cuda precision=bf16" RUN "\n");
    must("for try in 1 2 3 4 5; do rm -rf killed; sh ./kill.sh & p=$!; n=0; "
         "until [ -e killed/step_000002/state.json ] || [ $n = 60000 ]; do sleep 0.001; n=$((n+1)); done; "
         "kill -9 $p; wait $p 2>/dev/null; [ $? = 137 ] && break; done; [ ! -e killed/step_000006/state.json ]");
    must("sh ./kill.sh");
    must("for f in model optimizer; do "
         "cmp half/step_000006/$f.safetensors killed/step_000006/$f.safetensors || exit 1; done");
}

static void answers_as_the_cpu(void) {
    must("for d in cuda cpu; do $Q ask in=cpu data.test=set.h5 ask.max_new=6 device=$d precision=f32 threads=1 "
         "out=answers-$d.json >>said 2>&1 || exit 1; done; cmp answers-cuda.json answers-cpu.json");
    must("for d in cuda cpu; do $Q caption in=cpu data.test=set.h5 caption.max_length=8 device=$d precision=f32 "
         "threads=1 out=captions-$d.json >>said 2>&1 || exit 1; done; cmp captions-cuda.json captions-cpu.json");
}

static void reads_as_the_cpu(void) {
    must(READ " out=read-cpu device=cpu precision=f32" RUN);
    must(READ " out=read-cuda device=cuda precision=f32" RUN);
    close_to("read-cuda/log.jsonl", "read-cpu/log.jsonl", 1e-4);
}

typedef void Test(void);

static void on_a_gpu(void **state) {
    if (!gpu) skip();
    (*(Test **)*state)();
}

#define TEST(name) { #name, on_a_gpu, NULL, NULL, &(Test *){name} }

int main(void) {
    const struct CMUnitTest tests[] = {TEST(speaks_as_the_cpu), TEST(killed_is_the_same_bits),
                                       TEST(answers_as_the_cpu), TEST(reads_as_the_cpu)};
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
