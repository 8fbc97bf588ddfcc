/* checkpoint: a save is killed and the disk filled at each of its steps, and what was there before still loads; broken
 * ones are skipped; weights are found in a run's directory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "checkpoints/weights.h"
#include "data/format/outfile.h"

static char dir[64], out[80];

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...) {
    char cmd[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(cmd, sizeof cmd, format, ap);
    va_end(ap);
    assert_int_equal(system(cmd), 0);
}

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/qf_ckpt_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(out, sizeof out, "%s/run", dir);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    outfile_set_hook(NULL);
    shell("rm -rf %s", dir);
    return 0;
}

static size_t count(const char *pattern) {
    char path[160];
    glob_t g;
    snprintf(path, sizeof path, "%s/%s", out, pattern);
    size_t n = glob(path, 0, NULL, &g) == 0 ? g.gl_pathc : 0;
    globfree(&g);
    return n;
}

static int warnings;
static char warning[512];
static void on_warn(void *ctx, const char *sentence) {
    (void)ctx;
    warnings++;
    snprintf(warning, sizeof warning, "%s", sentence);
}

/* A save whose numbers all follow from the step: w = step + i, moments 10 and 100 times that. */
static Status fetch(void *ctx, const CkptPart *part, const StTensor *t, void *dst) {
    (void)part;
    (void)ctx;
    assert_int_equal(t->nbytes, 8);
    float v[2] = {0.5f, 0.25f};
    memcpy(dst, v, sizeof v);
    return OK;
}

static Status save(int64_t step, int keep, bool best) {
    float w[3] = {(float)step, (float)step + 1, (float)step + 2}, m[3], v[3];
    for (int i = 0; i < 3; i++) m[i] = 10 * w[i], v[i] = 100 * w[i];
    StTensor model[] = {{.name = "itm_head.weight", .dtype = DT_F32, .ndim = 2, .shape = {1, 3}, .data = w},
                        {.name = "itm_head.bias", .dtype = DT_F32, .ndim = 1, .shape = {2}}};
    StTensor optim[] = {{.name = "exp_avg.itm_head.weight", .dtype = DT_F32, .ndim = 2, .shape = {1, 3}, .data = m},
                        {.name = "exp_avg_sq.itm_head.weight", .dtype = DT_F32, .ndim = 2, .shape = {1, 3}, .data = v}};
    CkptPart parts[] = {{"model", model, 2}, {"optimizer", optim, 2}};
    char run[96];
    snprintf(run, sizeof run, "{\"seed\": 7, \"config\": \"lr: 1e-4\\n\", \"at\": %d}", (int)step);
    CkptSpec spec = {.out = out, .step = step, .parts = parts, .nparts = 2, .run = run, .keep = keep, .best = best,
                     .fetch = fetch, .warn = on_warn};
    return ckpt_save(&spec);
}

static void expect_step(const Ckpt *c, int64_t step) {
    int64_t at;
    float w[3] = {(float)step, (float)step + 1, (float)step + 2}, b[2] = {0.5f, 0.25f};
    assert_non_null(c);
    assert_int_equal(ckpt_step(c), step);
    assert_memory_equal(st_find(ckpt_part(c, "model"), "itm_head.weight")->data, w, sizeof w);
    assert_memory_equal(st_find(ckpt_part(c, "model"), "itm_head.bias")->data, b, sizeof b);
    const float *v = st_find(ckpt_part(c, "optimizer"), "exp_avg_sq.itm_head.weight")->data;
    assert_true(v[2] == 100 * w[2]);
    assert_true(json_int(json_get(ckpt_run(c), "at"), &at) && at == step);
    assert_string_equal(json_str(json_get(ckpt_run(c), "config"), NULL), "lr: 1e-4\n");
    assert_null(ckpt_part(c, "ema"));
    assert_null(ckpt_part(c, "mode"));
}

static void expect_latest(int64_t step) {
    Ckpt *c;
    if (ckpt_find_latest(&c, out, on_warn, NULL) != OK) fail_msg("%s", err_message());
    expect_step(c, step);
    ckpt_close(c);
}

static void start(void) {
    outfile_set_hook(NULL);
    shell("rm -rf %s", out);
    warnings = 0;
}

/* ---- saving and rotating ---- */

static void saves_and_finds(void **state) {
    (void)state;
    Ckpt *c;
    start();
    assert_int_equal(ckpt_find_latest(&c, out, NULL, NULL), OK);
    assert_null(c);
    assert_int_equal(save(5, 2, false), OK);
    assert_int_equal(save(1000000, 2, false), OK);
    expect_latest(1000000);
    assert_int_equal(ckpt_find_named(&c, out, "latest"), OK);
    expect_step(c, 1000000);
    ckpt_close(c);
    assert_int_equal(ckpt_find_named(&c, out, "best"), ERR_IO);
    CkptSpec wrong = {.out = out, .step = 1, .run = "[]"};
    assert_int_equal(ckpt_save(&wrong), ERR_FORMAT);
    wrong.run = "{";
    assert_int_equal(ckpt_save(&wrong), ERR_FORMAT);
    wrong.run = "{}", wrong.out = "/nonexistent/run";
    assert_int_equal(ckpt_save(&wrong), ERR_IO);
    expect_latest(1000000);
    assert_int_equal(warnings, 0);
}

