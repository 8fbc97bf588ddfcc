/* test_ranks: several processes on the CPU.
 *
 * The same curve on 1 to 4 ranks; checkpoints that do not know how many there were; and everything that can go wrong on
 * one rank while the others wait for it: each of them ends in time, with one sentence that names the rank, and leaves
 * no process behind. Skipped where there is no mpirun, or a program without MPI. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kit/check.h"
#include "tests/kit/ranks.h"
#include "tests/kit/same_json.h"

enum { STEPS = 20 };

/* ---- the same numbers -------------------------------------------------------------------------------------------- */

static void same_curve_on_1_to_4_ranks(void **state) {
    (void)state;
    need_ranks();
    Curve c[5];
    char more[200], out[24], what[40];
    for (int n = 1; n <= 4; n++) {
        snprintf(out, sizeof out, "w%d", n);
        snprintf(more, sizeof more, "train.batch=%d train.steps=%d train.save_every=0 train.eval_every=10", 12 / n,
                 STEPS);
        trained(n, out, more);
        read_curve(&c[n], out);
        assert_int_equal(c[n].n, STEPS);
        assert_int_equal(count(end_of(out), "step 17/20"), 1);           /* one rank speaks */
        snprintf(what, sizeof what, "%d ranks", n);
        if (n > 1) alike(what, &c[1], &c[n], 1, STEPS, 1e-5);
    }
}

static void other_ways_to_join_gradients(void **state) {
    (void)state;
    need_ranks();
    static const struct { const char *name, *more; double tolerance; } ways[] = {
        {"half", "dist.wire=bf16", 1e-3}, {"full", "loss.itc_gradient=full", 1e-5}, {"accum", "optim.accum=2", 1e-5}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        Curve one, several;
        char more[200], name[40];
        for (int n = 1; n <= 3; n += 2) {
            snprintf(more, sizeof more, "%s train.batch=%d train.steps=%d train.save_every=0", ways[i].more, 12 / n,
                     STEPS);
            snprintf(name, sizeof name, "%s%d", ways[i].name, n);
            trained(n, name, more);
            read_curve(n == 1 ? &one : &several, name);
        }
        alike(ways[i].more, &one, &several, 1, STEPS, ways[i].tolerance);
    }
}

/* Optimizer state in parts: the same curve and, saved with 3 ranks, a checkpoint like any other. */
static void sharded_optimizer(void **state) {
    (void)state;
    need_ranks();
    Curve plain, sharded, back;
    char more[200];
    snprintf(more, sizeof more, "train.batch=4 train.steps=%d train.save_every=0 optim.ema=0.9 optim.clip=2", STEPS);
    trained(3, "plain", more);
    strcat(more, " dist.zero=true");
    trained(3, "zero", more);
    read_curve(&plain, "plain");
    read_curve(&sharded, "zero");
    alike("dist.zero", &plain, &sharded, 1, STEPS, 1e-5);
    for (int k = 0; k < 2; k++) { /* sharded goes on plain, plain goes on sharded */
        snprintf(more, sizeof more, "train.batch=4 train.steps=%d train.save_every=0 optim.ema=0.9 optim.clip=2 %s",
                 2 * STEPS, k ? "dist.zero=true" : "");
        trained(3, k ? "plain" : "zero", more);
        read_curve(k ? &back : &sharded, k ? "plain" : "zero");
    }
    alike("exchanged", &back, &sharded, STEPS + 1, 2 * STEPS, 1e-5);
    must("for f in model optimizer ema; do cmp plain/step_000040/$f.safetensors zero/step_000040/$f.safetensors || "
         "exit 1; done");
}

