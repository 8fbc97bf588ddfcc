/* lm: see lm.h. */
#include "kernels/model/lm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

static const char *const names[LM_FAMILY_COUNT] = {
#define X(id, name) name,
    LM_FAMILIES(X)
#undef X
};
const char *lm_family_name(LmFamily f) { return names[f]; }

/* Small letters say what exists: biases of q, k and v, behind attention, in the feed-forward; words narrower than the
 * stream; a last norm; a gated or a plain feed-forward; a head of its own. */
static ParamSizes sizes_of(const LmDims *d) {
    ParamSizes s = {{0}};
    s.of['A'] = (int64_t)d->H * d->D, s.of['B'] = (int64_t)d->K * d->D, s.of['C'] = d->C, s.of['E'] = d->E;
    s.of['F'] = d->F, s.of['H'] = d->H, s.of['L'] = d->L, s.of['M'] = d->M, s.of['P'] = lm_positions(d);
    s.of['U'] = d->buckets, s.of['V'] = d->V;
    s.of['q'] = d->qkv_bias, s.of['o'] = d->out_bias, s.of['f'] = d->ffn_bias, s.of['n'] = d->E != d->C;
    s.of['l'] = d->last_norm, s.of['g'] = d->gated, s.of['p'] = !d->gated, s.of['h'] = d->head == LM_HEAD_OWN;
    return s;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void take_memory(Lm *m, Arena *run) {
    const LmDims *d = &m->d;
    if (d->family == LM_LLAMA) {
        m->cos = arena_push(run, (size_t)m->rows * (size_t)(d->D / 2), sizeof *m->cos);
        m->sin = arena_push(run, (size_t)m->rows * (size_t)(d->D / 2), sizeof *m->sin);
    }
    for (int i = 0; i < 2 && d->family == LM_T5; i++)
        m->bias[i] = arena_push(run, (size_t)d->H * (2 * (size_t)d->distance + 1), sizeof(float));
}

Status lm_open_table(Lm *m, const LmTable *table, const LmDims *d, const Backend *b, Arena *run, int32_t rows,
                     const ParamsSpec *spec) {
    *m = (Lm){.d = *d, .b = b, .table = table, .rows = rows};
    BUG_ON(d->head == LM_HEAD_ASK, "lm: whether the head is tied is for the loader to find out");
    /* a learned or tabled position beyond the last would be read from somewhere else */
    if (d->N && rows > d->N)
        return err_set(ERR_USAGE,
                       "texts of %d tokens, visual ones included, for a language model that has %d positions",
                       rows, d->N);
    ParamSizes s = sizes_of(d);
    /* once: a step must not ask for memory */
    m->kv = mem_new((size_t)d->M, sizeof *m->kv);
    Status st = m->kv ? params_open(&m->params, table->params, &s, b, run, spec) : ERR_MEMORY;
    if (st == OK) take_memory(m, run);
    if (st == OK && run->full)
        st = err_set(ERR_MEMORY, "the language model needs more than the %.2f GiB taken for it",
                     (double)run->size / (1 << 30));
    if (st != OK) lm_close(m);
    return st;
}

void lm_close(Lm *m) {
    params_close(&m->params);
    free(m->kv);
    *m = (Lm){0};
}

Param lm_get(const Lm *m, int first, int last, int layer) {
    if (!params_has(&m->params, first, layer)) return (Param){.frozen = true};
    return params_joined(&m->params, first, last, layer, layer);
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
        /* slow pairs never came round in training: stretched; fast ones stay */
        if (wave > r->original / r->low) return (float)(f / r->factor);
        /* between the two a blend, so that neighbours do not jump */
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
    mem_free(turn, c, s);
    return st;
}

/* T5's bucket of a key that stands d rows behind (d < 0: before) the row that looks at it; spec/stage2.md 3a. */
static int32_t bucket_of(const LmDims *dims, int32_t d, bool both_sides) {
    int32_t n = dims->buckets, far = dims->distance, side = 0;
    if (both_sides) {
        n /= 2;
        if (d > 0) side = n;
        d = abs(d);
    } else {
        d = d < 0 ? -d : 0;
    }
    int32_t exact = n / 2;
    /* near keys have a bucket each, far ones share them by the logarithm */
    if (d < exact) return side + d;
    double more = log((double)d / exact) / log((double)far / exact) * (n - exact);
    return side + (more < n - 1 - exact ? exact + (int32_t)more : n - 1);
}

/* The table (buckets, H) written out by distance and head. */
static Status make_bias(Lm *m, int side) {
    const LmDims *d = &m->d;
    const ParamTensor *t = params_tensor(&m->params, m->table->bias[side], -1);
    /* beyond `distance` all is one bucket: kernels clamp there */
    int32_t wide = 2 * d->distance + 1;
    size_t n = (size_t)d->H * (size_t)wide;
    float *table = mem_new((size_t)t->n, sizeof *table), *out = mem_new(n, sizeof *out);
    Status st = table && out ? OK : ERR_MEMORY;
    if (st == OK) st = params_values(&m->params, t, table);
    for (int32_t h = 0; st == OK && h < d->H; h++)
        for (int32_t i = 0; i < wide; i++)
            out[(int64_t)h * wide + i] = table[bucket_of(d, i - d->distance, side == 0) * d->H + h];
    if (st == OK) {
        m->b->upload(m->bias[side], out, n * sizeof *out);
        m->b->sync();
    }
    mem_free(table, out);
    return st;
}

Status lm_words_rms(const Lm *m, double *rms) {
    const ParamTensor *t = params_tensor(&m->params, 0, -1);      /* words are the first row of each family's table */
    float *x = mem_new((size_t)t->n, sizeof *x);
    Status st = x ? params_values(&m->params, t, x) : ERR_MEMORY;
    double sum = 0;
    for (int64_t i = 0; st == OK && i < t->n; i++) sum += (double)x[i] * (double)x[i];
    *rms = sqrt(sum / (double)t->n);
    free(x);
    return st;
}

Status lm_ready(Lm *m) {
    Status st = m->d.family == LM_LLAMA ? make_rope(m) : OK;
    for (int side = 0; side < 2 && st == OK && m->d.family == LM_T5; side++) st = make_bias(m, side);
    return st == OK ? m->b->status() : st;
}