static void keeps_the_last_and_the_best(void **state) {
    (void)state;
    Ckpt *c;
    start();
    for (int step = 10; step <= 60; step += 10) assert_int_equal(save(step, 2, step == 20), OK);
    assert_int_equal(count("step_*"), 3);
    assert_int_equal(count("step_000020"), 1);
    assert_int_equal(count("step_000050"), 1);
    expect_latest(60);
    assert_int_equal(ckpt_find_named(&c, out, "best"), OK);
    expect_step(c, 20);
    ckpt_close(c);
    assert_int_equal(save(70, 1, true), OK);
    assert_int_equal(count("step_*"), 1);
    assert_int_equal(save(80, 0, false), OK);
    assert_int_equal(count("step_*"), 2);
    int64_t *steps;
    size_t n;
    assert_int_equal(ckpt_list(out, &steps, &n), OK);
    assert_int_equal(n, 2);
    assert_int_equal(steps[0], 80);
    free(steps);
    assert_int_equal(ckpt_step_of("a/b/step_000012"), 12);
    assert_int_equal(ckpt_step_of("step_1234567"), 1234567);
    assert_int_equal(ckpt_step_of("step_000012.tmp-1"), -1);
    assert_int_equal(ckpt_step_of("step_12"), -1);
    assert_int_equal(ckpt_step_of("step_0000012"), -1);
}

static void bytes_depend_on_content_only(void **state) {
    (void)state;
    start();
    assert_int_equal(save(3, 0, false), OK);
    shell("mv %s %s/first", out, dir);
    assert_int_equal(save(3, 0, false), OK);
    assert_int_equal(save(3, 0, false), OK);              /* once more over it */
    shell("diff -r %s %s/first && rm -r %s/first", out, dir, dir);
    assert_int_equal(count("*tmp*"), 0);
}

static void leftovers_of_the_dead_go(void **state) {
    (void)state;
    start();
    pid_t dead = fork();
    if (dead == 0) _exit(0);
    waitpid(dead, NULL, 0);
    shell("mkdir -p %s/step_000001.tmp-%d %s/step_000002.tmp-1 %s/mine.tmp-%d", out, (int)dead, out, out, (int)dead);
    shell("touch %s/step_000001.tmp-%d/model.safetensors %s/latest.tmp-%d", out, (int)dead, out, (int)dead);
    assert_int_equal(save(1, 1, false), OK);
    assert_int_equal(count("step_000001.tmp-*"), 0);
    assert_int_equal(count("latest.tmp-*"), 0);
    assert_int_equal(count("step_000002.tmp-1"), 1);      /* process 1 lives */
    assert_int_equal(count("mine.tmp-*"), 1);             /* not a name of ours */
}

/* ---- broken ones are skipped ---- */

static void broken_ones_are_skipped(void **state) {
    (void)state;
    static const char *const damage[] = {
        "rm %s/step_000002/state.json",
        "rm %s/step_000002/model.safetensors",
        "rm %s/step_000002/optimizer.safetensors",
        "truncate -s -1 %s/step_000002/optimizer.safetensors",
        "truncate -s 0 %s/step_000002/state.json",
        "printf x >> %s/step_000002/model.safetensors",
        "printf x | dd of=%s/step_000002/model.safetensors bs=1 seek=300 conv=notrunc 2>/dev/null",
        "printf x | dd of=%s/step_000002/optimizer.safetensors bs=1 seek=12 conv=notrunc 2>/dev/null",
        "sed -i 's/\"format\": *1/\"format\":2/' %s/step_000002/state.json",
        "sed -i 's/model.safe/..\\/model.safe/' %s/step_000002/state.json",
        "sed -i 's/\"bytes\": */&1/' %s/step_000002/state.json",
        "rm -r %s/step_000002 && touch %s/step_000002",
    };
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        char cmd[256];
        start();
        assert_int_equal(save(1, 0, false), OK);
        assert_int_equal(save(2, 0, false), OK);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(cmd, sizeof cmd, damage[i], out, out);
#pragma GCC diagnostic pop
        shell("%s", cmd);
        Ckpt *c;
        if (ckpt_find_latest(&c, out, on_warn, NULL) != OK) fail_msg("%s: %s", cmd, err_message());
        if (ckpt_step(c) != 1) fail_msg("%s was not noticed", cmd);
        expect_step(c, 1);
        ckpt_close(c);
        assert_int_equal(warnings, 1);
        assert_non_null(strstr(warning, "step_000002"));
        shell("rm %s/step_000001/state.json", out);
        assert_int_equal(ckpt_find_latest(&c, out, NULL, NULL), ERR_FORMAT);
        assert_null(c);
    }
}

