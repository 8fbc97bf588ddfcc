/* vit: see vit.h. */
#include "kernels/model/vit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/block.h"

static const Param NONE = {0};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static const ParamRow table[VIT_ROWS] = {
#define X(id, name, shape, where, block, flags) {name, shape, where, block, false, START_ZEROS, 0, flags, NULL},
    VIT_TABLE(X)
#undef X
};

static ParamSizes sizes_of(const Vit *v) {
    const VitDims *d = &v->d;
    ParamSizes s = {0};
    int64_t G = (int64_t)v->h * v->w;
    s.of['L'] = d->L, s.of['E'] = d->E, s.of['A'] = 3LL * d->E, s.of['K'] = 3LL * d->p * d->p, s.of['F'] = d->F;
    s.of['U'] = (d->gated ? 2LL : 1LL) * d->F, s.of['T'] = vit_lead(d), s.of['G'] = G, s.of['h'] = d->D / 2;
    s.of['N'] = d->position ? G + d->cls_position : 0;
    s.of['r'] = d->rotary != VIT_ROTARY_NONE, s.of['p'] = d->pre, s.of['q'] = d->qk_norm, s.of['a'] = d->heads_norm;
    s.of['m'] = d->mlp_norm, s.of['o'] = d->post;
    return s;
}

static Param get(const Vit *v, int row, int layer) { return params_get(&v->params, row, layer); }

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* Rows of an item: its scores lie in a tile of keys x rows, which should stay in a core's second cache. */
enum { ITEM_ROWS = 64 };

typedef struct { int32_t *ids, *position, *turn; AttnItem *items; AttnGroup *groups; size_t bytes; } Lists;

static int items_of(const Vit *v) { return (v->P + ITEM_ROWS - 1) / ITEM_ROWS; }

/* Where the lists lie in one piece of memory; base NULL: only its size. */
static Lists lists_at(const Vit *v, char *base) {
    Lists l = {0};
    size_t n = (size_t)v->images * (size_t)v->P, at = 0;
#define TAKE(field, count) \
    do { \
        l.field = base ? (void *)(base + at) : NULL; \
        at += ((count) * sizeof *l.field + 255) / 256 * 256; \
    } while (0)
    TAKE(ids, n);
    TAKE(position, n);
    TAKE(turn, n);
    TAKE(items, (size_t)v->images * (size_t)items_of(v));
    TAKE(groups, (size_t)v->images);
#undef TAKE
    l.bytes = at;
    return l;
}

/* Row r of an image: a token, or a patch; and the row of the table that is added. */
static void fill_rows(const Vit *v, Lists *l) {
    int lead = vit_lead(&v->d), G = v->h * v->w;
    for (int i = 0; i < v->images; i++)
        for (int r = 0; r < v->P; r++) {
            int32_t patch = r - lead, at = i * v->P + r;
            /* below 0 a given row, as op_lookup wants it */
            l->ids[at] = patch < 0 ? r : -1 - (i * G + patch);
            l->position[at] = !v->d.position || (patch < 0 && !(r == 0 && v->d.cls_position)) ? -1
                            : patch < 0 ? 0 : patch + v->d.cls_position;
            /* cls and registers do not turn */
            l->turn[at] = patch < 0 ? -1 : patch;
        }
}

/* A group an image; its rows in items, which share its keys. */
static void fill_plan(const Vit *v, Lists *l) {
    int32_t P = v->P, n = items_of(v);
    for (int32_t i = 0; i < v->images; i++) {
        l->groups[i] = (AttnGroup){.item0 = i * n, .nitems = n, .k0 = {i * P, 0}, .nk = {P, 0}};
        for (int32_t k = 0; k < n; k++) {
            int32_t first = k * ITEM_ROWS, rows = P - first < ITEM_ROWS ? P - first : ITEM_ROWS;
            l->items[i * n + k] = (AttnItem){.q0 = i * P + first, .nq = rows, .a0 = i * P, .na = P, .group = i,
                                             .pos = first};
        }
    }
}

static AttnPlan plan_of(const Vit *v, int images) {
    AttnPlan p = v->plan;
    p.nitems = images * items_of(v);
    p.ngroups = images;
    p.nrows = images * v->P;
    p.products = (int64_t)images * v->P * v->P;
    return p;
}

static Status open_lists(Vit *v, Arena *run) {
    size_t bytes = lists_at(v, NULL).bytes;
    Status st = run->measuring ? ((v->host = mem_new(bytes, 1)) ? OK : ERR_MEMORY) : v->b->host_alloc(&v->host, bytes);
    if (st != OK) return st;
    char *device = v->b->unified ? v->host : arena_push(run, bytes, 1);
    Lists host = lists_at(v, v->host), on = lists_at(v, device);
    fill_rows(v, &host);
    fill_plan(v, &host);
    if (!v->b->unified && !run->measuring && !run->full) v->b->upload(device, v->host, bytes);
    v->b->sync();
    v->ids = on.ids, v->position = on.position, v->turn = on.turn;
    v->plan = (AttnPlan){.items = on.items, .groups = on.groups, .host_items = host.items, .host_groups = host.groups,
                         .max_nq = v->P < ITEM_ROWS ? v->P : ITEM_ROWS, .max_nk = v->P, .max_group_nk = v->P};
    return OK;
}

