/* vision_load: an encoder's tensors, brought into the one form of kernels/model/vit.h. See vision.h.
 *
 * A part of the model is made on the host in f32, one at a time, and put into the store; the host never holds them all.
 * The same functions check everything before a device is asked for (vision_check). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/vision.h"
#include "kernels/base/mem.h"

static const char *next_spelling(const char *s) {
    s += strcspn(s, "|");
    return *s ? s + 1 : NULL;
}

const StTensor *vision_find(const Vision *e, const char *name, int layer, const char *suffix) {
    char spelt[256], full[512];
    for (; name && *name; name = next_spelling(name))
        /* a file keeps to one spelling of its blocks, but which one only a tensor that is there can tell */
        for (const char *block = layer >= 0 ? e->names->block : ""; block; block = next_spelling(block)) {
            vision_spell(spelt, sizeof spelt, block, layer, name, suffix);
            snprintf(full, sizeof full, "%s%s", e->prefix, spelt);
            const StTensor *t = ws_find(e->ws, full);
            if (t && e->used) e->used[t - ws_at(e->ws, 0)] = true;
            if (t) return t;
        }
    return NULL;
}

/* `rows` x `cols` numbers of the tensor under a name into dst; dst NULL: only checks. */
static Status take(const Vision *e, float *dst, const char *name, int layer, const char *suffix, int64_t rows,
                   int64_t cols) {
    char shape[ST_SHAPE_TEXT];
    const StTensor *t = name ? vision_find(e, name, layer, suffix) : NULL;
    if (!t)
        return err_set(ERR_FORMAT, "%s: has no tensor %s%s%s%s of block %d, which its family needs", e->path, e->prefix,
                       name ? name : "?", suffix ? "." : "", suffix ? suffix : "", layer);
    int64_t last = t->ndim ? t->shape[t->ndim - 1] : 1;
    /* by count and last side: convolutions are kept with four sides, or two */
    bool fits = st_elements(t) == rows * cols && t->dtype != DT_BOOL && (rows == 1 || t->ndim > 2 || last == cols);
    if (!fits)
        return err_set(ERR_FORMAT, "%s: %s has the shape %s%s; %lld x %lld numbers were expected", e->path, t->name,
                       st_shape_text(t, shape, sizeof shape), t->dtype == DT_BOOL ? " of truth values" : "",
                       (long long)rows, (long long)cols);
    if (dst) dtype_to_f32(dst, t->data, t->dtype, (size_t)(rows * cols));
    return OK;
}

/* Zeros where the file has none. */
static Status take_if(const Vision *e, bool there, float *dst, const char *name, int layer, const char *suffix,
                      int64_t n) {
    if (there) return take(e, dst, name, layer, suffix, 1, n);
    if (dst) memset(dst, 0, (size_t)n * sizeof *dst);
    return OK;
}

static float *at(float *dst, int64_t n) { return dst ? dst + n : NULL; }

/* ---- attention --------------------------------------------------------------------------------------------------- */

static Status qkv_weight(const Vision *e, int l, float *dst) {
    const VisionNames *n = e->names;
    int64_t E = e->d.E;
    if (n->qkv && vision_find(e, n->qkv, l, "weight")) return take(e, dst, n->qkv, l, "weight", 3 * E, E);
    /* q, k, v behind each other: one product makes all three */
    Status st = take(e, dst, n->q, l, "weight", E, E);
    if (st == OK) st = take(e, at(dst, E * E), n->k, l, "weight", E, E);
    return st == OK ? take(e, at(dst, 2 * E * E), n->v, l, "weight", E, E) : st;
}

static Status qkv_bias(const Vision *e, int l, float *dst) {
    const VisionNames *n = e->names;
    int64_t E = e->d.E;
    bool qv = e->has & HAS_QV_BIAS, k = e->has & HAS_K_BIAS;
    if (qv && n->qkv && vision_find(e, n->qkv, l, "bias")) {
        Status st = take(e, dst, n->qkv, l, "bias", 1, 3 * E);
        /* masked out; it would add the same to all scores of a query anyway */
        if (st == OK && dst && !k) memset(dst + E, 0, (size_t)E * sizeof *dst);
        return st;
    }
    /* LAVIS keeps q's and v's as parameters of their own, and k has none */
    bool bare = n->q_bias && vision_find(e, n->q_bias, l, NULL);
    Status st = take_if(e, qv, dst, bare ? n->q_bias : n->q, l, bare ? NULL : "bias", E);
    if (st == OK) st = take_if(e, k, at(dst, E), n->k, l, "bias", E);
    return st == OK ? take_if(e, qv, at(dst, 2 * E), bare ? n->v_bias : n->v, l, bare ? NULL : "bias", E) : st;
}

