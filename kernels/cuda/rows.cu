/* rows: copying, converting and adding up plain rows and arrays; the second half of every sum over rows.
 *
 *   copy_rows     dst[di[i]] = or += src[si[i]]           2 n width elements (3 when added to)
 *   dropout       x kept and grown, or dropped            2 N C elements; a Philox call (about 70 instructions) eight
 *   colsum        db[c] += sum over rows of dy[r][c]      NC elements, plus partials of parts x C f32, twice
 *   cast          f32 <-> bf16                            6 n bytes
 *   axpy, sum     y += a x;  out = or += sum x            12 n;  4 n bytes
 *
 * Limited by memory, each. Sums over rows are cut into strips; a strip leaves a row of partial sums in the workspace,
 * and add_partials adds those up in order: no atomics, the same bits every time. One thread carries eight elements (16
 * bytes of bf16) where width, strides and addresses allow it, else one. 16 to 56 registers: 32 warps an SM or more. */
#include "kernels/cuda/device.cuh"

/* ---- partial sums ---------------------------------------------------------------------------------------------- */

/* A block: 32 columns x 32 threads, each of which takes every 32nd part; then those in order. Waiting is all there is
 * to it (396 parts of a norm's backward are 1 MB a sum): few loads a thread, and those under way together. */
enum { JOINERS = 32 };
struct Dst3 {
    float *p[3];
};
static __global__ __launch_bounds__(JOINERS * 32) void add_partials(Dst3 dst, const float *partial, int parts,
                                                                    int64_t stride, int64_t C) {
    __shared__ float room[JOINERS][32];
    float *out = dst.p[blockIdx.y];
    /* a sum that nobody wants has its partials all the same: they are side by side */
    if (!out) return;
    int64_t c = (int64_t)blockIdx.x * 32 + (threadIdx.x & 31);
    int k = (int)threadIdx.x >> 5;
    float sum = 0;
    if (c < C)
#pragma unroll 8
        for (int p = k; p < parts; p += JOINERS) sum += partial[((int64_t)blockIdx.y * parts + p) * stride + c];
    room[k][threadIdx.x & 31] = sum;
    __syncthreads();
    if (k || c >= C) return;
    UNROLL for (int i = 1; i < JOINERS; i++) sum += room[i][threadIdx.x];
    out[c] += sum;
}

void cuda_add_partials(float *const dst[3], const float *partial, int parts, int64_t stride, int64_t C) {
    int k = dst[2] ? 3 : dst[1] ? 2 : 1; /* up to the last one wanted */
    Dst3 d = {{dst[0], dst[1], dst[2]}};
    dim3 grid((unsigned)ceil_div(C, 32), (unsigned)k);
    add_partials<<<grid, JOINERS * 32, 0, cuda.compute>>>(d, partial, parts, stride, C);
    cuda_launched("add_partials");
}

cudaError_t cuda_probe(void) {
    cudaFuncAttributes a;
    /* fails where the program holds no code for this GPU, before anything is launched */
    return cudaFuncGetAttributes(&a, (const void *)add_partials);
}

/* A block: 32 lanes of eight columns x 8 warps, a strip of rows; `per` rows a strip. Columns left over of an eight are
 * read one by one: what stands behind a row's last column is nobody's. So are all where rows begin anywhere. */
template <class T, bool EIGHTS>
static __global__ void colsum_kernel(float *partial, const T *dy, int64_t N, int64_t C, int64_t ld, int64_t per) {
    __shared__ __align__(16) float room[8][CHUNK];
    int lane = threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    int64_t c = (int64_t)blockIdx.x * 256 + lane * 8, end = min(N, ((int64_t)blockIdx.y + 1) * per);
    float sum[8] = {0};
    if (c < C)
#pragma unroll 4
        for (int64_t r = blockIdx.y * per + warp; r < end; r += 8) {
            float v[8];
            if (EIGHTS && c + 8 <= C) ld8(v, dy + r * ld + c);
            else load_some(v, dy + r * ld + c, C - c);
            UNROLL for (int e = 0; e < 8; e++) sum[e] += v[e];
        }
    columns_put(room[warp], 0, lane, sum);
    __syncthreads();
    c = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (c >= C) return;
    float t = 0;
    UNROLL for (int w = 0; w < 8; w++) t += room[w][column_at((int)threadIdx.x)];
    partial[blockIdx.y * C + c] = t;
}

