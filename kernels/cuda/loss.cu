/* loss: softmax losses over rows of f32 scores, and the draw of hard negatives (losses.md 2, 2a, 3, 5, 6).
 *
 *   itc    z = S / temp;  t_j = (1 - e) pos_j / n_pos + e / n;  loss = lse(z) - sum t z;  dz = p - t
 *          dS = scale dz / temp;  dtemp = -scale sum dz z / temp
 *   xent   loss = (1 - e)(lse - z_t) + e (lse - mean z);  dz = scale (p - (1 - e) [j = t] - e / n)
 *   draw   w = softmax over the columns that are not the row's own; the first j whose running sum exceeds u * total
 *
 * xent over a vocabulary is the one that matters: 768 threads hold a row in registers (44 values each), so logits are
 * read once and gradients written once: rows n (4 + e) bytes; at V = 30523 62 + 31 MB for a chunk of 512 rows, 28 us of
 * an H100. Rows beyond 33784 columns are cut into parts, a block each, that exchange their sums (12 bytes a part) while
 * the numbers stay in registers: 5 blocks at V = 152k. A row of odd length starts anywhere: groups of four are cut
 * where addresses are multiples of 16 bytes, in front of the row if need be, and the ends are done one by one. Limits:
 * n > 1024, and rows of logits and gradient that start alike (ld - ldd a multiple of 4, bases aligned); else one block
 * walks over its row three times. Registers: the 80 that 768 threads leave: one block (24 warps) an SM.
 *
 * itc and the draw see B x G scores: one block a row, f64 sums; the draw uses f64 exponentials so that CPU and GPU pick
 * the same columns. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

DEVICE bool own(const int32_t *target, const int64_t *row_id, const int64_t *col_id, int64_t i, int64_t j) {
    return row_id ? row_id[i] == col_id[j] : target[i] == j;
}

/* ---- contrastive ----------------------------------------------------------------------------------------------- */

static __global__ __launch_bounds__(THREADS) void itc_kernel(ItcLoss l) {
    __shared__ float room[33];
    __shared__ double room64[32];
    int64_t i = blockIdx.x, n = l.n;
    const float *S = l.S + i * l.si;
    /* read from the device: the temperature learns, and its value is nowhere on the host */
    float inv = 1.0f / *l.temp, max = -INFINITY;
    double npos = 0, total = 0, loss = 0, dt = 0;
    for (int64_t j = threadIdx.x; j < n; j += THREADS) {
        max = fmaxf(max, S[j * l.sj] * inv);
        /* by image id a picture's other captions are right answers too */
        npos += own(l.target, l.row_id, l.col_id, i, j);
    }
    max = block_max(max, room);
    npos = block_sum64(npos, room64);
    /* f32 exponentials, f64 sums: the sum is where digits go */
    for (int64_t j = threadIdx.x; j < n; j += THREADS) total += (double)expf(S[j * l.sj] * inv - max);
    double lse = (double)max + log(block_sum64(total, room64));
    double spread = (double)l.smoothing / (double)n, hit = (1.0 - (double)l.smoothing) / (npos > 1 ? npos : 1);
    for (int64_t j = threadIdx.x; j < n; j += THREADS) {
        double z = (double)(S[j * l.sj] * inv), t = spread + (own(l.target, l.row_id, l.col_id, i, j) ? hit : 0.0);
        double logp = z - lse, dz = (double)expf((float)logp) - t;
        loss -= t * logp;
        dt += dz * z;
        if (l.dS) l.dS[i * l.si + j * l.sj] = (float)((double)l.scale * dz * (double)inv);
    }
    loss = block_sum64(loss, room64);
    dt = block_sum64(dt, room64);
    if (threadIdx.x) return;
    l.loss[i] = (float)loss;
    if (l.dtemp) l.dtemp[i] = (float)(-(double)l.scale * dt * (double)inv);
}

