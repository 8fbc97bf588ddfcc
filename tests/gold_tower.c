/* gold_tower: image encoders against what their libraries computed, in float64, of the same weights and pixels.
 *
 * A case is a folder with io.safetensors beside weights: pixel_values (n, 3, H, W) and what came of them: embeddings
 * (the rows that enter the first block), second_last, last, last_hidden_state (normed), each (n, P, E); lavis_output
 * is LAVIS's tap of CLIP. With a prefix (big., wide., anything with a point) the same of images of another size; a
 * number behind (image0, embeddings0, ...) an image of its own size, (3, H, W). Tolerance in f32: 1e-4 absolute, 1e-5
 * for tables of positions. In bf16 twice the error of a plain implementation in bf16 (gold_plain.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/vision.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"
#include "tests/gold_plain.h"

bool gold_is_tower(const char *dir, const char *name) {
    static const char *const weights[] = {"model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"};
    char path[2048];
    if (strcmp(name, "io.safetensors")) return false;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, weights[i]);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

/* One set of images: what stands before and behind the names of its tensors. */
typedef struct { char before[64], behind[16]; const StTensor *pixels; } Batch;

static const StTensor *tensor_of(const StFile *io, const Batch *b, const char *what) {
    char name[256];
    snprintf(name, sizeof name, "%s%s%s", b->before, what, b->behind);
    return st_find(io, name);
}

typedef struct { Vision e; Vit v; Arena run, step; Tape tape; int images; void *pixels; } Tower;

static void tower_close(Case *c, Tower *t) {
    tape_close(&t->tape);
    vit_close(&t->v);
    arena_close(&t->run, c->b);
    arena_close(&t->step, c->b);
    if (t->pixels) c->b->release(t->pixels);
}

enum { RUN_BYTES = 512 << 20, STEP_BYTES = 512 << 20 };

static Status tower_open(Case *c, Tower *t, const Batch *b) {
    const StTensor *p = b->pixels;
    int H = (int)p->shape[p->ndim - 2], W = (int)p->shape[p->ndim - 1];
    size_t bytes = p->nbytes;
    t->images = p->ndim == 4 ? (int)p->shape[0] : 1;
    Status st = arena_open(&t->run, "run", c->b, RUN_BYTES);
    if (st == OK) st = arena_open(&t->step, "step", c->b, STEP_BYTES);
    if (st == OK) c->b->set_workspace(arena_push(&t->run, c->b->workspace, 1), c->b->workspace);
    if (st == OK) st = tape_open(&t->tape, c->b, &t->step);
    if (st == OK) st = vit_open(&t->v, &t->e.d, H, W, t->images, c->b, &t->run);
    if (st == OK) st = vision_load(&t->e, &t->v);
    if (st == OK) st = c->b->alloc(&t->pixels, bytes);
    if (st == OK) c->b->upload(t->pixels, p->data, bytes);
    if (st == OK) c->b->sync();
    return st;
}

/* Rows after so many blocks, on the host. */
static Status rows_after(Case *c, Tower *t, int blocks, bool normed, float **out, int64_t *n) {
    tape_reset(&t->tape, false);
    VitPixels in = {.pixels = t->pixels, .type = DT_F32, .planar = true, .scale = {1, 1, 1}};
    Tensor x = vit_forward(&t->tape, &t->v, &in, t->images, blocks, normed);
    *n = tensor_count(x);
    float *dev = tape_push(&t->tape, *n, sizeof(float));
    c->b->cast(dev, DT_F32, x.data, x.dt, *n);
    *out = mem_new((size_t)*n, sizeof **out);
    if (!*out) return ERR_MEMORY;
    Status st = tape_status(&t->tape);
    if (st == OK) c->b->download(*out, dev, (size_t)*n * sizeof **out);
    return st == OK ? c->b->status() : st;
}

/* Root of the mean square of x - want, and the largest difference. */
static double distance(const StTensor *want, const float *x, const double *y, double *worst) {
    int64_t n = st_elements(want);
    double square = 0;
    *worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((x ? (double)x[i] : y[i]) - ((const double *)want->data)[i]);
        *worst = isnan(d) ? INFINITY : fmax(*worst, d);
        square += d * d;
    }
    return sqrt(square / (double)n);
}

