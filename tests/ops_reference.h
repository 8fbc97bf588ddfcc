/* ops_reference: the ops as their definitions read, one loop a sum. Included twice by test_ops.c: with real = double it
 * gives the expected values, with real = float the plain implementation whose error is the yardstick. REF(name) names
 * them; stored() is what the backend's element type makes of a value (nothing, in double). */

static double REF(stored)(DType t, real v) {
    return sizeof(real) == sizeof(double) ? (double)v : rounded(t, (double)v);
}

static real REF(root)(real v) { return sizeof(real) == sizeof(double) ? (real)sqrt((double)v) : (real)sqrtf((float)v); }
static real REF(expo)(real v) { return sizeof(real) == sizeof(double) ? (real)exp((double)v) : (real)expf((float)v); }
static real REF(loga)(real v) { return sizeof(real) == sizeof(double) ? (real)log((double)v) : (real)logf((float)v); }
static real REF(erro)(real v) { return sizeof(real) == sizeof(double) ? (real)erf((double)v) : (real)erff((float)v); }

static void REF(gemm)(double *c, const Gemm *g, const double *a, const double *b, const double *bias) {
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            real s = 0;
            for (int64_t p = 0; p < g->k; p++)
                s += (real)a[g->ta ? p * g->lda + i : i * g->lda + p] *
                     (real)b[g->tb ? j * g->ldb + p : p * g->ldb + j];
            if (bias) s += (real)bias[j];
            if (g->add) s += (real)c[i * g->ldc + j];
            c[i * g->ldc + j] = REF(stored)(g->ct, s);
        }
}

static real REF(tanh)(real v) { return sizeof(real) == sizeof(double) ? (real)tanh((double)v) : (real)tanhf((float)v); }

static real REF(activation)(ActKind kind, real x) {
    switch (kind) {
    case ACT_GELU: return (real)0.5 * x * ((real)1 + REF(erro)(x * (real)0.70710678118654752440));
    case ACT_GELU_TANH:
        return (real)0.5 * x * ((real)1 + REF(tanh)((real)0.79788456080286535588 * (x + (real)0.044715 * x * x * x)));
    case ACT_GELU_QUICK: return x / ((real)1 + REF(expo)((real)-1.702 * x));
    case ACT_RELU: return x > 0 ? x : 0;
    default: return x / ((real)1 + REF(expo)(-x));
    }
}

/* RMS: y = z rstd gamma + beta. */
static void REF(rms)(double *y, double *rstd, const double *z, const double *gamma, const double *beta, int64_t C,
                     double eps) {
    real v = 0;
    for (int64_t c = 0; c < C; c++) v += (real)z[c] * (real)z[c];
    real r = (real)1 / REF(root)(v / (real)C + (real)eps);
    for (int64_t c = 0; c < C; c++) y[c] = (double)((real)z[c] * r * (real)gamma[c] + (beta ? (real)beta[c] : 0));
    *rstd = (double)r;
}

/* One row: y = (z - mean) rstd gamma + beta. */
static void REF(norm)(double *y, double *mean, double *rstd, const double *z, const double *gamma, const double *beta,
                      int64_t C, double eps) {
    real m = 0, v = 0;
    for (int64_t c = 0; c < C; c++) m += (real)z[c];
    m /= (real)C;
    for (int64_t c = 0; c < C; c++) v += ((real)z[c] - m) * ((real)z[c] - m);
    real r = (real)1 / REF(root)(v / (real)C + (real)eps);
    for (int64_t c = 0; c < C; c++) y[c] = (double)(((real)z[c] - m) * r * (real)gamma[c] + (beta ? (real)beta[c] : 0));
    *mean = (double)m;
    *rstd = (double)r;
}

/* One (row, head): q (D), n keys and values; bias of each score, mask: dropout's factors. */
static void REF(attend)(double *o, double *lse, const double *q, const double *const *k, const double *const *v,
                        const double *bias, const double *mask, int64_t n, int64_t D, double scale) {
    real *s = calloc((size_t)n + 1, sizeof *s), max = (real)-1e30, sum = 0;
    assert_non_null(s);
    for (int64_t j = 0; j < n; j++) {
        for (int64_t d = 0; d < D; d++) s[j] += (real)q[d] * (real)k[j][d];
        s[j] = s[j] * (real)scale + (real)bias[j];
        if (s[j] > max) max = s[j];
    }
    for (int64_t j = 0; j < n; j++) sum += s[j] = REF(expo)(s[j] - max);
    for (int64_t d = 0; d < D; d++) {
        real a = 0;
        for (int64_t j = 0; j < n; j++) a += s[j] / sum * (real)mask[j] * (real)v[j][d];
        o[d] = REF(stored)(E, a);
    }
    *lse = (double)(max + REF(loga)(sum));
    free(s);
}

static void REF(normalize)(double *y, const double *f, const double *scale, int64_t N, int64_t width, int64_t P,
                           double eps) {
    double one = 1.0, zero = 0.0, m, r, *row = doubles(width), *g = doubles(width), *b = doubles(width);
    for (int64_t c = 0; c < width; c++) g[c] = one, b[c] = zero;
    for (int64_t i = 0; i < N; i++) {
        double s = scale ? scale[i / P] : 1.0;
        for (int64_t c = 0; c < width; c++) row[c] = (double)((real)f[i * width + c] * (real)s);
        REF(norm)(y + i * width, &m, &r, row, g, b, width, eps);
        for (int64_t c = 0; c < width; c++) y[i * width + c] = REF(stored)(E, (real)y[i * width + c]);
    }
    free(row);
    free(g);
    free(b);
}

/* Loss of one row of logits z with target weights t. */
static double REF(cross_entropy)(const double *z, const double *t, int64_t n) {
    real max = (real)z[0], sum = 0, loss = 0;
    for (int64_t j = 0; j < n; j++) max = (real)z[j] > max ? (real)z[j] : max;
    for (int64_t j = 0; j < n; j++) sum += REF(expo)((real)z[j] - max);
    real lse = max + REF(loga)(sum);
    for (int64_t j = 0; j < n; j++) loss += (real)t[j] * (lse - (real)z[j]);
    return (double)loss;
}

static void REF(adamw)(double *p, double *m, double *v, double *ema, const double *g, const AdamW *a, double scale) {
    for (int64_t i = 0; i < a->n && scale != 0.0; i++) {
        real x = (real)g[i] * (real)scale;
        real mi = (real)a->beta1 * (real)m[i] + ((real)1 - (real)a->beta1) * x;
        real vi = (real)a->beta2 * (real)v[i] + ((real)1 - (real)a->beta2) * x * x;
        real q = (real)p[i] * ((real)1 - (real)a->lr * (real)a->weight_decay);
        q -= (real)a->lr * (mi / (real)a->c1) / (REF(root)(vi / (real)a->c2) + (real)a->eps);
        m[i] = (double)mi, v[i] = (double)vi, p[i] = (double)q;
        ema[i] = (double)((real)ema[i] + ((real)1 - (real)a->ema_decay) * ((real)p[i] - (real)ema[i]));
    }
}