void cuda_itc_loss(const ItcLoss *l) {
    if (!l->rows) return;
    itc_kernel<<<(unsigned)l->rows, THREADS, 0, cuda.compute>>>(*l);
    cuda_launched("itc_loss");
}

/* ---- negatives ------------------------------------------------------------------------------------------------- */

/* The larger value, the lower column among equals; column -1 is none. */
DEVICE void keep_best(float *v, int *j, float w, int k) {
    if (k >= 0 && (*j < 0 || w > *v || (w == *v && k < *j))) *v = w, *j = k;
}

/* A thread owns the columns [lo, hi) of row i: what it adds up is its part of a running sum, in the columns' order. */
typedef struct {
    const float *S;
    float inv;
    int64_t i, lo, hi;
} Part;

typedef struct {
    float max, any_max; /* of the columns that may be drawn, and of all */
    int hardest;        /* where max stands, or -1: all columns are the row's own */
} Largest;

DEVICE Largest largest_of(const Negatives &g, const Part &c) {
    __shared__ float room[33], vs[THREADS];
    __shared__ int js[THREADS];
    Largest l = {0, -INFINITY, -1};
    for (int64_t j = c.lo; j < c.hi; j++) {
        float z = c.S[j * g.sj] * c.inv;
        l.any_max = fmaxf(l.any_max, z);
        if (!own(g.target, g.row_id, g.col_id, c.i, j)) keep_best(&l.max, &l.hardest, z, (int)j);
    }
    l.any_max = block_max(l.any_max, room);
    vs[threadIdx.x] = l.max, js[threadIdx.x] = l.hardest;
    __syncthreads();
    if (threadIdx.x == 0) {
        /* one thread, in the threads' order: the first of equals, as on the CPU */
        for (int t = 1; t < THREADS; t++) keep_best(&l.max, &l.hardest, vs[t], js[t]);
        vs[0] = l.max, js[0] = l.hardest;
    }
    __syncthreads();
    l.max = vs[0], l.hardest = js[0];
    return l;
}

/* Weights of the thread's columns; returns their sum as they are stored, so that a draw finds what it adds up. */
DEVICE double weigh(const Negatives &g, const Part &c, const Largest &l, float *w) {
    __shared__ double room64[32];
    bool old = g.rule == NEG_SAMPLE_ALL;
    double total = 0, least = old ? 1e-4 : 0.0, mine_sum = 0;
    for (int64_t j = c.lo; j < c.hi; j++) {
        bool mine = own(g.target, g.row_id, g.col_id, c.i, j);
        /* f64, as the CPU's: a draw near a border must fall to the same column */
        double e = mine && !old ? 0.0 : exp((double)(c.S[j * g.sj] * c.inv) - (double)(old ? l.any_max : l.max));
        total += e;
        w[j] = (float)e;
    }
    total = block_sum64(total, room64);
    for (int64_t j = c.lo; j < c.hi; j++) {
        bool mine = own(g.target, g.row_id, g.col_id, c.i, j);
        double p = mine || l.hardest < 0 ? 0.0 : (double)w[j] / total + least;
        if (g.rule == NEG_HARDEST) p = j == l.hardest ? 1.0 : 0.0;
        w[j] = (float)p;
        mine_sum += (double)w[j];
    }
    return mine_sum;
}

