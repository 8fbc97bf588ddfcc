/* embed: the rows that enter the first layer.
 *
 *   row r < nq:      u = query[r % Q]                              y = dropout((u - mean) rstd gamma + beta)
 *   row nq + t:      u = word[ids[t]] + pos[pos_id[t]]
 *
 *   dn = dy dropped out as y was;  du, dgamma and dbeta through the norm (norm.cuh)
 *   dquery[j] += sum of du over r % Q == j;  dword[w] += sum over its rows;  dpos[p] likewise
 *
 * One warp a row; u is not stored, the backward adds the table rows up again (du, rounded to T, is). Then the text rows
 * come sorted by word and by position, and one block adds up all rows of one table row: no atomics.
 *
 * Bytes (T of e bytes): forward reads nq C e + 2 nt C e of table rows (from L2, mostly) and writes NC e + 8N, plus 8C a
 * block (6 an SM). Backward reads dy and the table rows and writes du: 2NC e + (nq + 2nt) C e, plus 8N, 4C and 8C of
 * partial sums a block (3 an SM); the sums read du of the queries once, of the text twice, and move 8C for each row of
 * a table that occurs. Limited by memory.
 *
 * Limits of the fast kernels: C % 8 == 0, C <= 768, 16-byte addresses; else one block a row. Registers: 48 forward,
 * 141 backward (40 and 12 warps an SM). A word that occurs in every row is one block's work: 2,000 rows take about
 * 20 us. */
#include "kernels/cuda/norm.cuh"

template <class T> struct TableRows { const T *a, *b; };
template <class T> DEVICE TableRows<T> table_rows(const Embed &e, int64_t r) {
    if (r < e.nq) return {(const T *)e.query + (r % e.Q) * e.C, NULL};
    int64_t t = r - e.nq;
    return {(const T *)e.word + (int64_t)e.ids[t] * e.C, (const T *)e.pos + (int64_t)e.pos_id[t] * e.C};
}

/* Eight columns of u. */
template <class T> DEVICE void table_sum8(float v[8], TableRows<T> t, int c) {
    ld8(v, t.a + c);
    if (!t.b) return;
    float p[8];
    ld8(p, t.b + c);
    UNROLL for (int e = 0; e < 8; e++) v[e] += p[e];
}
template <class T> DEVICE float table_sum1(TableRows<T> t, int c) { return ld1(t.a + c) + (t.b ? ld1(t.b + c) : 0.0f); }

template <class T, int K> static __global__ __launch_bounds__(WARPS * 32) void embed_fast(Embed a) {
    __shared__ __align__(16) float gamma[K * CHUNK], beta[K * CHUNK];
    int lane = threadIdx.x & 31, C = a.C;
    columns_load<K>(gamma, a.gamma, C);
    columns_load<K>(beta, a.beta, C);
    __syncthreads();
    for (int64_t r = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5); r < a.nq + a.nt;
         r += (int64_t)gridDim.x * WARPS) {
        TableRows<T> t = table_rows<T>(a, r);
        float u[K][8], mean, rstd;
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            UNROLL for (int e = 0; e < 8; e++) u[k][e] = 0;
            if (c < C) table_sum8(u[k], t, c);
        }
        row_statistics<K>(u, C, lane, a.eps, false, &mean, &rstd);
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            float y[8];
            norm8(y, u[k], gamma, beta, k, lane, mean, rstd);
            if (a.drop.p > 0) drop8(y, a.drop, a.drop.rows[r], (uint32_t)c >> 3);
            st8((T *)a.y + r * C + c, y);
        }
        if (lane == 0) a.mean[r] = mean, a.rstd[r] = rstd;
    }
}

template <class T> static __global__ void embed_simple(Embed a) {
    int64_t r = blockIdx.x;
    TableRows<T> t = table_rows<T>(a, r);
    float mean, rstd;
    block_statistics(a.C, a.eps, false, &mean, &rstd, [&](int c) { return table_sum1(t, c); });
    for (int c = threadIdx.x; c < a.C; c += blockDim.x) {
        float v = (table_sum1(t, c) - mean) * rstd * a.gamma[c] + a.beta[c];
        if (a.drop.p > 0) v = drop1(v, a.drop, a.drop.rows[r], (uint32_t)c);
        st1((T *)a.y + r * a.C + c, v);
    }
    if (threadIdx.x == 0) a.mean[r] = mean, a.rstd[r] = rstd;
}

