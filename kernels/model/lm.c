/* lm: see lm.h. */
#include "kernels/model/lm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { ROUND = 64 };                     /* elements: rows of matrices stay aligned for products */

static const char *const names[LM_FAMILY_COUNT] = {
#define X(id, name) name,
    LM_FAMILIES(X)
#undef X
};
const char *lm_family_name(LmFamily f) { return names[f]; }

/* ---- layout ------------------------------------------------------------------------------------------------------ */

static int64_t letter(const LmDims *d, char c) {
    switch (c) {
    case 'A': return (int64_t)d->H * d->D;
    case 'B': return (int64_t)d->K * d->D;
    case 'C': return d->C;
    case 'E': return d->E;
    case 'F': return d->F;
    case 'H': return d->H;
    case 'P': return lm_positions(d);
    case 'U': return d->buckets;
    case 'V': return d->V;
    default: BUG_ON(1, "lm: no dimension '%c'", c);
    }
}

static bool exists(const LmDims *d, LmNeeds needs) {
    switch (needs) {
    case LM_IF_QKV_BIAS: return d->qkv_bias;
    case LM_IF_OUT_BIAS: return d->out_bias;
    case LM_IF_FFN_BIAS: return d->ffn_bias;
    case LM_IF_NARROW: return d->E != d->C;
    case LM_IF_LAST_NORM: return d->last_norm;
    case LM_IF_GATED: return d->gated;
    case LM_IF_PLAIN: return !d->gated;
    case LM_IF_OWN_HEAD: return d->head == LM_HEAD_OWN;
    default: return true;
    }
}

static void name_tensor(LmTensor *t) {
    const char *name = t->row->name, *at = strstr(name, "%d");
    if (!at) snprintf(t->name, sizeof t->name, "%s", name);
    else snprintf(t->name, sizeof t->name, "%.*s%d%s", (int)(at - name), name, t->layer, at + 2);
}

/* Vectors, and the bias tables of T5, which lm_ready writes out, are kept in f32 beside the elem copy. */
static bool in_f32(const LmRow *r) { return !r->shape[1] || r->shape[0] == 'U'; }

static void add_tensor(Lm *m, int r, int layer) {
    const LmRow *row = &m->table->rows[r];
    LmTensor *t = &m->tensor[m->n];
    *t = (LmTensor){.row = row, .layer = layer, .ndim = (int)strlen(row->shape), .n = 1, .vector_at = -1};
    name_tensor(t);
    for (int i = 0; i < t->ndim; i++) t->n *= t->shape[i] = letter(&m->d, row->shape[i]);
    if (!row->join) {
        m->total = (m->total + ROUND - 1) / ROUND * ROUND;
        m->vectors = (m->vectors + ROUND - 1) / ROUND * ROUND;
    }
    t->at = m->total;
    m->total += t->n;
    if (in_f32(row)) t->vector_at = m->vectors, m->vectors += t->n;
    m->count += t->n;
    if (m->first[r] < 0) m->first[r] = m->n;
    m->n++;
}