/* The first column where the running sum passes u times the whole; n: rounding left none. Thread 0 has it. */
DEVICE int draw(const Negatives &g, const Part &c, const float *w, double mine_sum) {
    __shared__ double part[THREADS + 1]; /* f64 as on the CPU: a float would round the border that u is held against */
    __shared__ int js[THREADS];
    part[threadIdx.x] = mine_sum;
    __syncthreads();
    if (threadIdx.x == 0) { /* what stands before each thread's columns, and all of it */
        double sum = 0;
        for (int t = 0; t <= THREADS; t++) {
            double own_sum = t < THREADS ? part[t] : 0;
            part[t] = sum;
            sum += own_sum;
        }
    }
    __syncthreads();
    double below = part[threadIdx.x];
    Philox x = philox(0, 0, g.row_pair[c.i], g.site, rng_key0(g.seed), g.step);
    double u = (double)rng_unit(x.v[0]) * part[THREADS];
    int found = (int)g.n;
    for (int64_t j = c.lo; j < c.hi; j++) {
        below += (double)w[j];
        /* an own column has no weight, and must not be drawn when u is where it stands */
        if (below > u && w[j] > 0.0f) {
            found = (int)j;
            break;
        }
    }
    js[threadIdx.x] = found;
    __syncthreads();
    for (int t = 1; t < THREADS && threadIdx.x == 0; t++) found = min(found, js[t]);
    return found;
}

/* weights: (rows, n) scratch or the caller's. */
static __global__ __launch_bounds__(THREADS) void negatives_kernel(Negatives g, float *weights) {
    int64_t i = blockIdx.x, per = (g.n + THREADS - 1) / THREADS, lo = min(g.n, threadIdx.x * per);
    Part c = {g.S + i * g.si, 1.0f / *g.temp, i, lo, min(g.n, lo + per)};
    float *w = weights + i * g.n;
    Largest l = largest_of(g, c);
    int found = draw(g, c, w, weigh(g, c, l, w));
    if (threadIdx.x == 0) g.out[i] = l.hardest < 0 ? g.target[i] : found < g.n ? found : l.hardest;
}

void cuda_negatives(const Negatives *g) {
    if (!g->rows) return;
    /* the caller's rows when it wants to see them, else scratch: a draw needs its weights twice */
    float *w = g->weights ? g->weights : (float *)cuda_workspace((size_t)(g->rows * g->n) * sizeof(float), "negatives");
    if (!w) return;
    negatives_kernel<<<(unsigned)g->rows, THREADS, 0, cuda.compute>>>(*g, w);
    cuda_launched("negatives");
}

/* ---- cross-entropy --------------------------------------------------------------------------------------------- */

/* What a row's columns, or a part of them, come to: their maximum, sum of exp(z - max), sum of z. */
typedef struct {
    float max, total, sum_z;
} RowSums;

/* A row that does not count (target < 0) has loss, nll and gradient zero: its scale is. */
DEVICE void xent_losses(const Xent &x, int64_t i, RowSums s) {
    int target = x.target[i];
    float lse = s.max + logf(s.total), nll = target < 0 ? 0.0f : lse - x.logits[i * x.ld + target];
    x.loss[i] = target < 0 ? 0.0f : (1.0f - x.smoothing) * nll + x.smoothing * (lse - s.sum_z / (float)x.n);
    if (x.nll) x.nll[i] = nll;
}

enum { HELD = 11, ROW_THREADS = 768, HELD_COLUMNS = ROW_THREADS * HELD * 4 - 8 }; /* groups of four a thread */

/* The blocks of a long row meet: each leaves its sums and waits for the others'; then all add them up in order. Blocks
 * take their place by a ticket, so that those a row waits for are running or next in line: no row waits for ever as
 * long as the GPU holds a row's blocks at once. */
typedef struct {
    unsigned *ticket, *arrived; /* one; a row. Zero at the start */
    RowSums *part;              /* (rows, parts) */
    int parts;
} Meeting;

DEVICE RowSums meet(const Meeting &m, int64_t i, int p, RowSums mine) {
    if (threadIdx.x == 0) {
        m.part[i * m.parts + p] = mine; /* the fence: who sees the count sees the sums */
        __threadfence();
        atomicAdd(&m.arrived[i], 1u);
        /* they hold their numbers in registers: to leave and come back would be to read them again */
        while (*(volatile unsigned *)&m.arrived[i] < (unsigned)m.parts) __nanosleep(100);
        __threadfence();
    }
    __syncthreads();
    RowSums all = {-INFINITY, 0, 0};
    const volatile float *at = (const volatile float *)(m.part + i * m.parts);
    for (int k = 0; k < m.parts; k++) all.max = fmaxf(all.max, at[3 * k]);
    for (int k = 0; k < m.parts; k++) {
        all.total += at[3 * k + 1] * expf(at[3 * k] - all.max);
        all.sum_z += at[3 * k + 2];
    }
    return all;
}

