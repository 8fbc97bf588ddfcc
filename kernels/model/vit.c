/* vit: see vit.h. */
#include "kernels/model/vit.h"

#include <math.h>
#include <string.h>

#include "kernels/model/block.h"
#include "kernels/model/planner.h"

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

static int items_of(const Vit *v) { return (v->P + ITEM_ROWS - 1) / ITEM_ROWS; }

/* Row r of an image: a token, or a patch; and the row of the table that is added. */
static void fill_rows(Vit *v, Staging *r) {
    int lead = vit_lead(&v->d), G = v->h * v->w;
    size_t n = (size_t)v->images * (size_t)v->P;
    int32_t *ids = staging_take(r, n, sizeof *ids), *position = staging_take(r, n, sizeof *position);
    int32_t *turn = staging_take(r, n, sizeof *turn);
    for (int i = 0; i < v->images; i++)
        for (int row = 0; row < v->P; row++) {
            int32_t patch = row - lead, at = i * v->P + row;
            /* below 0 a given row, as op_lookup wants it */
            ids[at] = patch < 0 ? row : -1 - (i * G + patch);
            position[at] = !v->d.position || (patch < 0 && !(row == 0 && v->d.cls_position)) ? -1
                         : patch < 0 ? 0 : patch + v->d.cls_position;
            /* cls and registers do not turn */
            turn[at] = patch < 0 ? -1 : patch;
        }
    v->ids = staging_device(r, ids), v->position = staging_device(r, position), v->turn = staging_device(r, turn);
}

/* A group an image; its rows in items, which share its keys. */
static void fill_plan(Vit *v, Staging *r) {
    Planner p = planner_begin(&v->plan, r, v->images * items_of(v), v->images);
    for (int32_t i = 0, P = v->P; i < v->images; i++) {
        planner_group(&p, i * P, P, 0, 0);
        for (int32_t first = 0; first < P; first += ITEM_ROWS)
            planner_item(&p, (AttnItem){.q0 = i * P + first, .nq = P - first < ITEM_ROWS ? P - first : ITEM_ROWS,
                                        .a0 = i * P, .na = P, .pos = first});
    }
    planner_end(&p);
}

/* Of the first images alone. */
static AttnPlan plan_of(const Vit *v, int images) {
    AttnPlan p = v->plan;
    p.nitems = images * items_of(v);
    p.ngroups = images;
    p.nrows = images * v->P;
    p.products = (int64_t)images * v->P * v->P;
    return p;
}

static Status open_lists(Vit *v, Arena *run) {
    int64_t n = (int64_t)v->images * v->P;
    size_t bytes = 3 * staging_bytes(n, sizeof(int32_t)) + staging_bytes(v->images, sizeof(AttnGroup)) +
                   staging_bytes((int64_t)v->images * items_of(v), sizeof(AttnItem));
    Status st = staging_open(&v->lists, v->b, run, bytes);
    if (st == OK && run->full) st = err_set(ERR_MEMORY, "the encoder's lists need more memory than was planned");
    if (st != OK) return st;
    fill_rows(v, &v->lists);
    fill_plan(v, &v->lists);
    staging_upload(&v->lists);
    v->b->sync();
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
    ParamSizes s = sizes_of(v);
    Status st = params_open(&v->params, (ParamTable){table, VIT_ROWS}, &s, b, run, &(ParamsSpec){.frozen = true});
    if (st == OK) st = open_lists(v, run);
    if (st != OK) vit_close(v);
    return st;
}

void vit_close(Vit *v) {
    staging_close(&v->lists);
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
    arena_reset(t->step, mark);                              /* pixels and patches are done with: rows alone go on */
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
