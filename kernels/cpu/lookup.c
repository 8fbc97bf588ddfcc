/* lookup: rows that enter a model: words or given rows, and positions; and patches of pixels as rows.
 *
 *   y[i] = source_i + pos[pos_id[i]],  source_i = scale word[ids[i]], or rows[-1 - ids[i]]
 *   drows[-1 - ids[i]] = or += dy[i]
 *   dword[ids[i]] += scale dy[i]
 *
 * Bound by memory: forward reads 2NC at most and writes NC elements; backward moves 2 or 3 C elements a given row, 3 C
 * a word. The words' gradient goes through all rows for a strip of columns, so that each sum has the order of the
 * rows. A patch row is p runs of p pixels of each channel: reads the pixels once, writes 3 p p numbers. */
#include "kernels/cpu/vec.h"

/* Which row of `rows` y's row i is made of; -1: none, it is a word. */
static inline int64_t given_row(const Lookup *a, int64_t i) {
    return !a->ids ? i : a->ids[i] < 0 ? -1 - (int64_t)a->ids[i] : -1;
}

void FN(lookup)(const Lookup *a) {
    int64_t C = a->C;
#pragma omp parallel for schedule(static) if (PARALLEL(a->N * C))
    for (int64_t i = 0; i < a->N; i++) {
        /* without pos_id a model has positions elsewhere (rotary), or none */
        int64_t given = given_row(a, i), p = a->pos && a->pos_id ? a->pos_id[i] : -1;
        const void *s = given >= 0 ? a->rows : a->word;
        int64_t at = (given >= 0 ? given : (int64_t)a->ids[i]) * C;
        DType held = given >= 0 ? ELEM : a->held;
        float scale = given >= 0 ? 1.0f : a->scale;
        elem *y = (elem *)a->y + i * C;
        for (int64_t c = 0; c < C; c += LANES) {
            vec v = ld_held(s, at + c, held, C - c) * scale;
            if (p >= 0) v += ld_held(a->pos, p * C + c, a->held, C - c);
            stv(y + c, v, C - c);
        }
    }
}

void FN(lookup_bwd)(const Lookup *a, void *drows, const void *dy, bool add) {
    int64_t C = a->C;
#pragma omp parallel for schedule(static) if (PARALLEL(a->N * C))
    for (int64_t i = 0; i < a->N; i++) {
        int64_t given = given_row(a, i);
        if (given < 0) continue;
        elem *d = (elem *)drows + given * C;
        const elem *g = (const elem *)dy + i * C;
        for (int64_t c = 0; c < C; c += LANES) {
            vec v = ldv(g + c, C - c);
            if (add) v += ldv(d + c, C - c);
            stv(d + c, v, C - c);
        }
    }
}

void FN(lookup_words)(const Lookup *a, float *dword, int64_t words, const void *dy) {
    enum { STRIP = 32 };
    int64_t C = a->C;
    (void)words;
#pragma omp parallel for schedule(static) if (PARALLEL(a->N * C))
    /* threads share columns, not rows: a word may stand anywhere, and two must not add to it at once */
    for (int64_t c0 = 0; c0 < C; c0 += STRIP)
        for (int64_t i = 0; i < a->N; i++) {
            if (given_row(a, i) >= 0) continue;
            float *d = dword + a->ids[i] * C;
            const elem *g = (const elem *)dy + i * C;
            for (int64_t c = c0; c < MIN(C, c0 + STRIP); c += LANES)
                stf(d + c, ldv(g + c, C - c) * a->scale + ldf(d + c, C - c), C - c);
        }
}

/* ---- patches ----------------------------------------------------------------------------------------------------- */

/* The p pixels of channel c in line `line` of the patch whose left edge is column x0, scaled. */
static void patch_line(float *v, const Patches *a, int64_t image, int64_t line, int64_t x0, int64_t c) {
    int64_t H = a->height, W = a->width, step = a->planar ? 1 : 3;
    int64_t at = a->planar ? ((image * 3 + c) * H + line) * W + x0 : ((image * H + line) * W + x0) * 3 + c;
    for (int64_t x = 0; x < a->p; x++, at += step) {
        float f = a->t == DT_U8 ? (float)((const uint8_t *)a->pixels)[at] : ((const float *)a->pixels)[at];
        v[x] = fmadd(f, a->scale[c], a->shift[c]);
    }
}

static void store_line(const Patches *a, int64_t row, int64_t at, int64_t step, const float *v) {
    int64_t to = row * a->ldy + at;
    for (int64_t x = 0; x < a->p; x++, to += step) {
        if (a->ty == DT_F32) ((float *)a->y)[to] = v[x];
        else ((elem *)a->y)[to] = st(v[x]);
    }
}

void FN(patches)(const Patches *a) {
    int64_t p = a->p, gy = a->height / p, gx = a->width / p, N = a->images * gy * gx;
    /* a line at a time: its pixels lie together, whatever order the row wants */
    float *lines = cpu_scratch((size_t)omp_get_max_threads() * (size_t)p * sizeof(float));
    if (!lines) return;
#pragma omp parallel for schedule(static) if (PARALLEL(3 * N * p * p))
    for (int64_t r = 0; r < N; r++) {
        float *v = lines + omp_get_thread_num() * p;
        /* pixels beyond whole patches are left out, as a convolution does */
        int64_t image = r / (gy * gx), y0 = r / gx % gy * p, x0 = r % gx * p;
        for (int64_t c = 0; c < 3; c++)
            for (int64_t y = 0; y < p; y++) {
                patch_line(v, a, image, y0 + y, x0, c);
                if (a->channels_last) store_line(a, r, y * p * 3 + c, 3, v);
                else store_line(a, r, (c * p + y) * p, 1, v);
            }
    }
}