Status vit_open(Vit *v, const VitDims *d, int height, int width, int images, const Backend *b, Arena *run) {
    *v = (Vit){.d = *d, .height = height, .width = width, .h = height / d->p, .w = width / d->p, .images = images,
               .b = b};
    int64_t rows = vit_lead(d) + (int64_t)v->h * v->w;
    /* row numbers are 32 bits, and some are scaled by four */
    if (v->h < 1 || v->w < 1 || rows * images > INT32_MAX / 4)
        return err_set(ERR_USAGE, "images of %d x %d pixels have no patch of %d, or more than can be counted", width,
                       height, d->p);
    v->P = (int)rows;
    v->measured = run->measuring;
    ParamSizes s = sizes_of(v);
    Status st = params_open(&v->params, (ParamTable){table, VIT_ROWS}, &s, b, run, &(ParamsSpec){.frozen = true});
    if (st == OK) st = open_lists(v, run);
    if (st != OK) vit_close(v);
    return st;
}

void vit_close(Vit *v) {
    if (v->measured) free(v->host);
    else if (v->host) v->b->host_release(v->host);
    params_close(&v->params);
    *v = (Vit){0};
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

static Tensor rows_of(Tape *t, int64_t rows, int64_t cols) { return tape_new(t, rows, cols, t->b->elem); }

static Norm norm_of(const Vit *v, int gain, int offset, int layer) {
    return (Norm){.g = get(v, gain, layer), .o = v->d.rms ? NONE : get(v, offset, layer), .eps = v->d.eps,
                  .rms = v->d.rms};
}

static Tensor stem(Tape *t, const Vit *v, const VitPixels *in, int images) {
    const VitDims *d = &v->d;
    int64_t G = (int64_t)images * v->h * v->w, N = (int64_t)images * v->P;
    bool normed = d->pre && !d->pre_first;
    Tensor x = rows_of(t, N, d->E), y = normed ? rows_of(t, N, d->E) : x;
    size_t mark = arena_mark(t->step);
    Tensor pixels = rows_of(t, G, 3LL * d->p * d->p), patches = rows_of(t, G, d->E);
    Patches p = {.images = images, .height = v->height, .width = v->width, .p = d->p, .t = in->type,
                 .planar = in->planar, .pixels = in->pixels};
    memcpy(p.scale, in->scale, sizeof p.scale);
    memcpy(p.shift, in->shift, sizeof p.shift);
    op_patches(t, pixels, p);
    op_linear(t, patches, pixels, get(v, VIT_PATCH_W, -1), get(v, VIT_PATCH_B, -1));
    if (d->pre_first) op_norm(t, patches, patches, norm_of(v, VIT_PRE_W, VIT_PRE_B, -1));
    op_lookup(t, x, (Lookup){.scale = 1, .ids = v->ids, .pos_id = v->position},
              vit_lead(d) ? get(v, VIT_TOKENS, -1) : NONE, patches, d->position ? get(v, VIT_POSITION, -1) : NONE);
    if (normed) op_norm(t, y, x, norm_of(v, VIT_PRE_W, VIT_PRE_B, -1));
    arena_reset(t->step, mark);
    return y;
}

static BlockAttention attention(const Vit *v, int l) {
    const VitDims *d = &v->d;
    BlockAttention a = {.norm = norm_of(v, VIT_NORM1_W, VIT_NORM1_B, l), .in = get(v, VIT_QKV_W, l),
                        .in_bias = get(v, VIT_QKV_B, l), .out = get(v, VIT_OUT_W, l), .out_bias = get(v, VIT_OUT_B, l),
                        .heads = op_heads(d->H, d->H, d->D), .D = d->D};
    if (d->qk_norm) {
        a.q_norm = (Norm){.g = get(v, VIT_Q_NORM, l), .eps = d->eps, .rms = true};
        a.k_norm = (Norm){.g = get(v, VIT_K_NORM, l), .eps = d->eps, .rms = true};
    }
    if (d->heads_norm) a.inner = norm_of(v, VIT_HEADS_W, VIT_HEADS_B, l);
    if (d->rotary)
        a.rotary = (Rotary){.at = v->turn, .interleaved = d->rotary != VIT_ROTARY_DINOV3,
                            .cos = get(v, VIT_COSINE, -1).w, .sin = get(v, VIT_SINE, -1).w};
    return a;
}

static BlockFeedForward feed_forward(const Vit *v, int l) {
    const VitDims *d = &v->d;
    BlockFeedForward f = {.norm = norm_of(v, VIT_NORM2_W, VIT_NORM2_B, l), .in = get(v, VIT_UP_W, l),
                          .in_bias = get(v, VIT_UP_B, l), .out = get(v, VIT_DOWN_W, l),
                          .out_bias = get(v, VIT_DOWN_B, l), .act = {.f = d->act, .gated = d->gated}};
    if (d->mlp_norm) f.inner = norm_of(v, VIT_MLP_W, VIT_MLP_B, l);
    return f;
}

Tensor vit_forward(Tape *t, const Vit *v, const VitPixels *in, int images, int blocks, bool normed) {
    BUG_ON(t->recording || images > v->images || blocks > v->d.L || (normed && !v->d.post),
           "vit: %d of %d images, %d of %d blocks%s", images, v->images, blocks, v->d.L,
           t->recording ? ", recording" : "");
    const Tensor nowhere = {0};
    BlockStream x = block_stream(t, stem(t, v, in, images));
    AttnPlan plan = plan_of(v, images);
    for (int l = 0; l < blocks; l++) {
        BlockAttention a = attention(v, l);
        BlockFeedForward f = feed_forward(v, l);
        Tensor qkv = block_qkv(t, &x, &a, (Tensor){0});
        block_attend(t, &x, &a, qkv, qkv, v->d.E, &plan, nowhere);
        block_feed_forward(t, &x, &f, nowhere);
    }
    /* Sums the last part into the stream, too; a result that is not normed takes any norm for that. */
    Tensor h = rows_of(t, x.x.rows, x.x.cols);
    block_norm(t, h, &x, normed ? norm_of(v, VIT_POST_W, VIT_POST_B, -1) : norm_of(v, VIT_NORM1_W, VIT_NORM1_B, 0));
    return normed ? h : x.x;
}