/* Rows of a kind go layer by layer: what a layer needs lies together. */
static void lay_out(Lm *m) {
    const LmTable *table = m->table;
    static const LmWhere order[] = {LM_ONCE, LM_LAYER, LM_DECODER};
    for (int k = 0; k < 3; k++) {
        int layers = order[k] == LM_ONCE ? 1 : order[k] == LM_LAYER ? m->d.L : m->d.M, before = m->n;
        for (int l = 0; l < layers; l++)
            for (int r = 0; r < table->n; r++)
                if (table->rows[r].where == order[k] && exists(&m->d, table->rows[r].needs))
                    add_tensor(m, r, order[k] == LM_ONCE ? -1 : l);
        if (layers) m->stride[order[k]] = (m->n - before) / layers;
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void take_memory(Lm *m, Arena *run) {
    const LmDims *d = &m->d;
    m->copy = arena_push(run, (size_t)m->total, (size_t)dtype_size(m->b->elem));
    m->vector = arena_push(run, (size_t)m->vectors, sizeof *m->vector);
    if (d->family == LM_LLAMA) {
        m->cos = arena_push(run, (size_t)m->rows * (size_t)(d->D / 2), sizeof *m->cos);
        m->sin = arena_push(run, (size_t)m->rows * (size_t)(d->D / 2), sizeof *m->sin);
    }
    for (int i = 0; i < 2 && d->family == LM_T5; i++)
        m->bias[i] = arena_push(run, (size_t)d->H * (2 * (size_t)d->distance + 1), sizeof(float));
}

Status lm_open_table(Lm *m, const LmTable *table, const LmDims *d, const Backend *b, Arena *run, int32_t rows) {
    *m = (Lm){.d = *d, .b = b, .table = table, .rows = rows};
    BUG_ON(d->head == LM_HEAD_ASK, "lm: whether the head is tied is for the loader to find out");
    if (d->N && rows > d->N)
        return err_set(ERR_USAGE,
                       "texts of %d tokens, visual ones included, for a language model that has %d positions",
                       rows, d->N);
    m->tensor = mem_new((size_t)table->n * (size_t)(d->L + d->M + 1), sizeof *m->tensor);
    m->first = mem_new((size_t)table->n, sizeof *m->first);
    m->kv = mem_new((size_t)d->M, sizeof *m->kv);
    if (!m->tensor || !m->first || !m->kv) {
        lm_close(m);
        return ERR_MEMORY;
    }
    for (int r = 0; r < table->n; r++) m->first[r] = -1;
    lay_out(m);
    take_memory(m, run);
    if (!run->full) return OK;
    lm_close(m);
    return err_set(ERR_MEMORY, "the language model needs more than the %.2f GiB taken for it",
                   (double)run->size / (1 << 30));
}

void lm_close(Lm *m) {
    free(m->tensor);
    free(m->first);
    free(m->kv);
    *m = (Lm){0};
}

void lm_write(Lm *m, const LmTensor *t, int64_t first, const float *x, int64_t n) {
    size_t size = (size_t)dtype_size(m->b->elem);
    BUG_ON(first < 0 || first + n > t->n, "lm: elements %lld+%lld of %s", (long long)first, (long long)n, t->name);
    char *at = (char *)m->copy + (size_t)(t->at + first) * size;
    if (t->vector_at >= 0) m->b->upload(m->vector + t->vector_at + first, x, (size_t)n * sizeof *x);
    if (m->b->elem == DT_F32) {
        m->b->upload(at, x, (size_t)n * size);
        m->b->sync();
        return;
    }
    bf16 part[4096];
    for (int64_t i = 0; i < n; i += 4096) {
        int64_t k = n - i < 4096 ? n - i : 4096;
        dtype_from_f32(part, m->b->elem, x + i, (size_t)k);
        m->b->upload(at + (size_t)i * size, part, (size_t)k * size);
        m->b->sync();
    }
}

/* Tensors of a table's row stand as far apart as a layer has tensors. */
static const LmTensor *tensor_of(const Lm *m, int row, int layer) {
    const LmRow *r = &m->table->rows[row];
    const LmTensor *t = &m->tensor[m->first[row] + (layer > 0 ? layer * m->stride[r->where] : 0)];
    BUG_ON(t->row != r || t->layer != layer, "lm: no %s in layer %d", r->name, layer);
    return t;
}

Param lm_get(const Lm *m, int first, int last, int layer) {
    if (m->first[first] < 0) return (Param){.frozen = true};
    const LmTensor *a = tensor_of(m, first, layer), *z = tensor_of(m, last, layer);
    int64_t n = z->at + z->n - a->at, cols = a->ndim == 2 ? a->shape[1] : n;
    Param p = {.rows = n / cols, .cols = cols, .frozen = true,
               .copy = (char *)m->copy + (size_t)a->at * (size_t)dtype_size(m->b->elem)};
    p.w = a->vector_at >= 0 ? m->vector + a->vector_at : m->b->elem == DT_F32 ? p.copy : NULL;
    return p;
}

/* ---- what follows from the weights ------------------------------------------------------------------------------- */

/* As transformers: angles in f32, their cosines and sines rounded to the model's type. */
static void rope_row(const Lm *m, int32_t p, const float *turn, float *c, float *s) {
    for (int32_t i = 0; i < m->d.D / 2; i++) {
        float angle = (float)p * turn[i];
        c[i] = cosf(angle), s[i] = sinf(angle);
        if (m->b->elem == DT_BF16) c[i] = bf16_to_f32(bf16_from_f32(c[i])), s[i] = bf16_to_f32(bf16_from_f32(s[i]));
    }
}

/* Radians a position of pair i (spec/stage2.md 2b). */
static float rope_turn(const LmRope *r, int32_t i, int32_t D) {
    double f = pow(r->theta, -2.0 * i / D);
    if (r->kind == LM_ROPE_LINEAR) return (float)(f / r->factor);
    if (r->kind == LM_ROPE_LLAMA3) {
        double wave = 6.283185307179586 / f, s = (r->original / wave - r->low) / (r->high - r->low);
        if (wave > r->original / r->low) return (float)(f / r->factor);
        if (wave >= r->original / r->high) return (float)(f * (s + (1 - s) / r->factor));
    }
    return (float)f;
}

static Status make_rope(Lm *m) {
    int32_t half = m->d.D / 2;
    size_t n = (size_t)m->rows * (size_t)half;
    float *turn = mem_new((size_t)half, sizeof *turn), *c = mem_new(n, sizeof *c), *s = mem_new(n, sizeof *s);
    Status st = turn && c && s ? OK : ERR_MEMORY;
    for (int32_t i = 0; st == OK && i < half; i++) turn[i] = rope_turn(&m->d.rope, i, m->d.D);
    for (int32_t p = 0; st == OK && p < m->rows; p++)
        rope_row(m, p, turn, c + (int64_t)p * half, s + (int64_t)p * half);
    if (st == OK) {
        m->b->upload(m->cos, c, n * sizeof *c);
        m->b->upload(m->sin, s, n * sizeof *s);
        m->b->sync();
    }
    free(turn);
    free(c);
    free(s);
    return st;
}

/* The bucket of a key that stands `d` behind its row (d < 0: before it); spec/stage2.md 3a. */
int32_t lm_bucket(const LmDims *dims, int32_t d, bool both_sides) {
    int32_t n = dims->buckets, far = dims->distance, side = 0;
    if (both_sides) {
        n /= 2;
        if (d > 0) side = n;
        d = abs(d);
    } else {
        d = d < 0 ? -d : 0;
    }
    int32_t exact = n / 2;
    if (d < exact) return side + d;
    double more = log((double)d / exact) / log((double)far / exact) * (n - exact);
    return side + (more < n - 1 - exact ? exact + (int32_t)more : n - 1);
}

/* The table (buckets, H) written out by distance and head. */
static Status make_bias(Lm *m, int side) {
    const LmDims *d = &m->d;
    const LmTensor *t = tensor_of(m, m->table->bias[side], -1);
    int32_t wide = 2 * d->distance + 1;
    size_t n = (size_t)d->H * (size_t)wide;
    float *table = mem_new((size_t)t->n, sizeof *table), *out = mem_new(n, sizeof *out);
    Status st = table && out ? OK : ERR_MEMORY;
    if (st == OK) m->b->download(table, m->vector + t->vector_at, (size_t)t->n * sizeof *table);
    for (int32_t h = 0; st == OK && h < d->H; h++)
        for (int32_t i = 0; i < wide; i++)
            out[(int64_t)h * wide + i] = table[lm_bucket(d, i - d->distance, side == 0) * d->H + h];
    if (st == OK) {
        m->b->upload(m->bias[side], out, n * sizeof *out);
        m->b->sync();
    }
    free(table);
    free(out);
    return st;
}

Status lm_ready(Lm *m) {
    Status st = m->d.family == LM_LLAMA ? make_rope(m) : OK;
    for (int side = 0; side < 2 && st == OK && m->d.family == LM_T5; side++) st = make_bias(m, side);
    return st == OK ? m->b->status() : st;
}

/* FNV-1a over what lies on the device, a piece at a time. */
Status lm_checksum(const Lm *m, uint64_t *sum) {
    enum { PIECE = 1 << 20 };
    size_t bytes = (size_t)m->total * (size_t)dtype_size(m->b->elem);
    unsigned char *part = mem_new(PIECE, 1);
    if (!part) return ERR_MEMORY;
    *sum = 0xcbf29ce484222325u;
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        m->b->download(part, (const char *)m->copy + at, n);
        for (size_t i = 0; i < n; i++) *sum = (*sum ^ part[i]) * 0x100000001b3u;
    }
    free(part);
    return m->b->status();
}
