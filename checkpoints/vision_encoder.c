/* vision_encoder: see vision_encoder.h. */
#include "checkpoints/vision_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/model/forward.h"

typedef struct {
    ImageEncoder base;
    VisionWish wish;
    VitDims d;
    Vit v;
    Forward f;
    int blocks;
    bool normed;
    float *out;                 /* (batch, P, E) where the device's memory is ours; else */
    /* pixels there and pinned here, rows there in its type, and pinned here */
    struct { void *pixels, *staged, *out; int n; } lane[2];
    void *fetched;
    int oldest, under;          /* the lane that is finished next, how many are under way */
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
            /* an odd side's last row or column has no neighbour */
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

typedef struct { VisionEncoder *k; const void *pixels; void *out; DType type; int n; } Batch;

static void enqueue(void *ctx) {
    const Batch *x = ctx;
    VisionEncoder *k = x->k;
    VitPixels in = pixels_of(k, x->pixels);
    Tensor y = vit_forward(&k->f.tape, &k->v, &in, x->n, k->blocks, k->normed);
    k->f.tape.b->cast(x->out, x->type, y.data, y.dt, tensor_count(y));
}

/* A lane, or -1: memory of the caller, which is another each time. */
static Status forward(Batch x, int lane) {
    Forward *f = &x.k->f;
    forward_begin(f);
    if (lane < 0) enqueue(&x);
    else forward_repeat(f, (uint64_t)x.n << 1 | (uint64_t)lane, enqueue, &x);
    return tape_status(&f->tape);
}

/* Rows that are kept, of n images, in f32; the one thread that runs an encoder owns what changes in it. */
static VisionEncoder *mine(const ImageEncoder *self) { return (VisionEncoder *)(uintptr_t)self; }
static size_t numbers_of(const VisionEncoder *k) { return (size_t)k->v.P * (size_t)k->d.E; }

static Status run(const ImageEncoder *self, int n, const void *pixels, float *features) {
    VisionEncoder *k = mine(self);
    /* where copies cost, one batch travels while another is computed */
    if (!k->f.b->unified) {
        Status st = self->start(self, n, pixels);
        return st == OK ? self->finish(self, features) : st;
    }
    bool direct = k->wish.tokens == VISION_ALL;
    Status st = forward((Batch){k, pixels, direct ? features : k->out, DT_F32, n}, -1);
    for (int i = 0; st == OK && !direct && i < n; i++)
        keep(k, features + i * self->P * self->E, k->out + (size_t)i * numbers_of(k));
    return st;
}

/* The way back is asked for when the pinned room is free, which is when the lane before it has been finished. */
static void fetch_lane(const VisionEncoder *k) {
    size_t bytes = (size_t)k->lane[k->oldest].n * numbers_of(k) * (size_t)dtype_size(k->f.b->elem);
    k->f.b->fetch_beside(k->fetched, k->lane[k->oldest].out, bytes);
}

static Status start(const ImageEncoder *self, int n, const void *pixels) {
    VisionEncoder *k = mine(self);
    /* the lane behind those under way */
    int i = (k->oldest + k->under) % 2;
    size_t bytes = (size_t)n * preprocess_bytes(&self->pre);
    BUG_ON(k->under > 1, "vision_encoder: a third batch is started");
    /* pinned: from there the copy runs by itself, and the caller has its memory back */
    memcpy(k->lane[i].staged, pixels, bytes);
    k->f.b->upload_beside(k->lane[i].pixels, k->lane[i].staged, bytes);
    k->f.b->prefetch_wait();
    Status st = forward((Batch){k, k->lane[i].pixels, k->lane[i].out, k->f.b->elem, n}, i);
    k->lane[i].n = n;
    if (st == OK && k->under++ == 0) fetch_lane(k);
    return st;
}

static Status finish(const ImageEncoder *self, float *features) {
    VisionEncoder *k = mine(self);
    int n = k->lane[k->oldest].n;
    size_t row = numbers_of(k), one = (size_t)dtype_size(k->f.b->elem);
    const char *rows = k->fetched;
    k->f.b->fetch_wait();
#pragma omp parallel for
    for (int i = 0; i < n; i++) {
        bool all = k->wish.tokens == VISION_ALL;
        float *wide = all ? features + (size_t)i * row : k->out + (size_t)i * row;
        /* half the bytes over the bus, widened by all cores */
        dtype_to_f32(wide, rows + (size_t)i * row * one, k->f.b->elem, row);
        if (!all) keep(k, features + i * self->P * self->E, wide);
    }
    k->oldest = 1 - k->oldest;
    if (--k->under) fetch_lane(k);
    return k->f.b->status();
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void free_encoder(ImageEncoder *self) {
    VisionEncoder *k = (VisionEncoder *)self;
    const Backend *b = k->wish.b;
    forward_close(&k->f);
    vit_close(&k->v);
    for (int i = 0; i < 2; i++)
        if (k->lane[i].staged) b->host_release(k->lane[i].staged);
    if (k->fetched) b->host_release(k->fetched);
    if (!b->unified) free(k->out);
    free(k);
}

/* On another memory two lanes; rows go there in its own type, half the way in bf16. */
static Status take(void *self) {
    VisionEncoder *k = self;
    Forward *f = &k->f;
    int S = k->base.pre.size, n = k->base.batch;
    f->b->set_workspace(arena_push(&f->fixed, f->b->workspace, 1), f->b->workspace);
    vit_close(&k->v);                                        /* the one that was only measured */
    Status st = vit_open(&k->v, &k->d, S, S, n, f->b, &f->fixed);
    size_t numbers = (size_t)n * numbers_of(k);
    if (f->b->unified) k->out = arena_push(&f->fixed, numbers, sizeof(float));
    for (int i = 0; !f->b->unified && i < 2; i++) {
        k->lane[i].pixels = arena_push(&f->fixed, (size_t)n, preprocess_bytes(&k->base.pre));
        k->lane[i].out = arena_push(&f->fixed, numbers, (size_t)dtype_size(f->b->elem));
    }
    return st;
}

static Status largest(void *self) {
    VisionEncoder *k = self;
    return forward((Batch){k, NULL, NULL, DT_F32, k->base.batch}, -1);
}

static Status take_memory(VisionEncoder *k, size_t *taken) {
    const Backend *b = k->wish.b;
    Status st = forward_open(&k->f, b, "encoder's", take, largest, k);
    size_t n = (size_t)k->base.batch, numbers = n * numbers_of(k), pixels = n * preprocess_bytes(&k->base.pre);
    if (taken) *taken = k->f.fixed.size + k->f.mem.size;
    if (st == OK && !b->unified) {
        st = b->host_alloc(&k->fetched, numbers * (size_t)dtype_size(b->elem));
        for (int i = 0; st == OK && i < 2; i++) st = b->host_alloc(&k->lane[i].staged, pixels);
        if (st == OK && !(k->out = mem_new(numbers, sizeof(float)))) st = ERR_MEMORY;
        k->base.start = start;
        k->base.finish = finish;
    }
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
    if (st == OK) st = k->f.b->status();
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
        k->wish = *wish, k->d = e.d;
        st = open_encoder(k, &e, wish, bytes);
        if (st == OK) *out = &k->base;
        else free_encoder(&k->base);
    } else {
        st = ERR_MEMORY;
    }
    vision_close(&e);
    return st;
}
