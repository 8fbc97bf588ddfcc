/* vision_encoder: see vision_encoder.h. */
#include "checkpoints/vision_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/status.h"

typedef struct {
    ImageEncoder base;
    VisionWish wish;
    const Backend *b;
    VitDims d;
    Vit v;
    Arena run, step;
    Tape tape;
    int blocks;
    bool normed;
    void *pixels;               /* on the device, where that is another memory; and pinned ones on the host */
    void *staged;
    float *out, *fetched;       /* (batch, P, E) f32 on the device, and pinned */
    char name[VISION_TEXT], tap[128], preprocessing[PREPROCESS_TEXT + 32], sha256[65];
} VisionEncoder;

/* ---- rows that are kept ------------------------------------------------------------------------------------------ */

static int64_t kept(const Vit *v, VisionTokens t) {
    int64_t G = (int64_t)v->h * v->w;
    switch (t) {
    case VISION_ALL: return v->P;
    case VISION_CLS_GRID: return v->d.cls + G;
    case VISION_GRID: return G;
    case VISION_MEAN: return (int64_t)((v->h + 1) / 2) * ((v->w + 1) / 2);
    }
    return 0;
}

/* The mean of up to four patches, (h, w, E) to (h/2, w/2, E). */
static void average(float *dst, const float *grid, int h, int w, int64_t E) {
    for (int y = 0; y < h; y += 2)
        for (int x = 0; x < w; x += 2, dst += E) {
            int ny = h - y < 2 ? 1 : 2, nx = w - x < 2 ? 1 : 2;
            memset(dst, 0, (size_t)E * sizeof *dst);
            for (int k = 0; k < ny * nx; k++) {
                const float *row = grid + ((int64_t)(y + k / nx) * w + x + k % nx) * E;
                for (int64_t e = 0; e < E; e++) dst[e] += row[e] / (float)(ny * nx);
            }
        }
}

