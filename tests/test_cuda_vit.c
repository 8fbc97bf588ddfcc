/* test_cuda_vit: whole image encoders, with every switch of kernels/model/vit.h on in one of them, on the GPU against
 * the CPU in f32, and against the CPU's f32 in bf16, where they may be as far away as the CPU's bf16 is, twice. Skipped
 * where there is no GPU. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/vision_encoder.h"
#include "kernels/base/mem.h"
#include "kernels/model/vit.h"
#include "tests/kit/check.h"
#include "tests/kit/distance.h"
#include "tests/kit/tower.h"
#include "tests/kit/weights.h"

/* CLIP; EVA-02-CLIP: gated, norms everywhere, turned pairs; DINOv3: registers, no table, turned halves; AIMv2: RMS, no
 * cls; InternViT-6B: norms of queries and keys. */
static const struct { const char *name; VitDims d; } models[] = {
    {"clip", {.L = 2, .E = 128, .H = 2, .D = 64, .F = 256, .p = 14, .cls = true, .position = true, .cls_position = true,
              .pre = true, .act = ACT_GELU_QUICK, .eps = 1e-5f}},
    {"eva02", {.L = 2, .E = 96, .H = 4, .D = 24, .F = 136, .p = 7, .cls = true, .position = true, .cls_position = true,
               .gated = true, .post = true, .heads_norm = true, .mlp_norm = true, .rotary = VIT_ROTARY_EVA02,
               .act = ACT_SILU, .eps = 1e-6f}},
    {"dinov3", {.L = 2, .E = 128, .H = 2, .D = 64, .F = 200, .p = 8, .registers = 4, .cls = true, .post = true,
                .rotary = VIT_ROTARY_DINOV3, .act = ACT_GELU, .eps = 1e-5f}},
    {"aimv2", {.L = 2, .E = 64, .H = 2, .D = 32, .F = 88, .p = 8, .position = true, .rms = true, .gated = true,
               .pre = true, .pre_first = true, .post = true, .act = ACT_SILU, .eps = 1e-5f}},
    {"internvit", {.L = 2, .E = 120, .H = 5, .D = 24, .F = 96, .p = 8, .cls = true, .position = true,
                   .cls_position = true, .rms = true, .qk_norm = true, .act = ACT_GELU_TANH, .eps = 1e-6f}}};
enum { SIZE = 56, IMAGES = 3 };

static float number(uint32_t i, uint32_t k) { return 2 * rng_unit(philox(i, k, 0, 0, 3, 4).v[0]) - 1; }

static void random_weights(Vit *v) {
    for (int i = 0; i < v->params.n; i++) {
        const ParamTensor *t = &v->params.tensor[i];
        float *x = mem_new((size_t)t->n, sizeof *x);
        assert_non_null(x);
        bool gain = t->rows == 1 && strstr(t->name, ".weight");
        for (int64_t k = 0; k < t->n; k++) {
            float u = number((uint32_t)k, (uint32_t)i);
            x[k] = t->row == VIT_COSINE ? cosf(3 * number((uint32_t)k, 99)) : t->row == VIT_SINE
                 ? sinf(3 * number((uint32_t)k, 99)) : gain ? 1 + 0.2f * u : 0.15f * u;
        }
        assert_int_equal(params_put(&v->params, t, 0, t->n, x, DT_F32), OK);
        free(x);
    }
}

