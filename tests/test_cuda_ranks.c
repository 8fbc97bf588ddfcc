/* test_cuda_ranks: several processes, a GPU each (through vgpu-run: four emulated ones).
 *
 * The curve of 1 to 4 ranks is that of the CPU; every way to join gradients; checkpoints that do not know how many
 * ranks, or which device, wrote them; and ranks that are killed, stopped, asked to end or spoilt while the others' GPUs
 * wait for them in a collective. Skipped where there are no GPU and mpirun; so is what needs more GPUs than there are.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/kit/check.h"
#include "tests/kit/ranks.h"

enum { STEPS = 20, FEW = 4 };                /* of the main curve; where fewer prove as much */

static int gpus;

static void need_gpus(int n) {
    need_ranks();
    if (n <= gpus) return;
    print_message("%d GPUs are needed, here are %d\n", n, gpus);
    skip();
}

/* ---- the same numbers -------------------------------------------------------------------------------------------- */

static void same_curve_on_cpu_and_1_to_4_ranks(void **state) {
    (void)state;
    need_gpus(2);
    Curve cpu, c[5];
    pid_t m[5];
    char more[200], out[24], what[40];
    for (int n = 1; n <= 4 && n <= gpus; n++) {              /* all at once, as long as nothing is measured */
        snprintf(out, sizeof out, "w%d", n);
        snprintf(more, sizeof more, "train.batch=%d train.steps=%d train.save_every=0", 12 / n, STEPS);
        m[n] = train(n, out, more);
    }
    snprintf(more, sizeof more, "train.batch=12 train.steps=%d train.save_every=0 device=cpu", STEPS);
    trained(1, "cpu", more);
    read_curve(&cpu, "cpu");
    for (int n = 1; n <= 4 && n <= gpus; n++) {
        snprintf(out, sizeof out, "w%d", n);
        ended_well(m[n], out);
        read_curve(&c[n], out);
        snprintf(what, sizeof what, "CPU, %d GPU%s", n, n > 1 ? "s" : "");
        alike(what, &cpu, &c[n], 1, STEPS, 1e-4);
        snprintf(what, sizeof what, "one GPU, %d GPUs", n);
        if (n > 1) alike(what, &c[1], &c[n], 1, STEPS, 1e-5);
    }
}

/* Two GPUs against one. */
static void other_ways_to_join_gradients(void **state) {
    (void)state;
    need_gpus(2);
    static const struct { const char *name, *more; double tolerance; } ways[] = {
        {"zero", "dist.zero=true optim.ema=0.9 optim.clip=2", 1e-5},
        {"half", "dist.wire=bf16", 1e-3},
        {"full", "loss.itc_gradient=full", 1e-5},
        {"accum", "optim.accum=2", 1e-5},
        {"bf16", "precision=bf16", 0.05}};                   /* of 8.6 at the start: 0.6 % */
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        Curve c[3];
        pid_t m[3];
        char more[200], name[40];
        for (int n = 1; n <= 2; n++) {
            snprintf(more, sizeof more, "%s train.batch=%d train.steps=%d train.save_every=0", ways[i].more, 12 / n,
                     FEW);
            snprintf(name, sizeof name, "%s%d", ways[i].name, n);
            m[n] = train(n, name, more);
        }
        for (int n = 1; n <= 2; n++) {
            snprintf(name, sizeof name, "%s%d", ways[i].name, n);
            ended_well(m[n], name);
            read_curve(&c[n], name);
        }
        alike(ways[i].more, &c[1], &c[2], 1, FEW, ways[i].tolerance);
    }
}

