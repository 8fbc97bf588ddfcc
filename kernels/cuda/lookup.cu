/* lookup: rows that enter a model: words or given rows, and positions; and patches of pixels as rows.
 *
 *   y[i] = source_i + pos[pos_id[i]],  source_i = scale word[ids[i]], or rows[-1 - ids[i]]
 *   drows[-1 - ids[i]] = or += dy[i]
 *   dword[ids[i]] += scale dy[i]
 *
 * Bytes: forward reads NC e (2NC e with positions) and writes NC e; backward moves 2 C e a given row, 3 when added to.
 * The words' gradient: a warp a word and 256 columns (32 where C is not whole eights) looks through all ids, 32 at a
 * time, and adds up the rows that are its word in their order, without atomics: reads 4N bytes of ids a warp (from L2),
 * dy once, and moves 8C a word that occurs. 32,000 words and 16,000 rows are 2 GB from L2, about 1 ms (predicted).
 * Patches read every pixel once and write 3 p p numbers a patch. Limited by memory. Lookup: eight columns a thread
 * where C is whole eights, else one; patches: one number a thread, neighbours in a row of the result side by side. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

/* Which row of `rows` y's row i is made of; -1: none, it is a word. */
DEVICE int64_t given_row(const Lookup &a, int64_t i) {
    if (!a.ids) return i;
    int32_t id = a.ids[i];
    return id < 0 ? -1 - (int64_t)id : -1;
}

template <class T, int W> static __global__ void lookup_kernel(Lookup a) {
    int64_t per = a.C / W, at = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = at / per, c = (at - i * per) * W;
    if (i >= a.N) return;
    int64_t given = given_row(a, i), p = a.pos && a.pos_id ? a.pos_id[i] : -1;
    const T *s = given >= 0 ? (const T *)a.rows + given * a.C : (const T *)a.word + (int64_t)a.ids[i] * a.C;
    float v[W], q[W], scale = given >= 0 ? 1.0f : a.scale;
    load<W>(v, s + c);
    UNROLL for (int e = 0; e < W; e++) v[e] *= scale;
    if (p >= 0) {
        load<W>(q, (const T *)a.pos + p * a.C + c);
        UNROLL for (int e = 0; e < W; e++) v[e] += q[e];
    }
    store<W>((T *)a.y + i * a.C + c, v);
}

template <class T, int W> static __global__ void lookup_bwd_kernel(Lookup a, T *drows, const T *dy, bool add) {
    int64_t per = a.C / W, at = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = at / per, c = (at - i * per) * W;
    if (i >= a.N) return;
    int64_t given = given_row(a, i);
    if (given < 0) return;
    float v[W], old[W];
    load<W>(v, dy + i * a.C + c);
    if (add) {
        load<W>(old, drows + given * a.C + c);
        UNROLL for (int e = 0; e < W; e++) v[e] += old[e];
    }
    store<W>(drows + given * a.C + c, v);
}

template <class T> static void lookup_(const Lookup *a) {
    if (!a->N || !a->C) return;
    bool fast = a->C % 8 == 0 && aligned16(a->word) && aligned16(a->rows) && aligned16(a->pos) && aligned16(a->y);
    unsigned grid = (unsigned)ceil_div(a->N * a->C / (fast ? 8 : 1), THREADS);
    auto *kernel = fast ? lookup_kernel<T, 8> : lookup_kernel<T, 1>;
    kernel<<<grid, THREADS, 0, cuda.compute>>>(*a);
    cuda_launched("lookup");
}
EXPORT(lookup, (const Lookup *a), (a))

template <class T> static void lookup_bwd_(const Lookup *a, void *drows, const void *dy, bool add) {
    if (!a->N || !a->C) return;
    bool fast = a->C % 8 == 0 && aligned16(drows) && aligned16(dy);
    unsigned grid = (unsigned)ceil_div(a->N * a->C / (fast ? 8 : 1), THREADS);
    auto *kernel = fast ? lookup_bwd_kernel<T, 8> : lookup_bwd_kernel<T, 1>;
    kernel<<<grid, THREADS, 0, cuda.compute>>>(*a, (T *)drows, (const T *)dy, add);
    cuda_launched("lookup_bwd");
}
EXPORT(lookup_bwd, (const Lookup *a, void *drows, const void *dy, bool add), (a, drows, dy, add))