template <class T> static void colsum_(float *db, const void *dy, int64_t N, int64_t C, int64_t ld) {
    if (!N || !C) return;
    int columns = (int)ceil_div(C, 256);
    /* four blocks an SM in all, over columns and strips */
    int parts = row_parts(N, C, 1, 64, (int)ceil_div(cuda.sms * 4, columns));
    float *partial = (float *)cuda_workspace((size_t)(parts * C) * sizeof(float), "colsum");
    if (!partial) return;
    int64_t per = ceil_div(N, parts);
    dim3 grid((unsigned)columns, (unsigned)parts);
    auto *kernel = ld % 8 == 0 && aligned16(dy) ? colsum_kernel<T, true> : colsum_kernel<T, false>;
    kernel<<<grid, 256, 0, cuda.compute>>>(partial, (const T *)dy, N, C, ld, per);
    cuda_launched("colsum");
    float *dst[3] = {db, NULL, NULL};
    cuda_add_partials(dst, partial, parts, C, C);
}
EXPORT(colsum, (float *db, const void *dy, int64_t N, int64_t C, int64_t ld), (db, dy, N, C, ld))

/* ---- rows ------------------------------------------------------------------------------------------------------ */

template <class T, int W> static __global__ void copy_rows(T *dst, int64_t ldd, const int32_t *di, const T *src,
                                                           int64_t lds, const int32_t *si, int64_t n, int64_t width,
                                                           bool add) {
    int64_t per = width / W, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n * per) return;
    int64_t row = i / per, c = (i - row * per) * W;
    T *to = dst + (di ? di[row] : row) * ldd + c;
    const T *from = src + (si ? si[row] : row) * lds + c;
    float v[W], old[W];
    load<W>(v, from);
    if (add) {
        load<W>(old, to);
        UNROLL for (int e = 0; e < W; e++) v[e] += old[e];
    }
    store<W>(to, v);
}

template <class T> static void copy_rows_(void *dst, int64_t ldd, const int32_t *di, const void *src, int64_t lds,
                                          const int32_t *si, int64_t n, int64_t width, bool add) {
    if (!n || !width) return;
    T *d = (T *)dst;
    const T *s = (const T *)src;
    bool eights = width % 8 == 0 && ldd % 8 == 0 && lds % 8 == 0 && aligned16(dst) && aligned16(src);
    unsigned grid = (unsigned)ceil_div(eights ? n * width / 8 : n * width, 256);
    (eights ? copy_rows<T, 8> : copy_rows<T, 1>)<<<grid, 256, 0, cuda.compute>>>(d, ldd, di, s, lds, si, n, width, add);
    cuda_launched("copy_rows");
}
EXPORT(copy_rows,
       (void *dst, int64_t ldd, const int32_t *di, const void *src, int64_t lds, const int32_t *si, int64_t n,
        int64_t width, bool add),
       (dst, ldd, di, src, lds, si, n, width, add))

/* Eight neighbours of a row a thread, which share a Philox call. */
template <class T, bool FAST> static __global__ void dropout(T *x, int64_t N, int64_t C, int64_t ld, Dropout d) {
    int64_t per = (C + 7) / 8, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * per) return;
    int64_t row = i / per, block = i - row * per;
    T *at = x + row * ld + block * 8;
    float v[8];
    if (FAST) ld8(v, at);
    else load_some(v, at, C - block * 8);
    drop8(v, d, d.rows[row], (uint32_t)block);
    if (FAST) {
        st8(at, v);
    } else {
        UNROLL for (int e = 0; e < 8; e++)
            if (block * 8 + e < C) st1(at + e, v[e]);
    }
}

