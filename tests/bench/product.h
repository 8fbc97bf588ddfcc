/* product: what a matrix product is predicted to take on a Hopper GPU, as cuBLASLt would do it. A table model, nothing
 * is measured; the same as vgpu's (VGPU_TIME), which was calibrated on published figures of an H100: within 13 % above
 * 90 us (8192^3 739 TFLOP/s, 2048 x 4096 x 4096 693), up to 50 % too fast below 20 us.
 *
 * The best of eleven tiles, with k split by 1 to 16 where the tiles do not fill the GPU: waves over its SMs, each the
 * main loop of a tile at its share of 790 TFLOP/s, 0.5 us to fill the pipeline, and what of the epilogue the next tile
 * does not hide; 3.5 us a launch, 2 us for adding up the parts; bounded by bytes and by what L2 is asked again for. */
#pragma once
#include <math.h>

#include "kernels/backend.h"

/* bytes a second, as reached; FLOP/s */
typedef struct { const char *name; double hbm, l2, peak, f32; int sms; } Hopper;
static const Hopper HOPPER[] = {{"h100", 3.35e12 * 0.91, 5.7e12, 790e12, 50e12, 132},
                                {"h200", 4.80e12 * 0.90, 5.7e12, 790e12, 50e12, 132}};

typedef struct { double seconds, waves; int tile_m, tile_n, split; } Product;
typedef struct { int m, n; double share; } ProductTile;

/* m, n, k as cuBLASLt sees them: column-major, so the caller's n first. */
static inline Product product_by(const Hopper *h, const Gemm *g, const ProductTile *t, int split) {
    double m = (double)g->n, n = (double)g->m, k = (double)g->k, ab = g->ab == DT_F32 ? 4 : 2,
           ct = g->ct == DT_F32 ? 4 : 2, peak = g->ab == DT_F32 ? h->f32 : h->peak, sms = h->sms;
    double work = ceil(m / t->m) * ceil(n / t->n) * split, part = ceil(ceil(k / split) / 64) * 64;
    double loop = 2.0 * t->m * t->n * part / (peak / sms * t->share), area = t->m * (double)t->n / 32768;
    double beside = 0.5e-6 + 2.5e-6 * area * (split > 1 ? 2.5 : ct / 2 * (g->add ? 1.6 : 1));
    double waves = ceil(work / sms - 1e-9), time = waves * (loop + beside) + 3.5e-6;
    double bytes = (m * k + k * n) * ab + m * n * ct * (g->add ? 2 : 1) + (split > 1 ? m * n * 8 : 0);
    double again = work * (t->m + t->n) * part * ab * 0.6;   /* clusters share some */
    double seconds = fmax(fmax(time, bytes / h->hbm + 2.5e-6), again / h->l2) + (split > 1 ? 2e-6 : 0);
    return (Product){seconds, work / sms, t->m, t->n, split};
}

/* n products in one launch by product_group.cu, k whole: tiles of 256 x 256 for pairs of SMs, longest first, each to
 * the pair with the least to do; L2 is asked for 512 rows and columns of the inner dimension a tile. */
static inline double product_group(const Hopper *h, const Gemm *g, int n) {
    double load[128] = {0}, asked = 0, most = 0, rate = h->peak / h->sms * 2;
    bool dealt[64] = {false};
    int pairs = h->sms / 2;
    for (int turn = 0; turn < n; turn++) {
        int i = -1;
        for (int j = 0; j < n; j++)
            if (!dealt[j] && (i < 0 || g[j].k > g[i].k)) i = j;
        dealt[i] = true;
        double k = ceil((double)g[i].k / 64) * 64, tiles = ceil((double)g[i].m / 256) * ceil((double)g[i].n / 256);
        for (asked += tiles * 512 * k * 2; tiles > 0; tiles--) {
            int least = 0;
            for (int p = 1; p < pairs; p++) least = load[p] < load[least] ? p : least;
            load[least] += 2 * 256.0 * 256 * k / rate + 0.5e-6 + (g[i].add ? 8e-6 : 5e-6);
        }
    }
    for (int p = 0; p < pairs; p++) most = fmax(most, load[p]);
    return fmax(most, asked / h->l2) + 3.5e-6;
}

static inline Product product_predict(const Hopper *h, const Gemm *g) {
    static const ProductTile tiles[] = {{128, 256, 1.0}, {256, 128, 1.0}, {192, 192, 0.97}, {128, 192, 0.96},
                                        {192, 128, 0.96}, {128, 128, 0.86}, {64, 256, 0.84}, {256, 64, 0.84},
                                        {128, 64, 0.68}, {64, 128, 0.68}, {64, 64, 0.42}};
    Product best = {.seconds = INFINITY};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++)
        for (int split = 1; split <= 16; split *= 2) {
            double whole = ceil((double)g->n / tiles[i].m) * ceil((double)g->m / tiles[i].n);
            if (split > 1 && (whole >= h->sms || (double)g->k / split < 256)) break;
            Product p = product_by(h, g, &tiles[i], split);
            if (p.seconds < best.seconds) best = p;
        }
    return best;
}
