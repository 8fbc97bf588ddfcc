/* gold_plain: see gold_plain.h. */
#include "tests/gold_plain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

typedef struct { const Vit *v; bool round; } Plain;

static double cut(const Plain *p, double x) { return p->round ? (double)bf16_to_f32(bf16_from_f32((float)x)) : x; }

static double *numbers(int64_t n) {
    double *x = mem_new((size_t)n, sizeof *x);
    BUG_ON(!x, "out of memory");
    return x;
}

/* A tensor of the store. */
static double *weight(const Plain *p, int row, int layer) {
    const ParamTensor *t = params_tensor(&p->v->params, row, layer);
    float *f = mem_new((size_t)t->n, sizeof *f);
    double *x = numbers(t->n);
    BUG_ON(!f || params_values(&p->v->params, t, f) != OK, "out of memory");
    for (int64_t i = 0; i < t->n; i++) x[i] = cut(p, (double)f[i]);
    free(f);
    return x;
}

/* y(N,M) = x(N,K) w(M,K)^T + b */
static double *linear(const Plain *p, const double *x, int64_t N, int64_t K, int64_t M, int w_row, int b_row, int l) {
    double *w = weight(p, w_row, l), *b = weight(p, b_row, l), *y = numbers(N * M);
    for (int64_t i = 0; i < N; i++)
        for (int64_t j = 0; j < M; j++) {
            double sum = b[j];
            for (int64_t k = 0; k < K; k++) sum += x[i * K + k] * w[j * K + k];
            y[i * M + j] = cut(p, sum);
        }
    free(w);
    free(b);
    return y;
}

/* Rows of C at stride ld, in place. */
static void norm(const Plain *p, double *x, int64_t N, int64_t C, int64_t ld, int g_row, int o_row, int l, bool rms) {
    double *g = weight(p, g_row, l), *o = rms ? NULL : weight(p, o_row, l);
    for (int64_t i = 0; i < N; i++) {
        double *r = x + i * ld, mean = 0, sq = 0;
        for (int64_t c = 0; c < C && !rms; c++) mean += r[c] / (double)C;
        for (int64_t c = 0; c < C; c++) sq += (r[c] - mean) * (r[c] - mean) / (double)C;
        double s = 1 / sqrt(sq + (double)p->v->d.eps);
        for (int64_t c = 0; c < C; c++) r[c] = cut(p, (r[c] - mean) * s * g[c] + (o ? o[c] : 0));
    }
    free(g);
    free(o);
}

static double activated(ActKind k, double x) {
    switch (k) {
    case ACT_GELU: return x * 0.5 * erfc(-x * 0.70710678118654752440);
    case ACT_GELU_TANH: return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case ACT_GELU_QUICK: return x / (1 + exp(-1.702 * x));
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_SILU: return x / (1 + exp(-x));
    }
    return 0;
}

/* Pairs of one head of one row. */
static void turn(const Plain *p, double *head, int row) {
    const VitDims *d = &p->v->d;
    double *c = weight(p, VIT_COSINE, -1), *s = weight(p, VIT_SINE, -1);
    bool halves = d->rotary == VIT_ROTARY_DINOV3;
    for (int j = 0, h = d->D / 2; j < h; j++) {
        double *a = head + (halves ? j : 2 * j), *b = head + (halves ? j + h : 2 * j + 1), x = *a, y = *b;
        *a = cut(p, x * c[row * h + j] - y * s[row * h + j]);
        *b = cut(p, y * c[row * h + j] + x * s[row * h + j]);
    }
    free(c);
    free(s);
}

static void prepare(const Plain *p, double *qkv, int64_t N, int l) {
    const VitDims *d = &p->v->d;
    int64_t E = d->E, lead = vit_lead(d);
    for (int k = 0; d->qk_norm && k < 2; k++)
        norm(p, qkv + k * E, N, E, 3 * E, k ? VIT_K_NORM : VIT_Q_NORM, 0, l, true);
    for (int64_t i = 0; d->rotary && i < N; i++)
        for (int h = 0; i % p->v->P >= lead && h < 2 * d->H; h++)
            turn(p, qkv + i * 3 * E + h * d->D, (int)(i % p->v->P - lead));
}

static double *attention(const Plain *p, const double *qkv, int64_t N) {
    const VitDims *d = &p->v->d;
    int64_t E = d->E, P = p->v->P, D = d->D;
    double *o = numbers(N * E), *s = numbers(P);
    for (int64_t i = 0; i < N; i++)
        for (int64_t h = 0; h < d->H; h++) {
            const double *q = qkv + i * 3 * E + h * D, *k = qkv + i / P * P * 3 * E + E + h * D, *v = k + E;
            double top = -INFINITY, sum = 0;
            for (int64_t j = 0; j < P; j++) {
                s[j] = 0;
                for (int64_t c = 0; c < D; c++) s[j] += q[c] * k[j * 3 * E + c] / sqrt((double)D);
                top = fmax(top, s[j]);
            }
            for (int64_t j = 0; j < P; j++) sum += s[j] = exp(s[j] - top);
            for (int64_t c = 0; c < D; c++) {
                double x = 0;
                for (int64_t j = 0; j < P; j++) x += s[j] / sum * v[j * 3 * E + c];
                o[i * E + h * D + c] = cut(p, x);
            }
        }
    free(s);
    return o;
}