/* A block's columns of a row, in registers: groups of four of which each thread has every ROW_THREADS-th, and of what
 * stands before the first aligned group and behind the last an element a thread at most. */
typedef struct {
    float v[HELD][4], one;
    int head, groups, odd; /* odd: which element `one` is, or -1 */
} HeldRow;

DEVICE void load_row(HeldRow &r, const float *z, int64_t start, int n) {
    int t = threadIdx.x, tail;
    r.head = min(n, (int)(-start & 3)), r.groups = (n - r.head) / 4, tail = n - r.head - 4 * r.groups;
    /* the head is the first warp's, the tail the second's: nobody has two */
    r.odd = t < r.head ? t : t >= 32 && t < 32 + tail ? n - tail + t - 32 : -1;
    r.one = r.odd >= 0 ? z[r.odd] : -INFINITY;
    UNROLL for (int k = 0; k < HELD; k++) {
        int g = t + k * ROW_THREADS;
        if (g < r.groups) {
            ld4(r.v[k], z + r.head + 4 * g);
        } else {
            UNROLL for (int e = 0; e < 4; e++) r.v[k][e] = -INFINITY; /* exp makes 0 of it */
        }
    }
}

/* Sums of the block's columns; each element becomes exp(z - max). */
DEVICE RowSums sums_of(HeldRow &r) {
    __shared__ float room[33];
    float max = r.one, total = 0, sum_z = 0;
    UNROLL for (int k = 0; k < HELD; k++)
        max = fmaxf(fmaxf(max, fmaxf(r.v[k][0], r.v[k][1])), fmaxf(r.v[k][2], r.v[k][3]));
    /* leaves at the end: a condition a group costs more registers than there are */
    UNROLL for (int k = 0; k < HELD; k++) {
        if ((int)threadIdx.x + k * ROW_THREADS >= r.groups) break;
        sum_z += (r.v[k][0] + r.v[k][1]) + (r.v[k][2] + r.v[k][3]);
    }
    if (r.odd >= 0) sum_z += r.one;
    max = block_max(max, room);
    UNROLL for (int k = 0; k < HELD; k++)
        UNROLL for (int e = 0; e < 4; e++) {
            r.v[k][e] = expf(r.v[k][e] - max);
            total += r.v[k][e];
        }
    r.one = expf(r.one - max); /* -infinity of a thread without one becomes 0 */
    return (RowSums){max, block_sum(total + r.one, room), block_sum(sum_z, room)};
}

/* dlogits of columns from `first` on: scale (softmax - target), an element times `share` being its softmax. */
template <class D> DEVICE void store_gradient(HeldRow &r, const Xent &x, int64_t i, int first, float total,
                                              float fade) {
    D *d = (D *)x.dlogits + i * x.ldd + first;
    int target = x.target[i] - first; /* of another block: no column here */
    float scale = x.target[i] < 0 ? 0.0f : x.scale;
    float q = scale / total * fade, spread = scale * x.smoothing / (float)x.n, hit = scale * (1.0f - x.smoothing);
    if (r.odd >= 0) st1(d + r.odd, r.one * q - spread - (r.odd == target ? hit : 0.0f));
    UNROLL for (int k = 0; k < HELD; k++) {
        int g = (int)threadIdx.x + k * ROW_THREADS, at = target - r.head - 4 * g;
        if (g >= r.groups) break;
        UNROLL for (int e = 0; e < 4; e++) r.v[k][e] = r.v[k][e] * q - spread - (at == e ? hit : 0.0f);
        st4(d + r.head + 4 * g, r.v[k]);
    }
}