/* Layer scale multiplies what the product before it gives: its rows. */
static Status scaled(const Vision *e, Status st, const char *scale, int l, float *dst, int64_t cols) {
    int64_t E = e->d.E;
    if (st != OK || !(e->has & HAS_SCALE)) return st;
    float *s = mem_new((size_t)E, sizeof *s);
    st = s ? take(e, s, scale, l, NULL, 1, E) : ERR_MEMORY;
    for (int64_t i = 0; st == OK && dst && i < E; i++)
        for (int64_t j = 0; j < cols; j++) dst[i * cols + j] *= s[i];
    free(s);
    return st;
}

/* ---- feed-forward ------------------------------------------------------------------------------------------------ */

static Status up_part(const Vision *e, int l, float *dst, const char *suffix, int64_t cols) {
    const VisionNames *n = e->names;
    int64_t F = e->d.F;
    bool vector = cols == 1;
#define TAKE(to, name, rows) take(e, to, name, l, suffix, vector ? 1 : (rows), vector ? (rows) : cols)
    if (!e->d.gated) return TAKE(dst, n->up, F);
    /* packed already, gate rows first */
    if (!n->gate || !vision_find(e, n->gate, l, "weight")) return TAKE(dst, n->up, 2 * F);
    Status st = TAKE(dst, n->gate, F);
    return st == OK ? TAKE(at(dst, F * cols), n->up, F) : st;
#undef TAKE
}

static Status up_bias(const Vision *e, int l, float *dst) {
    int64_t U = (e->d.gated ? 2 : 1) * e->d.F;
    if (e->has & HAS_MLP_BIAS) return up_part(e, l, dst, "bias", 1);
    if (dst) memset(dst, 0, (size_t)U * sizeof *dst);
    return OK;
}

/* ---- what stands once -------------------------------------------------------------------------------------------- */

/* Columns (c, y, x); NaFlex has them as (y, x, c). */
static Status patch_weight(const Vision *e, float *dst) {
    int64_t E = e->d.E, p = e->d.p, K = 3 * p * p;
    Status st = take(e, dst, e->names->patch, -1, "weight", E, K);
    if (st != OK || !dst || e->print->family != FAMILY_NAFLEX) return st;
    float *row = mem_new((size_t)K, sizeof *row);
    if (!row) return ERR_MEMORY;
    for (int64_t i = 0; i < E; i++, dst += K) {
        memcpy(row, dst, (size_t)K * sizeof *row);
        for (int64_t c = 0; c < 3; c++)
            for (int64_t k = 0; k < p * p; k++) dst[c * p * p + k] = row[3 * k + c];
    }
    free(row);
    return OK;
}

static Status tokens(const Vision *e, float *dst) {
    int64_t E = e->d.E;
    Status st = e->d.cls ? take(e, dst, e->names->cls, -1, NULL, 1, E) : OK;
    if (st != OK || !e->d.registers) return st;
    /* behind cls: the order of an image's rows */
    return take(e, at(dst, e->d.cls ? E : 0), e->names->registers, -1, NULL, 1, e->d.registers * E);
}

/* The table of the grid (h, w), cls's row first where there is one; `dst` NULL: only checks what is in the file. */
static Status positions(const Vision *e, int h, int w, float *dst) {
    int64_t E = e->d.E, lead = e->d.cls_position, rows = lead + (int64_t)e->grid * e->grid;
    if (!(e->has & HAS_POSITION)) {
        /* a sine and a cosine, of a row and of a column */
        if (E % 4) return err_set(ERR_USAGE, "%s: sine positions need a width that 4 divides, not %d", e->path, e->d.E);
        if (dst) vit_position_sincos(dst, h, w, (int)E);
        return OK;
    }
    float *table = mem_new((size_t)(rows * E), sizeof *table);
    Status st = table ? take(e, table, e->names->position, -1, NULL, 1, rows * E) : ERR_MEMORY;
    if (st == OK && dst) {
        memcpy(dst, table, (size_t)(lead * E) * sizeof *dst);
        st = vit_position_resize(dst + lead * E, h, w, table + lead * E, e->grid, (int)E, e->resize);
    }
    free(table);
    return st;
}

