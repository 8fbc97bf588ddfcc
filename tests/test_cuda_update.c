/* test_cuda_update: an update beside the forward that follows it (AdamSpec.beside) leaves the bits of one in order:
 * weights, moments, running mean, the copy that products read, losses and what a step says of its state, over steps
 * between which weights are read, losses are asked for without a gradient, and one gradient is not finite. And where the
 * GPU is emulated, whose streams run no more than they must: without its waits the same steps are others. Skipped where
 * there is no GPU. No step asks for memory. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/mem.h"
#include "train/stage1.h"
#include "train/trainer.h"

/* Heads of 32: attention runs on tensor cores from there. */
static const Dims DIMS = {.L = 3, .C = 64, .H = 2, .F = 128, .Q = 4, .E = 32, .P = 9, .Z = 16, .V = 90, .N = 16, .X = 2,
                          .T = 8, .pad = 0, .cls = 1, .sep = 2, .dec = 89};
enum { B = 4, STEPS = 5, BROKEN = 3, FEATURES = B * 9 * 32, ARRAYS = 4 };

typedef struct { float *of[ARRAYS]; void *copy; int64_t n; size_t copied; double said[STEPS][5]; } Left;

static const Backend *gpu;

static void no_wait(int number) { (void)number; }
static Status no_memory(void **p, size_t bytes) {
    *p = NULL;
    return err_set(ERR_MEMORY, "%zu bytes in a step", bytes);
}

static void take_flat(const Params *p, Left *l, size_t copied) {
    float *const flat[ARRAYS] = {p->w, p->m, p->v, p->ema};
    l->n = p->total, l->copied = copied;
    for (int k = 0; k < ARRAYS; k++) {
        assert_non_null(l->of[k] = mem_new((size_t)l->n, sizeof(float)));
        p->b->download(l->of[k], flat[k], (size_t)l->n * sizeof(float));
    }
    assert_non_null(l->copy = mem_new(copied, 1));
    p->b->download(l->copy, p->copy, copied);
}

static void steps(Trainer *t, bool beside, Left *l) {
    static float features[FEATURES];
    static int32_t ids[B * 8], len[B];
    const AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .clip = 1, .ema = 0.9f,
                           .beside = beside};
    ObjectiveBatch batch = {.features = features, .dt = DT_F32, .ids = ids, .len = len};
    ObjectiveLosses losses;
    const ParamTensor *bad;
    float row[64];
    for (int s = 0; s < STEPS; s++) {
        for (uint32_t i = 0; i < FEATURES; i++) features[i] = 2 * rng_unit(philox(i, (uint32_t)s, 0, 0, 9, 9).v[0]) - 1;
        if (s == BROKEN) features[7] = INFINITY;
        for (int i = 0; i < B; i++) {
            ids[i * 8] = 1, len[i] = 3 + i;
            for (int k = 1; k < len[i]; k++) ids[i * 8 + k] = k + 1 < len[i] ? 3 + (7 * i + 5 * k + s) % 80 : 2;
        }
        assert_int_equal(trainer_step(t, &batch, NULL, (uint32_t)s, &adam, 1e-2, s + 1, &losses, &bad), OK);
        assert_true(!bad == (s != BROKEN));
        double said[5] = {losses.value[0], losses.value[1], losses.value[2], losses.value[3], *t->norm};
        memcpy(l->said[s], said, sizeof said);
        /* what reads parameters between two steps */
        if (s == 1) params_read(t->params, params_find(t->params, "itm_head.bias"), t->params->w, row);
        if (s == 2) assert_int_equal(trainer_losses(t, &batch, 0, 1.0f, false, &losses), OK);
    }
}

static void train(const Backend *on, bool beside, Left *l) {
    Backend own = *on, *b = &own;
    Trainer t;
    Stage1Spec spec = {.itc = 1, .itm = 0.7f, .itg = 1.3f, .smoothing = 0.1f, .dropout = 0.1f, .seed = 5};
    TrainerSpec ts = {.d = DIMS, .tokens = 8, .features = DT_F32, .params = {.training = true, .ema = true}, .B = B,
                      .micro = 1, .objective = &stage1_objective, .spec = &spec};
    assert_int_equal(trainer_open(&t, b, &ts), OK);
    assert_int_equal(params_init(&t.model.params, 3, 0.08f), OK);
    own.alloc = no_memory;
    steps(&t, beside, l);
    params_arrived(t.params);
    take_flat(t.params, l, (size_t)t.params->total * (size_t)dtype_size(b->elem));
    assert_int_equal(b->status(), OK);
    trainer_close(&t);
}

static bool same(const Left *a, const Left *b) {
    bool all = !memcmp(a->copy, b->copy, a->copied);
    for (int k = 0; k < ARRAYS; k++) all = all && !memcmp(a->of[k], b->of[k], (size_t)a->n * sizeof(float));
    for (int s = 0; s < STEPS; s++) all = all && (s == BROKEN || !memcmp(a->said[s], b->said[s], sizeof a->said[s]));
    return all;
}

static void drop(Left *l) {
    for (int k = 0; k < ARRAYS; k++) free(l->of[k]);
    free(l->copy);
}

static void against_order(DType elem) {
    Left beside, order, blind;
    if (backend_cuda(&gpu, elem, 0) != OK) skip();
    train(gpu, true, &beside);
    train(gpu, false, &order);
    assert_true(same(&beside, &order));
    if (access("/dev/nvidiactl", F_OK) != 0) {
        Backend deaf = *gpu;
        deaf.adamw_wait = no_wait;
        train(&deaf, true, &blind);
        assert_false(same(&beside, &blind));
        drop(&blind);
    }
    drop(&beside);
    drop(&order);
}

static void test_bf16(void **state) {
    (void)state;
    against_order(DT_BF16);
}
static void test_f32(void **state) {
    (void)state;
    against_order(DT_F32);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16), cmocka_unit_test(test_f32)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
