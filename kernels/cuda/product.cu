/* product: a plain matrix product, for what cuBLASLt has no algorithm for or refuses (gemm.c).
 *
 *   C(m,n) = [C +] op(A) op(B) + bias(n)          any types, strides and alignment that a Gemm can name; sums in f32
 *
 * A block makes 64 x 64 of C out of slices of 16 of the inner dimension in shared memory, 4 x 4 a thread; sums run over
 * k in order. 2 m n k operations on the plain f32 units: 67 TFLOP/s at most on an H100, a fifteenth of its tensor
 * cores. Bytes: A once for each 64 columns, B once for each 64 rows. No promise beyond being right. */
#include "kernels/cuda/device.cuh"

enum { TILE = 64, SLICE = 16, SIDE = 16 };

/* Element (i, z) of an operand; `inner` is the stride of z, `outer` of i. */
typedef struct {
    int64_t outer, inner, n;
} Operand;

/* 64 rows i0.. of slice z0.. to room[z][i], zeros beyond the edges; neighbours in memory are neighbouring threads. */
template <class T>
DEVICE void load_slice(float (*room)[TILE + 4], const T *p, Operand o, int64_t i0, int64_t z0, int64_t k) {
    for (int at = threadIdx.x; at < TILE * SLICE; at += SIDE * SIDE) {
        int i = o.inner == 1 ? at / SLICE : at % TILE, z = o.inner == 1 ? at % SLICE : at / TILE;
        bool there = i0 + i < o.n && z0 + z < k;
        room[z][i] = there ? ld1(p + (i0 + i) * o.outer + (z0 + z) * o.inner) : 0.0f;
    }
}

template <class T, class C, class B> static __global__ __launch_bounds__(SIDE *SIDE) void product_kernel(
    Gemm g, const T *a, const T *b, C *c, const B *bias) {
    __shared__ __align__(16) float x[SLICE][TILE + 4], y[SLICE][TILE + 4];
    int64_t i0 = (int64_t)blockIdx.x * TILE, j0 = (int64_t)blockIdx.y * TILE;
    Operand A = {g.ta ? 1 : g.lda, g.ta ? g.lda : 1, g.m}, Bm = {g.tb ? g.ldb : 1, g.tb ? 1 : g.ldb, g.n};
    int ti = (int)threadIdx.x / SIDE * 4, tj = (int)threadIdx.x % SIDE * 4;
    float acc[4][4] = {{0}};
    for (int64_t z0 = 0; z0 < g.k; z0 += SLICE) {
        __syncthreads();
        load_slice(x, a, A, i0, z0, g.k);
        load_slice(y, b, Bm, j0, z0, g.k);
        __syncthreads();
        UNROLL for (int z = 0; z < SLICE; z++)
            UNROLL for (int m = 0; m < 4; m++)
                UNROLL for (int n = 0; n < 4; n++) acc[m][n] = fmaf(x[z][ti + m], y[z][tj + n], acc[m][n]);
    }
    UNROLL for (int m = 0; m < 4; m++)
        UNROLL for (int n = 0; n < 4; n++) {
            int64_t i = i0 + ti + m, j = j0 + tj + n;
            if (i >= g.m || j >= g.n) continue;
            C *to = c + i * g.ldc + j;
            st1(to, (g.add ? ld1(to) : 0.0f) + acc[m][n] + (bias ? ld1(bias + j) : 0.0f));
        }
}

template <class T, class C, class B> static void product(const Gemm *g) {
    int64_t columns = ceil_div(g->n, TILE), most = 65535; /* of grid.y */
    for (int64_t j = 0; j < columns; j += most) {
        Gemm part = *g;
        part.n = j + most < columns ? most * TILE : g->n - j * TILE;
        const T *b = (const T *)g->b + j * TILE * (g->tb ? g->ldb : 1);
        const B *bias = g->bias ? (const B *)g->bias + j * TILE : NULL;
        dim3 grid((unsigned)ceil_div(g->m, TILE), (unsigned)ceil_div(part.n, TILE));
        product_kernel<<<grid, SIDE * SIDE, 0, cuda.compute>>>(part, (const T *)g->a, b, (C *)g->c + j * TILE, bias);
        cuda_launched("product");
    }
}

void cuda_product(const Gemm *g, DType elem) {
    if (g->ab == DT_F32 && g->ct == DT_F32 && elem == DT_F32) product<float, float, float>(g);
    else if (g->ab == DT_F32 && g->ct == DT_F32) product<float, float, bf16>(g);
    else if (g->ab == DT_F32) product<float, bf16, bf16>(g);
    else if (g->ct == DT_F32) product<bf16, float, bf16>(g);
    else product<bf16, bf16, bf16>(g);
}