/* In bf16 not further away than twice a plain implementation in bf16 is. */
static Status check_tap(Case *c, Tower *t, const StFile *io, const Batch *b, const char *what, int blocks,
                        bool normed) {
    const StTensor *want = tensor_of(io, b, what);
    float *got = NULL;
    int64_t n = 0;
    double worst, other;
    if (!want) return OK;
    Status st = rows_after(c, t, blocks, normed, &got, &n);
    if (st == OK && (st_elements(want) != n || want->dtype != DT_F64)) gold_check(c, want->name, NAN, 1);
    else if (st == OK) {
        double away = distance(want, got, NULL, &worst);
        double *plain = NULL;
        if (c->precision != DT_F32) plain = gold_plain(&t->v, b->pixels->data, t->images, blocks, normed, true);
        if (plain) gold_check(c, want->name, away, 2 * distance(want, NULL, plain, &other));
        else gold_check(c, want->name, worst, 1e-4);
        free(plain);
    }
    free(got);
    return st;
}

/* The rotary table as multiplied, (patches, D), and the resized table of positions. */
static void check_tables(Case *c, const Tower *t, const StFile *io, const Batch *b) {
    static const char *const names[] = {"pos_embed", "positional_embedding", "position"};
    const Params *p = &t->v.params;
    for (size_t i = 0; i < 3; i++) {
        const StTensor *want = tensor_of(io, b, names[i]);
        if (!want || !t->e.d.position || c->precision != DT_F32) continue;
        const ParamTensor *pos = params_tensor(p, VIT_POSITION, -1);
        float *got = mem_new((size_t)pos->n, sizeof *got);
        double worst = got && st_elements(want) == pos->n && params_values(p, pos, got) == OK ? 0 : INFINITY;
        for (int64_t k = 0; k < pos->n && isfinite(worst); k++) {
            double w = want->dtype == DT_F64 ? ((const double *)want->data)[k] : (double)((const float *)want->data)[k];
            worst = fmax(worst, fabs((double)got[k] - w));
        }
        gold_check(c, want->name, worst, 1e-5);
        free(got);
    }
}

static Status run_batch(Case *c, const Vision *e, const StFile *io, const Batch *b) {
    Tower t = {.e = *e};
    int L = e->d.L;
    Status st = tower_open(c, &t, b);
    if (st == OK) check_tables(c, &t, io, b);
    if (st == OK) st = check_tap(c, &t, io, b, "embeddings", 0, false);
    if (st == OK) st = check_tap(c, &t, io, b, "second_last", L - 1, false);
    if (st == OK) st = check_tap(c, &t, io, b, "lavis_output", L - 1, false);
    if (st == OK) st = check_tap(c, &t, io, b, "last", L, false);
    if (st == OK && e->d.post) st = check_tap(c, &t, io, b, "last_hidden_state", L, true);
    if (st == OK) st = check_tap(c, &t, io, b, "vision_features", L, false);          /* of whole BLIP-2 models */
    if (st == OK && e->d.post) st = check_tap(c, &t, io, b, "vision_last_hidden_state", L, true);
    tower_close(c, &t);
    return st;
}

/* "big.pixel_values" or "image3": the first of its name opens a batch. */
static bool is_batch(const StTensor *t, Batch *b) {
    const char *p = strstr(t->name, "pixel_values"), *i = strncmp(t->name, "image", 5) == 0 ? t->name + 5 : NULL;
    *b = (Batch){.pixels = t};
    if (t->dtype != DT_F32) return false;
    if (p && p[12] == 0 && t->ndim == 4) {
        snprintf(b->before, sizeof b->before, "%.*s", (int)(p - t->name), t->name);
        return true;
    }
    if (!i || t->ndim != 3) return false;
    snprintf(b->behind, sizeof b->behind, "%s", i);
    return true;
}

Status gold_tower(Case *c) {
    Vision e;
    StFile *io = NULL;
    Status st = vision_open(&e, c->dir, 0);
    if (st != OK) return st;
    if (getenv("GOLD_VERBOSE")) vision_say(&e, stdout);
    st = gold_open(c, NULL, "io.safetensors", &io);
    for (size_t i = 0; st == OK && i < st_count(io); i++) {
        Batch b;
        if (is_batch(st_at(io, i), &b)) st = run_batch(c, &e, io, &b);
    }
    st_close(io);
    vision_close(&e);
    return st;
}