template <class D> static __global__ __launch_bounds__(ROW_THREADS) void xent_fast(Xent x, Meeting m) {
    __shared__ unsigned drawn;
    unsigned place = blockIdx.x;
    if (m.parts > 1) {
        /* not blockIdx: the order in which blocks start is nobody's promise */
        if (threadIdx.x == 0) drawn = atomicAdd(m.ticket, 1u);
        __syncthreads();
        place = drawn;
    }
    /* parts of a row are neighbours among the tickets: those that wait for each other run at the same time */
    int64_t i = place / (unsigned)m.parts;
    int p = (int)(place % (unsigned)m.parts), per = ((int)x.n + m.parts - 1) / m.parts + 3 & ~3, first = p * per;
    HeldRow r;
    load_row(r, x.logits + i * x.ld + first, i * x.ld, min(per, (int)x.n - first));
    RowSums s = sums_of(r);
    float max = s.max;
    if (m.parts > 1) s = meet(m, i, p, s);
    if (threadIdx.x == 0 && p == 0) xent_losses(x, i, s);
    if (x.dlogits) store_gradient<D>(r, x, i, first, s.total, m.parts > 1 ? expf(max - s.max) : 1.0f);
}

template <class D> static __global__ void xent_simple(Xent x) {
    __shared__ float room[33];
    int64_t i = blockIdx.x, n = x.n;
    const float *z = x.logits + i * x.ld;
    float max = -INFINITY, total = 0, sum_z = 0;
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) max = fmaxf(max, z[j]);
    max = block_max(max, room);
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) total += expf(z[j] - max), sum_z += z[j];
    RowSums s = {max, block_sum(total, room), block_sum(sum_z, room)};
    if (threadIdx.x == 0) xent_losses(x, i, s);
    if (!x.dlogits) return;
    D *d = (D *)x.dlogits + i * x.ldd;
    int t = x.target[i];
    float scale = t < 0 ? 0.0f : x.scale;
    float p = scale / s.total, spread = scale * x.smoothing / (float)n, hit = scale * (1.0f - x.smoothing);
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x)
        st1(d + j, expf(z[j] - max) * p - spread - (j == t ? hit : 0.0f));
}

template <class D> static void xent_long(const Xent *x, Meeting m) {
    size_t counts = (size_t)(x->rows + 1) * sizeof(unsigned), at = (counts + 15) / 16 * 16;
    char *room = (char *)cuda_workspace(at + (size_t)x->rows * (size_t)m.parts * sizeof(RowSums), "xent");
    if (!room) return;
    /* each launch: the workspace holds what other ops left */
    if (m.parts > 1) cuda_ok(cudaMemsetAsync(room, 0, counts, cuda.compute), "xent");
    m.ticket = (unsigned *)room, m.arrived = m.ticket + 1, m.part = (RowSums *)(room + at);
    xent_fast<D><<<(unsigned)(x->rows * m.parts), ROW_THREADS, 0, cuda.compute>>>(*x, m);
}

template <class D> static void xent(const Xent *x) {
    Meeting m = {NULL, NULL, NULL, (int)ceil_div(x->n, HELD_COLUMNS)};
    /* parts: blocks that wait for each other must all find an SM */
    bool fast = x->n > 1024 && m.parts <= cuda.sms && aligned16(x->logits) && aligned16(x->dlogits) &&
                (!x->dlogits || (x->ld - x->ldd) % 4 == 0);
    if (fast) xent_long<D>(x, m);
    else xent_simple<D><<<(unsigned)x->rows, x->n <= 64 ? 32 : 256, 0, cuda.compute>>>(*x);
    cuda_launched("xent");
}

void cuda_xent(const Xent *x) {
    if (!x->rows) return;
    if (x->dt == DT_F32) xent<float>(x);
    else xent<bf16>(x);
}