static bool aligned(const Embed *a) {
    return a->C % 8 == 0 && a->C <= 768 && aligned16(a->query) && aligned16(a->word) && aligned16(a->pos) &&
           aligned16(a->y) && aligned16(a->gamma) && aligned16(a->beta);
}

template <class T> static void embed_(const Embed *a) {
    int64_t N = a->nq + a->nt;
    if (!N) return;
    /* gamma and beta are read once a block: few blocks of many rows */
    int grid = at_most(ceil_div(N, WARPS), cuda.sms * 6);
    if (!aligned(a)) embed_simple<T><<<(unsigned)N, 128, 0, cuda.compute>>>(*a);
    else if (a->C <= 256) embed_fast<T, 1><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    else embed_fast<T, 3><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    cuda_launched("embed");
}
EXPORT(embed, (const Embed *a), (a))

/* ---- backward: through dropout and norm ------------------------------------------------------------------------ */

template <class T, int K>
static __global__ __launch_bounds__(WARPS * 32) void embed_bwd_fast(Embed a, EmbedGrad g, float *partial) {
    __shared__ __align__(16) float gamma[K * CHUNK], room[WARPS][K * CHUNK];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, C = a.C;
    columns_load<K>(gamma, a.gamma, C);
    __syncthreads();
    float sum[2][K][8]; /* dgamma, dbeta */
    UNROLL for (int k = 0; k < K; k++)
        UNROLL for (int e = 0; e < 8; e++) sum[0][k][e] = sum[1][k][e] = 0;
    for (int64_t r = (int64_t)blockIdx.x * WARPS + warp; r < a.nq + a.nt; r += (int64_t)gridDim.x * WARPS) {
        TableRows<T> t = table_rows<T>(a, r);
        float mean = a.mean[r], rstd = a.rstd[r], u[K][8], dn[K][8];
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            UNROLL for (int e = 0; e < 8; e++) u[k][e] = mean, dn[k][e] = 0; /* beyond C x^ is 0, and adds to no sum */
            if (c < C) {
                table_sum8(u[k], t, c);
                ld8(dn[k], (const T *)g.dy + r * C + c);
                if (a.drop.p > 0) drop8(dn[k], a.drop, a.drop.rows[r], (uint32_t)c >> 3);
            }
        }
        norm_backward<K>(dn, u, sum, gamma, C, lane, mean, rstd);
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c < C) st8((T *)g.dsum + r * C + c, dn[k]);
        }
    }
    leave_sums<K, 2>(partial, room, sum, 2, C);
}

template <class T> DEVICE float dropped1(const Embed &a, const T *dy, int64_t r, int c) {
    float d = ld1(dy + r * a.C + c);
    return a.drop.p > 0 ? drop1(d, a.drop, a.drop.rows[r], (uint32_t)c) : d;
}

/* Before dy is overwritten. */
template <class T> static __global__ void affine_simple(Embed a, const T *dy, float *partial, int64_t per) {
    strip_affine(
        partial, a.mean, a.rstd, a.nq + a.nt, a.C, per, [&](int64_t r, int c) { return dropped1(a, dy, r, c); },
        [&](int64_t r, int c) { return table_sum1(table_rows<T>(a, r), c); });
}

template <class T> static __global__ void embed_bwd_simple(Embed a, EmbedGrad g) {
    int64_t r = blockIdx.x;
    TableRows<T> t = table_rows<T>(a, r);
    block_norm_backward(
        a.C, a.gamma, a.mean[r], a.rstd[r], false, [&](int c) { return dropped1(a, (const T *)g.dy, r, c); },
        [&](int c) { return table_sum1(t, c); }, [&](int c, float du) { st1((T *)g.dsum + r * a.C + c, du); });
}