template <class T> static void dropout_(void *x, int64_t N, int64_t C, int64_t ld, const Dropout *d) {
    if (!N || !C || d->p <= 0) return;
    /* by eights even where they are read singly: the draws are by eights */
    unsigned grid = (unsigned)ceil_div(N * ((C + 7) / 8), 256);
    if (C % 8 == 0 && ld % 8 == 0 && aligned16(x))
        dropout<T, true><<<grid, 256, 0, cuda.compute>>>((T *)x, N, C, ld, *d);
    else dropout<T, false><<<grid, 256, 0, cuda.compute>>>((T *)x, N, C, ld, *d);
    cuda_launched("dropout");
}
EXPORT(dropout, (void *x, int64_t N, int64_t C, int64_t ld, const Dropout *d), (x, N, C, ld, d))

/* ---- arrays ---------------------------------------------------------------------------------------------------- */

/* Four elements a thread; neighbours stay neighbours. */
template <class D, class S> static __global__ void cast_kernel(D *dst, const S *src, int64_t n, bool vector) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n) return;
    if (vector && i + 4 <= n) {
        float v[4];
        ld4(v, src + i);
        st4(dst + i, v);
        return;
    }
    /* the end of an array, and arrays that begin anywhere */
    for (int64_t k = i; k < n && k < i + 4; k++) st1(dst + k, ld1(src + k));
}

void cuda_cast_on(cudaStream_t s, void *dst, DType dt, const void *src, DType st, int64_t n) {
    if (!n) return;
    unsigned grid = (unsigned)ceil_div(n, 1024);
    bool v = aligned16(dst) && aligned16(src);
    if (dt == st)
        cuda_ok(cudaMemcpyAsync(dst, src, (size_t)n * (dt == DT_F32 ? 4 : 2), cudaMemcpyDeviceToDevice, s), "cast");
    else if (dt == DT_F32) cast_kernel<<<grid, 256, 0, s>>>((float *)dst, (const bf16 *)src, n, v);
    else cast_kernel<<<grid, 256, 0, s>>>((bf16 *)dst, (const float *)src, n, v);
    cuda_launched("cast");
}
void cuda_cast(void *dst, DType dt, const void *src, DType st, int64_t n) {
    cuda_cast_on(cuda.compute, dst, dt, src, st, n);
}

static __global__ void axpy_kernel(float *y, const float *x, float a, int64_t n, bool vector) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n) return;
    if (vector && i + 4 <= n) {
        float u[4], v[4];
        ld4(u, x + i);
        ld4(v, y + i);
        UNROLL for (int e = 0; e < 4; e++) v[e] += a * u[e];
        st4(y + i, v);
        return;
    }
    for (int64_t k = i; k < n && k < i + 4; k++) y[k] += a * x[k];
}

void cuda_axpy(float *y, const float *x, float a, int64_t n) {
    if (!n) return;
    axpy_kernel<<<(unsigned)ceil_div(n, 1024), 256, 0, cuda.compute>>>(y, x, a, n, aligned16(x) && aligned16(y));
    cuda_launched("axpy");
}

/* Losses of a batch: a few thousand numbers, one block. */
static __global__ void sum_kernel(float *out, const float *x, int64_t n, bool add) {
    __shared__ float room[33];
    float s = 0;
    /* one block: its order is fixed, and so is the sum */
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) s += x[i];
    s = block_sum(s, room);
    if (threadIdx.x == 0) *out = add ? *out + s : s;
}

void cuda_sum(float *out, const float *x, int64_t n, bool add) {
    sum_kernel<<<1, 256, 0, cuda.compute>>>(out, x, n, add);
    cuda_launched("sum");
}