template <class T, int W> static __global__ void lookup_words_kernel(Lookup a, float *dword, int64_t words,
                                                                     const T *dy) {
    int lane = threadIdx.x & 31;
    int64_t word = (int64_t)blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5), c = ((int64_t)blockIdx.y * 32 + lane) * W;
    bool here = c < a.C, found = false;
    float sum[W] = {0};
    if (word >= words) return; /* whole warps: the vote below is of all 32 lanes */
    for (int64_t i0 = 0; i0 < a.N; i0 += 32) {
        /* 32 ids a vote; the lowest bit first keeps the order of the rows */
        unsigned rows = __ballot_sync(~0u, i0 + lane < a.N && a.ids[i0 + lane] == word);
        for (found = found || rows; rows; rows &= rows - 1) {
            float v[W];
            if (here) load<W>(v, dy + (i0 + __ffs((int)rows) - 1) * a.C + c);
            UNROLL for (int e = 0; e < W && here; e++) sum[e] += v[e];
        }
    }
    /* a word that does not occur is not touched: most of a vocabulary */
    if (!here || !found) return;
    UNROLL for (int e = 0; e < W; e++) dword[word * a.C + c + e] += a.scale * sum[e];
}

template <class T> static void lookup_words_(const Lookup *a, float *dword, int64_t words, const void *dy) {
    if (!a->N || !a->C || !a->ids) return;
    bool fast = a->C % 8 == 0 && aligned16(dy);
    dim3 grid((unsigned)ceil_div(words, THREADS / 32), (unsigned)ceil_div(a->C, fast ? 256 : 32));
    auto *kernel = fast ? lookup_words_kernel<T, 8> : lookup_words_kernel<T, 1>;
    kernel<<<grid, THREADS, 0, cuda.compute>>>(*a, dword, words, (const T *)dy);
    cuda_launched("lookup_words");
}
EXPORT(lookup_words, (const Lookup *a, float *dword, int64_t words, const void *dy), (a, dword, words, dy))

/* ---- patches ----------------------------------------------------------------------------------------------------- */

template <class P, class T> static __global__ void patches_kernel(Patches a) {
    int64_t p = a.p, gy = a.height / p, gx = a.width / p, cols = 3 * p * p,
            at = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = at / cols;
    if (row >= a.images * gy * gx) return;
    int col = (int)(at - row * cols), side = a.p;
    int c = a.channels_last ? col % 3 : col / (side * side), rest = a.channels_last ? col / 3 : col % (side * side);
    int64_t image = row / (gy * gx), y = row / gx % gy * p + rest / side, x = row % gx * p + rest % side;
    int64_t line = (a.planar ? image * 3 + c : image) * a.height + y,
            from = a.planar ? line * a.width + x : (line * a.width + x) * 3 + c;
    float scale = c == 0 ? a.scale[0] : c == 1 ? a.scale[1] : a.scale[2];
    float shift = c == 0 ? a.shift[0] : c == 1 ? a.shift[1] : a.shift[2];
    st1((T *)a.y + row * a.ldy + col, fmaf((float)((const P *)a.pixels)[from], scale, shift));
}

template <class T> static void patches_(const Patches *a) {
    int64_t p = a->p, n = a->images * (a->height / p) * (a->width / p) * 3 * p * p;
    if (!n) return;
    bool bytes = a->t == DT_U8, wide = a->ty == DT_F32;
    auto *kernel = bytes ? (wide ? patches_kernel<uint8_t, float> : patches_kernel<uint8_t, T>)
                         : (wide ? patches_kernel<float, float> : patches_kernel<float, T>);
    kernel<<<(unsigned)ceil_div(n, THREADS), THREADS, 0, cuda.compute>>>(*a);
    cuda_launched("patches");
}
EXPORT(patches, (const Patches *a), (a))