/* ---- killed, or out of space, at every step ---- */

static int countdown;

static int no_space(const char *step, const char *path) {
    (void)path;
    (void)step;
    return countdown-- == 0 ? ENOSPC : 0;
}

static int kill_me(const char *step, const char *path) {
    (void)step;
    (void)path;
    if (countdown-- == 0) raise(SIGKILL);
    return 0;
}

static void full_disk_at_every_step(void **state) {
    (void)state;
    int failures = 0;
    for (int n = 0;; n++) {
        start();
        assert_int_equal(save(1, 1, true), OK);
        countdown = n;
        outfile_set_hook(no_space);
        Status st = save(2, 1, true);
        bool reached = countdown < 0;
        outfile_set_hook(NULL);
        if (st != OK) {
            failures++;
            assert_int_equal(st, ERR_IO);
            assert_non_null(strstr(err_message(), strerror(ENOSPC)));
            assert_non_null(strstr(err_message(), "saving step 2"));
        }
        assert_int_equal(count("*.tmp-*"), 0);
        expect_latest(count("step_000002") ? 2 : 1);
        assert_int_equal(save(3, 1, false), OK);           /* space again: all is as ever */
        expect_latest(3);
        if (!reached) break;
    }
    assert_true(failures > 20);
}

static void killed_at_every_step(void **state) {
    (void)state;
    for (int again = 0; again < 2; again++) {              /* a new step, and a step saved over itself */
        for (int n = 0;; n++) {
            int status;
            start();
            assert_int_equal(save(1, 1, true), OK);
            pid_t child = fork();
            if (child == 0) {
                countdown = n;
                outfile_set_hook(kill_me);
                _exit(save(again ? 1 : 2, 1, true) == OK ? 0 : 1);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            expect_latest(count("step_000002") ? 2 : 1);
            Ckpt *c;
            assert_int_equal(ckpt_find_named(&c, out, "best"), OK);    /* the pointers never point to nothing */
            ckpt_close(c);
            assert_int_equal(ckpt_find_named(&c, out, "latest"), OK);
            ckpt_close(c);
            assert_int_equal(save(3, 1, false), OK);
            expect_latest(3);
            assert_int_equal(count("*.tmp-*"), 0);
            assert_int_equal(warnings, 0);
            if (WIFEXITED(status)) {
                assert_int_equal(WEXITSTATUS(status), 0);
                break;
            }
        }
    }
}

/* ---- weights ---- */

static void weights_of_a_run(void **state) {
    (void)state;
    WeightSource *ws;
    char path[160];
    float got[3];
    start();
    assert_int_equal(save(4, 0, false), OK);
    assert_int_equal(save(9, 0, false), OK);
    static const char *const ends[] = {"", "/", "/step_000009", "/step_000009/model.safetensors"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", out, ends[i]);
        if (ws_open(&ws, path, NULL, NULL) != OK) fail_msg("%s", err_message());
        assert_int_equal(ws_count(ws), 2);
        const StTensor *t = ws_find(ws, "itm_head.weight");
        assert_true(t && t->ndim == 2 && t->shape[0] == 1 && t->shape[1] == 3);
        dtype_to_f32(got, t->data, t->dtype, 3);
        assert_true(got[2] == 11);
        assert_null(ws_find(ws, "text_proj.weight"));
        assert_int_equal(ws_checkpoint(ws) ? ckpt_step(ws_checkpoint(ws)) : 9, 9);
        ws_close(ws);
    }
    shell("rm %s/step_000009/state.json", out);
    assert_int_equal(ws_open(&ws, out, on_warn, NULL), OK);
    assert_int_equal(ckpt_step(ws_checkpoint(ws)), 4);
    assert_int_equal(warnings, 1);
    ws_close(ws);
    assert_int_equal(ws_open(&ws, dir, NULL, NULL), ERR_FORMAT);
    assert_int_equal(ws_open(&ws, "/nonexistent", NULL, NULL), ERR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saves_and_finds),
        cmocka_unit_test(keeps_the_last_and_the_best),
        cmocka_unit_test(bytes_depend_on_content_only),
        cmocka_unit_test(leftovers_of_the_dead_go),
        cmocka_unit_test(broken_ones_are_skipped),
        cmocka_unit_test(full_disk_at_every_step),
        cmocka_unit_test(killed_at_every_step),
        cmocka_unit_test(weights_of_a_run),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