template <class T> static bool norm_bwd(const Embed *a, const EmbedGrad *g) {
    int64_t N = a->nq + a->nt;
    bool fast = aligned(a) && aligned16(g->dy) && aligned16(g->dsum);
    int parts = row_parts(N, a->C, 2, fast ? WARPS : 64, cuda.sms * 3);
    float *partial = (float *)cuda_workspace((size_t)parts * 2 * (size_t)a->C * sizeof(float), "embed_bwd");
    if (!partial) return false;
    if (!fast)
        affine_simple<T><<<dim3((unsigned)ceil_div(a->C, 128), (unsigned)parts), 128, 0, cuda.compute>>>(
            *a, (const T *)g->dy, partial, ceil_div(N, parts));
    else if (a->C <= 256) embed_bwd_fast<T, 1><<<parts, WARPS * 32, 0, cuda.compute>>>(*a, *g, partial);
    else embed_bwd_fast<T, 3><<<parts, WARPS * 32, 0, cuda.compute>>>(*a, *g, partial);
    cuda_launched("embed_bwd");
    float *dst[3] = {g->dgamma, g->dbeta, NULL};
    cuda_add_partials(dst, partial, parts, a->C, a->C);
    /* last: du takes the memory of dy, which the sums above read */
    if (!fast) embed_bwd_simple<T><<<(unsigned)N, 128, 0, cuda.compute>>>(*a, *g);
    return true;
}

/* ---- backward: adding up rows ---------------------------------------------------------------------------------- */

/* dst row id[u] += rows row[ptr[u] .. ptr[u+1]) of src, u = blockIdx.x; id NULL: rows u, u + n, u + 2n.. below `rows`.
 * A block is 32 lanes of eight columns x 8 warps, each of which takes every eighth row; then the eight in order. */
enum { SUM_WARPS = 8 };
template <class T, bool EIGHTS>
static __global__ void sum_rows_kernel(float *dst, const T *src, const int32_t *id, const int32_t *ptr,
                                       const int32_t *row, int64_t n, int64_t rows, int C) {
    __shared__ __align__(16) float room[SUM_WARPS][CHUNK];
    int u = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, c = (int)blockIdx.y * 256 + lane * 8;
    int64_t first = id ? ptr[u] : 0, count = id ? ptr[u + 1] - ptr[u] : (rows - u + n - 1) / n;
    float sum[8] = {0};
    if (c < C)
#pragma unroll 4
        /* eight rows under way: a frequent word's rows are far apart in memory */
        for (int64_t i = warp; i < count; i += SUM_WARPS) {
            float v[8];
            const T *from = src + (id ? row[first + i] : u + i * n) * C + c;
            if (EIGHTS) ld8(v, from);
            else load_some(v, from, C - c);
            UNROLL for (int e = 0; e < 8; e++) sum[e] += v[e];
        }
    columns_put(room[warp], 0, lane, sum);
    __syncthreads();
    c = (int)blockIdx.y * 256 + (int)threadIdx.x;
    if (c >= C) return;
    float t = 0;
    UNROLL for (int w = 0; w < SUM_WARPS; w++) t += room[w][column_at((int)threadIdx.x)];
    dst[(int64_t)(id ? id[u] : u) * C + c] += t;
}

template <class T> static void sum_rows(float *dst, const T *src, const int32_t *id, const int32_t *ptr,
                                        const int32_t *row, int64_t n, int64_t rows, int C) {
    if (!n) return;
    /* a block a table row that occurs: most of 30,523 words do not */
    dim3 grid((unsigned)n, (unsigned)ceil_div(C, 256));
    auto *kernel = C % 8 == 0 && aligned16(src) ? sum_rows_kernel<T, true> : sum_rows_kernel<T, false>;
    kernel<<<grid, SUM_WARPS * 32, 0, cuda.compute>>>(dst, src, id, ptr, row, n, rows, C);
    cuda_launched("embed_bwd (rows)");
}

template <class T> static void embed_bwd_(const Embed *a, const EmbedGrad *g) {
    if (!(a->nq + a->nt) || !norm_bwd<T>(a, g)) return;
    const T *du = (const T *)g->dsum, *text = du + a->nq * a->C;
    /* fewer rows than queries: only those that occur */
    if (a->nq && g->dquery) sum_rows<T>(g->dquery, du, NULL, NULL, NULL, a->nq < a->Q ? a->nq : a->Q, a->nq, a->C);
    /* words and positions separately, sorted by each: a token adds to a row of both */
    if (g->dword) sum_rows<T>(g->dword, text, a->tok_id, a->tok_ptr, a->tok_row, a->ntok, a->nt, a->C);
    if (g->dpos) sum_rows<T>(g->dpos, text, a->posn_id, a->posn_ptr, a->posn_row, a->nposn, a->nt, a->C);
}
EXPORT(embed_bwd, (const Embed *a, const EmbedGrad *g), (a, g))