static void keep(const VisionEncoder *k, float *dst, const float *rows) {
    const Vit *v = &k->v;
    int64_t E = v->d.E, lead = vit_lead(&v->d), G = (int64_t)v->h * v->w, cls = 0;
    if (k->wish.tokens == VISION_CLS_GRID && v->d.cls) cls = 1;
    memcpy(dst, rows, (size_t)(cls * E) * sizeof *dst);
    if (k->wish.tokens == VISION_MEAN) average(dst, rows + lead * E, v->h, v->w, E);
    else memcpy(dst + cls * E, rows + lead * E, (size_t)(G * E) * sizeof *dst);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static VitPixels pixels_of(const VisionEncoder *k, const void *pixels) {
    const Preprocess *p = &k->base.pre;
    VitPixels in = {.pixels = pixels, .type = p->in_float ? DT_F32 : DT_U8};
    for (int c = 0; c < 3; c++) {
        in.scale[c] = (p->in_float ? 1.0f : 1.0f / 255) / p->std[c];
        in.shift[c] = -p->mean[c] / p->std[c];
    }
    return in;
}

static Status forward(VisionEncoder *k, const void *pixels, float *out, int n) {
    VitPixels in = pixels_of(k, pixels);
    tape_reset(&k->tape, false);
    Tensor x = vit_forward(&k->tape, &k->v, &in, n, k->blocks, k->normed);
    k->v.b->cast(out, DT_F32, x.data, x.dt, tensor_count(x));
    return tape_status(&k->tape);
}

static Status run(const ImageEncoder *self, int n, const void *pixels, float *features) {
    VisionEncoder *k = (VisionEncoder *)(uintptr_t)self;     /* the one thread that runs it owns its tape */
    size_t bytes = (size_t)n * preprocess_bytes(&self->pre), row = (size_t)k->v.P * (size_t)k->d.E;
    const float *rows = k->out;
    if (!k->b->unified) {
        memcpy(k->staged, pixels, bytes);
        k->b->upload(k->pixels, k->staged, bytes);
        pixels = k->pixels;
    }
    bool direct = k->b->unified && k->wish.tokens == VISION_ALL;
    Status st = forward(k, pixels, direct ? features : k->out, n);
    if (st != OK || direct) return st;
    if (!k->b->unified) {
        k->b->download(k->fetched, k->out, (size_t)n * row * sizeof(float));
        rows = k->fetched;
    }
    for (int i = 0; i < n; i++) {
        const float *from = rows + (size_t)i * row;
        if (k->wish.tokens == VISION_ALL) memcpy(features + (size_t)i * row, from, row * sizeof *from);
        else keep(k, features + i * self->P * self->E, from);
    }
    return k->b->status();
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void free_encoder(ImageEncoder *self) {
    VisionEncoder *k = (VisionEncoder *)self;
    tape_close(&k->tape);
    vit_close(&k->v);
    if (k->staged) k->b->host_release(k->staged);
    if (k->fetched) k->b->host_release(k->fetched);
    arena_close(&k->run, k->b);
    arena_close(&k->step, k->b);
    free(k);
}

/* The same on arenas that only count: what opening and a forward pass will take. */
static Status measure(VisionEncoder *k, size_t *run_bytes, size_t *step_bytes) {
    Backend null = backend_measuring(k->b);
    VisionEncoder m = *k;
    m.b = &null;
    arena_measure(&m.run, "weights'");
    arena_measure(&m.step, "encoder's");
    int S = k->base.pre.size;
    Status st = vit_open(&m.v, &k->d, S, S, k->base.batch, &null, &m.run);
    if (st == OK) st = tape_open(&m.tape, &null, &m.step);
    if (st == OK) st = forward(&m, NULL, NULL, k->base.batch);
    *run_bytes = m.run.peak;
    *step_bytes = m.step.peak;
    tape_close(&m.tape);
    vit_close(&m.v);
    return st;
}

static Status buffers(VisionEncoder *k, size_t pixels, size_t out) {
    k->out = arena_push(&k->run, out, 1);
    if (k->b->unified) return OK;
    k->pixels = arena_push(&k->run, pixels, 1);
    Status st = k->b->host_alloc(&k->staged, pixels);
    return st == OK ? k->b->host_alloc((void **)&k->fetched, out) : st;
}

static Status take_memory(VisionEncoder *k, size_t *taken) {
    size_t run_bytes = 0, step_bytes = 0, n = (size_t)k->base.batch;
    Status st = measure(k, &run_bytes, &step_bytes);
    size_t pixels = n * preprocess_bytes(&k->base.pre), out = n * (size_t)k->v.P * (size_t)k->d.E * sizeof(float);
    run_bytes += k->b->workspace + out + (k->b->unified ? 0 : pixels) + 4096;
    int S = k->base.pre.size;
    if (st == OK) st = arena_open(&k->run, "weights'", k->b, run_bytes);
    if (st == OK) k->b->set_workspace(arena_push(&k->run, k->b->workspace, 1), k->b->workspace);
    if (st == OK) st = arena_open(&k->step, "encoder's", k->b, step_bytes);
    if (st == OK) st = vit_open(&k->v, &k->d, S, S, k->base.batch, k->b, &k->run);
    if (st == OK) st = tape_open(&k->tape, k->b, &k->step);
    if (st == OK) st = buffers(k, pixels, out);
    if (taken) *taken = run_bytes + step_bytes;
    return st == OK ? OK : err_context(st, "encoding %d images at a time", k->base.batch);
}

static Status choose(VisionEncoder *k, const Vision *e, const VisionWish *w) {
    Preprocess *pre = &k->base.pre;
    *pre = e->custom.pre;
    if (w->size) preprocess_set_size(pre, w->size);
    VitTap tap = w->tap < 0 ? e->custom.tap : (VitTap)w->tap;
    if (tap == VIT_NORMED && !e->d.post)
        return err_set(ERR_USAGE, "%s: has no norm behind its last block; extract.tap can be last or second_last",
                       e->path);
    k->blocks = vit_blocks(&e->d, tap);
    k->normed = tap == VIT_NORMED;
    k->v.P = vit_lead(&e->d) + (pre->size / e->d.p) * (pre->size / e->d.p);
    k->base.batch = w->batch ? w->batch : w->b->unified ? 8 : 64;
    static const char *const rows[] = {"", "; cls and patches", "; patches", "; patches, each 2x2 averaged"};
    snprintf(k->tap, sizeof k->tap, "%s%s", vision_tap_text(e, tap), rows[w->tokens]);
    preprocess_text(pre, k->preprocessing, PREPROCESS_TEXT);
    if (w->upright) strcat(k->preprocessing, ", upright by EXIF");
    vision_text(e, k->name, sizeof k->name);
    return OK;
}

static Status open_encoder(VisionEncoder *k, const Vision *e, const VisionWish *w, size_t *bytes) {
    Status st = choose(k, e, w);
    if (st == OK && !w->quiet && status_is_live()) status_line("reading the encoder's weights");
    if (st == OK) st = vision_sha256(e, k->sha256);
    if (st == OK) st = take_memory(k, bytes);
    if (st == OK) st = vision_load(e, &k->v);
    if (st == OK) st = k->b->status();
    k->base.info = (EncoderInfo){.name = k->name, .weights_sha256 = k->sha256, .tap = k->tap,
                                 .preprocessing = k->preprocessing};
    k->base.P = kept(&k->v, w->tokens);
    k->base.E = k->d.E;
    k->base.run = run;
    k->base.free = free_encoder;
    return st;
}

Status vision_encoder(ImageEncoder **out, const char *path, const VisionWish *wish, size_t *bytes) {
    Vision e;
    *out = NULL;
    Status st = vision_open(&e, path, wish->heads);
    if (st != OK) return st;
    if (!wish->quiet) vision_say(&e, stdout);
    VisionEncoder *k = mem_new(1, sizeof *k);
    if (k) {
        k->b = wish->b, k->wish = *wish, k->d = e.d;
        st = open_encoder(k, &e, wish, bytes);
        if (st == OK) *out = &k->base;
        else free_encoder(&k->base);
    } else {
        st = ERR_MEMORY;
    }
    vision_close(&e);
    return st;
}