static void save_with_4_resume_with_1_and_on_the_cpu(void **state) {
    (void)state;
    need_gpus(4);
    Curve whole, c;
    char line[400], more[200];
    snprintf(more, sizeof more, "train.batch=3 train.save_every=%d train.steps=%d", FEW / 2, FEW);
    trained(4, "four", more);
    read_curve(&whole, "four");
    for (int cpu = 0; cpu < 2; cpu++) {
        const char *out = cpu ? "to_cpu" : "to_one";
        snprintf(line, sizeof line, "mkdir %s && cp -r four/step_%06d %s/", out, FEW / 2, out);
        must(line);
        snprintf(more, sizeof more, "train.batch=12 train.save_every=0 train.steps=%d %s", FEW,
                 cpu ? "device=cpu" : "");
        trained(1, out, more);
        read_curve(&c, out);
        assert_int_equal(c.n, FEW);
        assert_true(c.loss[FEW / 2][0] == 0);                /* it did start from the checkpoint */
        alike(cpu ? "4 GPUs, then the CPU" : "4 GPUs, then one", &whole, &c, FEW / 2 + 1, FEW, cpu ? 1e-4 : 1e-5);
    }
}

/* ---- what can go wrong ------------------------------------------------------------------------------------------- */

static const char *const LONG = "train.batch=2 train.steps=100000 train.save_every=2";

static void terminated_on_one_rank(void **state) {
    (void)state;
    need_gpus(3);
    terminated(3, 2, LONG, 2, 6, "device=cpu");
}

/* In the middle of a step: whether dist, NCCL or the watch over the device notices first, a sentence from each. */
static void killed(void **state) {
    (void)state;
    need_gpus(3);
    pid_t m = train(3, "killed", LONG);
    wait_for_checkpoint(m, "killed", 2);
    nap(0.1);
    send_to("killed", 1, SIGKILL);
    assert_int_not_equal(finish(m), 0);
    said("killed", 2, 2, "rank 1", "gone", " in step ");
    no_process_is_left("killed");
    goes_on("killed", 6, "device=cpu");
}

static void stopped(void **state) {
    (void)state;
    need_gpus(3);
    char more[160];
    snprintf(more, sizeof more, "%s dist.timeout_s=%d", LONG, 2 * TIMEOUT);
    pid_t m = train(3, "stopped", more);
    wait_for_checkpoint(m, "stopped", 2);
    nap(0.1);
    double begin = now();
    send_to("stopped", 0, SIGSTOP);
    assert_int_not_equal(finish(m), 0);
    assert_true(now() - begin < 2 * TIMEOUT + 20);
    said("stopped", 2, 3, "rank 0 (process", "which is stopped)", " in step ");
    no_process_is_left("stopped");
    goes_on("stopped", 6, "device=cpu");
}

static void not_a_number_on_one(void **state) {
    (void)state;
    need_gpus(2);
    prepare_local_shards("nan");
    poison_rank_1("nan");
    assert_int_equal(finish(train_local("nan", "train.steps=100 data.verify_crc=false optim.on_nonfinite=stop")), 1);
    said("nan", 2, 2, "is not finite", "first on rank 1", "step ");
    no_process_is_left("nan/out");
}

static int setup(void **state) {
    (void)state;
    setenv("VGPU_DEVICES", "4", 0);
    setenv("VGPU_THREADS", "1", 0);
    setenv("VGPU_NCCL_ON_ERROR", "async", 0);                /* as a GPU does: the host is told, not ended */
    int failed = ranks_setup("model.hidden=64 model.ffn=64 data.max_tokens=12 device=cuda",
                             "$Q doctor | grep '^GPU' | grep -v none");
    if (failed || !able) return failed;
    must("nvidia-smi -L 2>/dev/null | grep '^GPU' || true");
    gpus = count(text_of("must.txt"), "GPU ");
    if (gpus == 0) gpus = atoi(getenv("VGPU_DEVICES"));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_curve_on_cpu_and_1_to_4_ranks),
        cmocka_unit_test(other_ways_to_join_gradients),
        cmocka_unit_test(save_with_4_resume_with_1_and_on_the_cpu),
        cmocka_unit_test(terminated_on_one_rank),
        cmocka_unit_test(killed),
        cmocka_unit_test(stopped),
        cmocka_unit_test(not_a_number_on_one),
    };
    return cmocka_run_group_tests(tests, setup, ranks_teardown);
}