static void save_with_4_resume_with_1_2_and_8(void **state) {
    (void)state;
    need_ranks();
    Curve whole, c;
    char line[400], more[200], out[24], what[40];
    snprintf(more, sizeof more, "train.batch=6 train.save_every=%d train.steps=%d", STEPS / 2, 2 * STEPS);
    trained(4, "four", more);
    read_curve(&whole, "four");
    for (int n = 1; n <= 8; n *= n == 2 ? 4 : 2) {
        snprintf(out, sizeof out, "from4to%d", n);
        snprintf(line, sizeof line, "mkdir %s && cp -r four/step_%06d %s/", out, STEPS, out);
        must(line);
        snprintf(more, sizeof more, "train.batch=%d train.save_every=0 train.steps=%d", 24 / n, 2 * STEPS);
        trained(n, out, more);
        read_curve(&c, out);
        assert_int_equal(c.n, 2 * STEPS);
        snprintf(what, sizeof what, "4 ranks, then %d", n);
        alike(what, &whole, &c, STEPS + 1, 2 * STEPS, 1e-5);
        assert_true(c.loss[STEPS][0] == 0);                              /* it did start from the checkpoint */
    }
    snprintf(more, sizeof more, "train.batch=10 train.steps=%d", 3 * STEPS);
    assert_int_not_equal(finish(train(2, "four", more)), 0);             /* another global batch */
    said("four", 1, 2, "24 pairs a step", "20", "train.batch=10");
}

/* Images, texts and pairs to re-rank are shared out; the answer is that of one process. */
static void evaluation_is_shared_out(void **state) {
    static const char *const results[] = {"retrieval.json", "retrieval.jsonl", "captions.json"};
    (void)state;
    need_ranks();
    trained(1, "learned", "train.batch=12 train.steps=20");
    for (int n = 1; n <= 3; n += 2) {
        char line[400];
        snprintf(line, sizeof line,
                 "o='in=learned data.test=scenes.h5 data.test_split=val device=cpu precision=f32' && "
                 "$M -np %d $Q retrieval $o out=answer%d retrieval.k=6 && "
                 "$M -np %d $Q caption $o out=answer%d/captions.json caption.beams=3",
                 n, n, n, n);
        must(line);
    }
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        char one[64], three[64], *text;
        snprintf(one, sizeof one, "answer1/%s", results[i]);
        snprintf(three, sizeof three, "answer3/%s", results[i]);
        assert_non_null(text = strdup(text_of(one)));
        same_results(text, text_of(three), results[i], 1e-5);
        free(text);
    }
}

static void local_shards(void **state) {
    (void)state;
    need_ranks();
    prepare_local_shards("local");
    assert_int_equal(finish(train_local("local", "train.steps=20")), 0);
    assert_int_equal(count(end_of("local"), "step 20/20"), 1);
}

/* ---- what can go wrong ------------------------------------------------------------------------------------------- */

static const char *const LONG = "train.batch=4 train.steps=1000000 train.save_every=5";

static void terminated_on_one_rank(void **state) {
    (void)state;
    need_ranks();
    terminated(3, 2, LONG, 5, 12, "");
}

/* Seen, not waited for: the time-out is longer than anybody's patience here. */
static void killed(void **state) {
    (void)state;
    need_ranks();
    pid_t m = train(3, "killed", LONG);
    wait_for_checkpoint(m, "killed", 5);
    send_to("killed", 1, SIGKILL);
    assert_int_not_equal(finish(m), 0);
    said("killed", 2, 2, "rank 1 is gone", " in step ", "the ");
    no_process_is_left("killed");
    goes_on("killed", 12, "");
}

static void stopped(void **state) {
    (void)state;
    need_ranks();
    char more[160];
    snprintf(more, sizeof more, "%s train.save_every=50 dist.timeout_s=%d", LONG, TIMEOUT);
    pid_t m = train(3, "stopped", more);
    wait_for_checkpoint(m, "stopped", 50);
    double begin = now();
    send_to("stopped", 0, SIGSTOP);
    assert_int_not_equal(finish(m), 0);
    assert_true(now() - begin < TIMEOUT + 20);
    said("stopped", 2, 3, "rank 0 (process", "which is stopped) did not come to the", " in step ");
    no_process_is_left("stopped");
    goes_on("stopped", 12, "");
}