/* Of EVA-02 the reference grid is 16 in all releases; timm's PE scales to the trained grid, Meta's does not. */
static void rotary(const Vision *e, int h, int w, float *cosine, float *sine) {
    VitRotarySpec r = {.kind = e->d.rotary, .frequency = e->frequency, .first = e->d.cls,
                       .reference = e->config.reference};
    if (r.kind == VIT_ROTARY_EVA02 && !r.reference) r.reference = 16;
    if (r.kind == VIT_ROTARY_PE && e->print->dialect == DIALECT_OPENAI) r.reference = 0;
    else if (r.kind == VIT_ROTARY_PE && !r.reference) r.reference = e->grid;
    vit_position_rotary(cosine, sine, &r, h, w, e->d.D);
}

/* ---- a row of the table ------------------------------------------------------------------------------------------ */

/* What a row of several tensors is joined of, or computed; else it is one tensor of the file. */
Status vision_part(const Vision *e, int row, int l, int h, int w, float *dst) {
    const VisionPart *p = &vision_parts[row];
    const char *name = vision_part_name(e->names, p->name);
    switch (row) {
    case VIT_PATCH_W: return patch_weight(e, dst);
    case VIT_TOKENS: return tokens(e, dst);
    case VIT_POSITION: return positions(e, h, w, dst);
    case VIT_QKV_W: return qkv_weight(e, l, dst);
    case VIT_QKV_B: return qkv_bias(e, l, dst);
    case VIT_UP_W: return up_part(e, l, dst, "weight", e->d.E);
    case VIT_UP_B: return up_bias(e, l, dst);
    }
    int64_t cols = p->shape[strlen(p->shape) - 1] == 'F' ? e->d.F : e->d.E, rows = p->shape[1] ? e->d.E : 1;
    Status st = p->has ? take_if(e, e->has & p->has, dst, name, l, p->suffix, cols)
                       : take(e, dst, name, l, p->suffix, rows, cols);
    if (!p->scale) return st;
    return scaled(e, st, vision_part_name(e->names, p->scale), l, dst, p->shape[1] ? cols : 1);
}

/* Rows of the table that a model of these switches has, and that are in a file: rotary tables are not. */
static bool wants(const VitDims *d, int row) {
    const VisionPart *p = &vision_parts[row];
    if (row == VIT_TOKENS) return vit_lead(d) > 0;
    return p->shape && (!p->when || *(const bool *)(const void *)((const char *)d + p->when));
}

Status vision_check(const Vision *e) {
    Status st = OK;
    for (int row = 0; st == OK && row < VIT_ROWS; row++) {
        bool block = row >= VIT_NORM1_W && row < VIT_POST_W;
        for (int l = block ? 0 : -1; st == OK && wants(&e->d, row) && l < (block ? e->d.L : 0); l++)
            st = vision_part(e, row, l, e->grid, e->grid, NULL);
    }
    return st;
}

static Status put_rotary(const Vision *e, Vit *v) {
    size_t n = (size_t)v->h * (size_t)v->w * (size_t)e->d.D / 2;
    float *table = mem_new(2 * n, sizeof *table);
    if (!table) return ERR_MEMORY;
    rotary(e, v->h, v->w, table, table + n);
    Status st = params_put(&v->params, params_tensor(&v->params, VIT_COSINE, -1), 0, (int64_t)n, table, DT_F32);
    if (st == OK)
        st = params_put(&v->params, params_tensor(&v->params, VIT_SINE, -1), 0, (int64_t)n, table + n, DT_F32);
    free(table);
    return st;
}

Status vision_load(const Vision *e, Vit *v) {
    int64_t most = 0;
    for (int i = 0; i < v->params.n; i++)
        if (v->params.tensor[i].n > most) most = v->params.tensor[i].n;
    float *x = mem_new((size_t)most, sizeof *x); /* the largest: weights are gigabytes, and come one by one */
    Status st = x ? OK : ERR_MEMORY;
    for (int i = 0; st == OK && i < v->params.n; i++) {
        const ParamTensor *t = &v->params.tensor[i];
        if (!wants(&e->d, t->row)) continue;
        st = vision_part(e, t->row, t->layer, v->h, v->w, x);
        if (st == OK) st = params_put(&v->params, t, 0, t->n, x, DT_F32);
    }
    free(x);
    return st == OK && e->d.rotary ? put_rotary(e, v) : st;
}