static double *copy(const double *x, int64_t n) {
    double *y = numbers(n);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

static void add(const Plain *p, double *x, double *branch, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = cut(p, x[i] + branch[i]);
    free(branch);
}

static void block(const Plain *p, double *x, int64_t N, int l) {
    const VitDims *d = &p->v->d;
    int64_t E = d->E, F = d->F, U = (d->gated ? 2 : 1) * F;
    double *h = copy(x, N * E);
    norm(p, h, N, E, E, VIT_NORM1_W, VIT_NORM1_B, l, d->rms);
    double *qkv = linear(p, h, N, E, 3 * E, VIT_QKV_W, VIT_QKV_B, l);
    prepare(p, qkv, N, l);
    double *o = attention(p, qkv, N);
    if (d->heads_norm) norm(p, o, N, E, E, VIT_HEADS_W, VIT_HEADS_B, l, d->rms);
    add(p, x, linear(p, o, N, E, E, VIT_OUT_W, VIT_OUT_B, l), N * E);
    memcpy(h, x, (size_t)(N * E) * sizeof *h);
    norm(p, h, N, E, E, VIT_NORM2_W, VIT_NORM2_B, l, d->rms);
    double *u = linear(p, h, N, E, U, VIT_UP_W, VIT_UP_B, l), *a = numbers(N * F);
    for (int64_t i = 0; i < N * F; i++) {
        const double *r = u + i / F * U + i % F;
        a[i] = cut(p, activated(d->act, r[0]));
        if (d->gated) a[i] = cut(p, a[i] * r[F]);
    }
    if (d->mlp_norm) norm(p, a, N, F, F, VIT_MLP_W, VIT_MLP_B, l, d->rms);
    add(p, x, linear(p, a, N, F, E, VIT_DOWN_W, VIT_DOWN_B, l), N * E);
    free(h), free(qkv), free(o), free(u), free(a);
}

/* Patch vectors (c, y, x). */
static double *patches(const Plain *p, const float *pixels, int images) {
    const Vit *v = p->v;
    int64_t q = v->d.p, K = 3 * q * q, G = (int64_t)v->h * v->w;
    double *rows = numbers(images * G * K);
    for (int64_t i = 0; i < images * G; i++)
        for (int64_t k = 0; k < K; k++) {
            int64_t c = k / (q * q), y = i % G / v->w * q + k / q % q, x = i % G % v->w * q + k % q;
            rows[i * K + k] = cut(p, (double)pixels[((i / G * 3 + c) * v->height + y) * v->width + x]);
        }
    return rows;
}

static double *stem(const Plain *p, const float *pixels, int images) {
    const Vit *v = p->v;
    const VitDims *d = &v->d;
    int64_t E = d->E, K = 3LL * d->p * d->p, G = (int64_t)v->h * v->w, lead = vit_lead(d), N = (int64_t)images * v->P;
    double *rows = patches(p, pixels, images), *e = linear(p, rows, images * G, K, E, VIT_PATCH_W, VIT_PATCH_B, -1);
    double *token = lead ? weight(p, VIT_TOKENS, -1) : NULL, *pos = d->position ? weight(p, VIT_POSITION, -1) : NULL;
    double *x = numbers(N * E);
    if (d->pre_first) norm(p, e, images * G, E, E, VIT_PRE_W, VIT_PRE_B, -1, d->rms);
    for (int64_t i = 0; i < N; i++)
        for (int64_t c = 0; c < E; c++) {
            int64_t r = i % v->P, at = r < lead ? (r == 0 && d->cls_position ? 0 : -1) : r - lead + d->cls_position;
            double y = r < lead ? token[r * E + c] : e[(i / v->P * G + r - lead) * E + c];
            x[i * E + c] = cut(p, y + (pos && at >= 0 ? pos[at * E + c] : 0));
        }
    if (d->pre && !d->pre_first) norm(p, x, N, E, E, VIT_PRE_W, VIT_PRE_B, -1, d->rms);
    free(rows), free(e), free(token), free(pos);
    return x;
}

double *gold_plain(const Vit *v, const float *pixels, int images, int blocks, bool normed, bool round) {
    Plain p = {v, round};
    int64_t N = (int64_t)images * v->P;
    double *x = stem(&p, pixels, images);
    for (int l = 0; l < blocks; l++) block(&p, x, N, l);
    if (normed) norm(&p, x, N, v->d.E, v->d.E, VIT_POST_W, VIT_POST_B, -1, v->d.rms);
    return x;
}