/* A limit on the size of files stands for a full disk. */
static void full_disk_on_rank_0(void **state) {
    (void)state;
    need_ranks();
    char line[1000];
    trained(3, "disk", "train.batch=4 train.steps=5 train.save_every=5");
    snprintf(line, sizeof line,
             "exec $M -np 1 sh -c 'trap \"\" XFSZ; ulimit -f 40; exec \"$0\" \"$@\"' $Q pretrain $A out=disk %s : "
             "-np 2 $Q pretrain $A out=disk %s",
             LONG, LONG);
    assert_int_equal(finish(start("disk.txt", line)), 1);
    said("disk", 2, 2, "rank 0 failed in step 10", "disk/step_000010", "File too large");
    said("disk", 3, 3, "disk/step_000010", "File too large", "");
    no_process_is_left("disk");
    goes_on("disk", 12, "");
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
    need_ranks();
    assert_int_not_equal(finish(unlike("config", "$Q", "loss.smoothing=0.2")), 0);
    said("config", 1, 1, "rank 1 has another configuration", "smoothing: 0.2", "rank 0");
    no_process_is_left("config");
    assert_int_not_equal(finish(unlike("config2", "$Q", "no.such_option=1")), 0);
    said("config2", 1, 1, "rank 1 failed", "no.such_option", "");
    no_process_is_left("config2");
}

static void other_build(void **state) {
    (void)state;
    need_ranks();
    must("cp $Q other && printf x >>other");
    assert_int_not_equal(finish(unlike("build", "./other", "")), 0);
    said("build", 1, 1, "rank 1 has another build of this program", "hash", "rank 0");
    no_process_is_left("build");
}

static void shard_missing_on_one(void **state) {
    (void)state;
    need_ranks();
    prepare_local_shards("missing");
    must("rm missing/1/set/*.h5");
    assert_int_not_equal(finish(train_local("missing", LONG)), 0);
    said("missing", 1, 1, "rank 1 failed", "no shard for part 1 of 2", "");
    no_process_is_left("missing/out");
}

static void not_a_number_on_one(void **state) {
    (void)state;
    need_ranks();
    prepare_local_shards("nan");
    poison_rank_1("nan");
    assert_int_equal(finish(train_local("nan", "train.steps=100 data.verify_crc=false optim.on_nonfinite=stop")), 1);
    said("nan", 2, 2, "is not finite", "first on rank 1", "step ");
    no_process_is_left("nan/out");
}

/* Every command that works alone says so, once, and nothing else. */
static void commands_that_work_alone(void **state) {
    (void)state;
    need_ranks();
    static const char *const lines[] = {"verify set.h5", "inspect set.h5", "vocab set.h5 out=v.txt", "embed run out=e.h5",
                                        "match run", "classify run", "report run", "score res.json gt=gt.json", "plan",
                                        "export run out=x", "repack set.h5 out=y.h5", "synth out=z.h5"};
    char line[200], wanted[80];
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        snprintf(line, sizeof line, "$M -np 2 $Q %s > alone 2>&1; [ $? != 0 ]", lines[i]);
        must(line);
        snprintf(wanted, sizeof wanted, "%.*s works in one process, here are 2", (int)strcspn(lines[i], " "), lines[i]);
        snprintf(line, sizeof line, "[ $(grep -c 'works in one process' alone) = 1 ] && grep -q '%s' alone", wanted);
        must(line);
    }
}

static int setup(void **state) {
    (void)state;
    return ranks_setup("model.hidden=32 device=cpu", "true");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_curve_on_1_to_4_ranks),
        cmocka_unit_test(other_ways_to_join_gradients),
        cmocka_unit_test(sharded_optimizer),
        cmocka_unit_test(save_with_4_resume_with_1_2_and_8),
        cmocka_unit_test(evaluation_is_shared_out),
        cmocka_unit_test(local_shards),
        cmocka_unit_test(commands_that_work_alone),
        cmocka_unit_test(terminated_on_one_rank),
        cmocka_unit_test(killed),
        cmocka_unit_test(stopped),
        cmocka_unit_test(full_disk_on_rank_0),
        cmocka_unit_test(other_configuration),
        cmocka_unit_test(other_build),
        cmocka_unit_test(shard_missing_on_one),
        cmocka_unit_test(not_a_number_on_one),
    };
    return cmocka_run_group_tests(tests, setup, ranks_teardown);
}