/* Rows of the last tap, on the host. */
static float *run(const Backend *b, const VitDims *d, int64_t *n) {
    Arena mem, step;
    Vit v;
    Tape t;
    void *pixels = NULL;
    uint8_t host[IMAGES * SIZE * SIZE * 3];
    for (size_t i = 0; i < sizeof host; i++) host[i] = (uint8_t)(i * 2654435761u >> 21);
    assert_int_equal(arena_open(&mem, "weights", b, b->workspace + (8 << 20)), OK);
    assert_int_equal(arena_open(&step, "step", b, 32 << 20), OK);
    b->set_workspace(arena_push(&mem, b->workspace, 1), b->workspace);
    assert_int_equal(tape_open(&t, b, &step), OK);
    assert_int_equal(vit_open(&v, d, SIZE, SIZE, IMAGES, b, &mem), OK);
    random_weights(&v);
    assert_int_equal(b->alloc(&pixels, sizeof host), OK);
    b->upload(pixels, host, sizeof host);
    b->sync();
    VitPixels in = {.pixels = pixels, .type = DT_U8, .scale = {0.02f, 0.02f, 0.02f}, .shift = {-2, -2.5f, -1.5f}};
    Tensor x = vit_forward(&t, &v, &in, IMAGES, d->L, d->post);
    *n = tensor_count(x);
    float *out = mem_new((size_t)*n, sizeof *out), *f32 = tape_push(&t, *n, sizeof(float));
    b->cast(f32, DT_F32, x.data, x.dt, *n);
    b->download(out, f32, (size_t)*n * sizeof *out);
    if (tape_status(&t) != OK) fail_msg("%s", err_message());
    tape_close(&t);
    vit_close(&v);
    b->release(pixels);
    arena_close(&step, b);
    arena_close(&mem, b);
    return out;
}

static void towers(void **state) {
    (void)state;
    const Backend *gpu;
    for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
        int64_t n;
        if (backend_cuda(&gpu, DT_F32, 0) != OK) skip();
        float *want = run(backend_cpu(DT_F32), &models[k].d, &n), *got = run(gpu, &models[k].d, &n);
        double f32 = distance(got, want, n);
        backend_close(gpu);
        free(got);
        assert_int_equal(backend_cuda(&gpu, DT_BF16, 0), OK);
        float *cpu = run(backend_cpu(DT_BF16), &models[k].d, &n);
        got = run(gpu, &models[k].d, &n);
        double half = distance(got, want, n), allowed = 2 * distance(cpu, want, n);
        print_message("  %-9s f32 %.2g, bf16 %.2g of %.2g\n", models[k].name, f32, half, allowed);
        assert_true(f32 < 1e-5 && half < allowed && allowed > 0);
        backend_close(gpu);
        free(want), free(got), free(cpu);
    }
}

/* Two batches under way give what they give one after the other, and what the CPU gives. */
static void lanes(void **state) {
    (void)state;
    enum { S = 8, N = 2, P = 3 + 16, ROWS = N * P * 8 };
    static float pixels[3][N * S * S * 3], alone[3][ROWS], beside[3][ROWS], want[ROWS];
    const Backend *on[2] = {backend_cpu(DT_F32), NULL};
    ImageEncoder *e[2];
    char path[] = "/tmp/qf-cuda-vit-XXXXXX";
    if (backend_cuda(&on[1], DT_F32, 0) != OK) skip();
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    weights_text(path, tower_dinov3);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < N * S * S * 3; i++) pixels[k][i] = number((uint32_t)i, (uint32_t)k);
    for (int i = 0; i < 2; i++) {
        VisionWish w = {.b = on[i], .size = S, .batch = N, .heads = 2, .tap = -1, .quiet = true};
        if (vision_encoder(&e[i], path, &w, NULL) != OK) fail_msg("%s", err_message());
        assert_int_equal(e[i]->P, P);
    }
    for (int k = 0; k < 3; k++) assert_int_equal(e[1]->run(e[1], N, pixels[k], alone[k]), OK);
    assert_int_equal(e[1]->start(e[1], N, pixels[0]), OK);
    for (int k = 0; k < 3; k++) {
        if (k < 2) assert_int_equal(e[1]->start(e[1], N, pixels[k + 1]), OK);
        assert_int_equal(e[1]->finish(e[1], beside[k]), OK);
        assert_memory_equal(alone[k], beside[k], sizeof alone[k]);
        assert_int_equal(e[0]->run(e[0], N, pixels[k], want), OK);
        assert_true(distance(beside[k], want, ROWS) < 1e-5);
    }
    for (int i = 0; i < 2; i++) encoder_free(e[i]);
    backend_close(on[1]);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(towers), cmocka_unit_test(lanes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
