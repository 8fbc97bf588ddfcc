/* bench_ops: the time of each op, at the full model's sizes and at a small one's.
 *
 *     build/bench_ops [device=cpu] [elem=f32] [size=full|demo] [json=FILE] [clock=cpu] [name ...]
 *
 * A line an op: the best of its runs (other programs may disturb the rest), bytes moved and GB/s as a share of what a
 * copy of 256 MB reaches in this run, or GFLOP/s as a share of the best product of this run. FILE gets a JSON line an
 * op. On a busy machine, OMP_NUM_THREADS=1 and clock=cpu (this process's time instead of the wall's) give figures that
 * still mean something. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/backend.h"

typedef struct {
    const char *name;
    int64_t N, C, F, images, P, E, V, Z, pairs;
    int32_t H, Q, text;
} Size;

static const Size sizes[] = {
    {"full", 1500, 768, 3072, 8, 257, 1408, 30523, 256, 20, 12, 32, 13},
    {"demo", 4000, 64, 256, 64, 17, 48, 1000, 32, 64, 4, 8, 10},
};

static const Backend *K;
static DType E;
static FILE *json;
static const Size *S;
static double peak_flops, peak_bytes;
static char **wanted;
static int nwanted;

static clockid_t the_clock = CLOCK_MONOTONIC;

static double now(void) {
    struct timespec t;
    clock_gettime(the_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(void) {
    fprintf(stderr, "bench_ops: %s\n", err_message());
    exit(1);
}

/* n numbers of type t between lo and hi on the device. They stay until the end. */
static void *numbers(DType t, int64_t n, float lo, float hi) {
    static uint64_t x = 1;
    void *p, *host;
    size_t bytes = (size_t)n * (size_t)dtype_size(t);
    if (K->alloc(&p, bytes) != OK || K->host_alloc(&host, bytes) != OK) die();
    if (t == DT_U8) memset(host, 1, bytes);
    for (int64_t i = 0; i < n && t != DT_U8; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        float f = lo + (hi - lo) * (float)(x >> 40) * 0x1p-24f;
        if (t == DT_I32) ((int32_t *)host)[i] = (int32_t)f;
        else dtype_from_f32((char *)host + (size_t)i * (size_t)dtype_size(t), t, &f, 1);
    }
    K->upload(p, host, bytes);
    K->sync();
    K->host_release(host);
    return p;
}

static void *device_copy(const void *src, size_t bytes) {
    void *p;
    if (K->alloc(&p, bytes) != OK) die();
    K->download(p, src, K->unified ? bytes : 0);
    if (!K->unified) {
        void *host;
        if (K->host_alloc(&host, bytes) != OK) die();
        memcpy(host, src, bytes);
        K->upload(p, host, bytes);
        K->sync();
        K->host_release(host);
    }
    return p;
}

static double best_time(void (*launch)(void)) {
    double best = 1e30, start = now();
    launch();
    K->sync();
    for (int i = 0; i < 400 && (i < 5 || now() - start < 0.5); i++) {
        double t = now();
        launch();
        K->sync();
        t = now() - t;
        if (t < best) best = t;
    }
    if (K->status() != OK) die();
    return best;
}

static void bench(const char *name, void (*launch)(void), double flops, double bytes) {
    if (nwanted) {
        int hit = 0;
        for (int i = 0; i < nwanted; i++) hit |= strstr(name, wanted[i]) != NULL;
        if (!hit) return;
    }
    double t = best_time(launch), share;
    printf("%-5s %-26s %9.3f ms ", S->name, name, t * 1e3);
    if (flops > 0) {
        share = flops / t / peak_flops;
        printf("%9.1f GFLOP/s %5.1f %% of the best product\n", flops / t * 1e-9, 100.0 * share);
    } else {
        share = bytes / t / peak_bytes;
        printf("%9.1f GB/s    %5.1f %% of a copy\n", bytes / t * 1e-9, 100.0 * share);
    }
    if (json)
        fprintf(json, "{\"device\":\"%s\",\"elem\":\"%s\",\"size\":\"%s\",\"op\":\"%s\",\"ms\":%.6f,"
                "\"flops\":%.0f,\"bytes\":%.0f,\"share\":%.4f}\n",
                K->name, dtype_name(E), S->name, name, t * 1e3, flops, bytes, share);
    fflush(stdout);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static Gemm gm;
static void run_gemm(void) { K->gemm(&gm); }

static void product(const char *name, int64_t m, int64_t n, int64_t k, char mode, bool bias, bool f32out) {
    gm = (Gemm){.m = m, .n = n, .k = k, .ab = E, .ct = f32out ? DT_F32 : E, .ta = mode == 'w', .tb = mode == 'y',
                .add = mode == 'w'};
    gm.a = numbers(E, m * k, -1, 1), gm.b = numbers(E, k * n, -1, 1), gm.c = numbers(gm.ct, m * n, -1, 1);
    gm.bias = bias ? numbers(E, n, -1, 1) : NULL;
    gm.lda = gm.ta ? m : k, gm.ldb = gm.tb ? k : n, gm.ldc = n;
    double flops = 2.0 * (double)m * (double)n * (double)k, t = 0;
    if (!name) {                        /* the yardstick */
        t = best_time(run_gemm);
        if (flops / t > peak_flops) peak_flops = flops / t;
    } else {
        bench(name, run_gemm, flops, 0);
    }
    K->release((void *)(uintptr_t)gm.a);
    K->release((void *)(uintptr_t)gm.b);
    K->release(gm.c);
    if (bias) K->release((void *)(uintptr_t)gm.bias);
}

static void products(void) {
    int64_t N = S->N, C = S->C, F = S->F;
    product("gemm qkv", N, 3 * C, C, 'y', true, false);
    product("gemm five rows", 5, F, C, 'y', true, true);
    product("gemm out", N, C, C, 'y', false, false);
    product("gemm ffn in", N, F, C, 'y', false, false);
    product("gemm ffn out", N, C, F, 'y', false, false);
    product("gemm dx of ffn in", N, C, F, 'x', false, false);
    product("gemm dx of ffn out", N, F, C, 'x', false, false);
    product("gemm dw of ffn in", F, C, N, 'w', false, true);
    product("gemm dw of ffn out", C, F, N, 'w', false, true);
    product("gemm dw of out", C, C, N, 'w', false, true);
    product("gemm image k, v", S->images * S->P, 12 * C, S->E, 'y', true, false);
    product("gemm dw of image k, v", 12 * C, S->E, S->images * S->P, 'w', false, true);
    product("gemm lm head", N / 5, S->V, C, 'y', true, true);
    product("gemm dx of lm head", N / 5, C, S->V, 'x', false, false);
    product("gemm dw of lm head", S->V, C, N / 5, 'w', false, true);
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static void *a0, *a1, *a2, *a3;
static float *f0, *f1, *f2, *f3, *f4;
static int64_t n_, c_;
static Act ac;
static ActGrad acg;
static void run_act(void) { K->act(&ac); }
static void run_act_bwd(void) { K->act_bwd(&ac, &acg); }
static void run_colsum(void) { K->colsum(f1, a1, n_, c_, c_); }
static AddNorm no;
static AddNormGrad nog;
static void run_norm(void) { K->add_norm(&no); }
static void run_norm_bwd(void) { K->add_norm_bwd(&no, &nog); }
static void run_copy(void) { K->copy(a0, a1, 256 << 20); }
static void run_mean(void) { K->segment_mean(a0, a1, n_, c_, S->C); }
static void run_normalize(void) { K->normalize(a0, a1, DT_F16, NULL, n_, c_, S->P, 1e-5f); }
static void run_fold(void) { K->fold(a0, a1, f0, f1, f2, f3, n_, c_); }
static void run_unfold(void) { K->unfold(f0, false, f1, f2, f3, f4, f1, a2, f2, f3, n_, c_); }
static AdamW ad;
static void run_adamw(void) { K->adamw(&ad); }
static double *d0;
static void run_sumsq(void) { K->sumsq(d0, f0, n_, false); }

static void rows(void) {
    int64_t N = S->N, C = S->C, F = S->F, es = dtype_size(E);
    double nf = (double)(N * F * es), nc = (double)(N * C * es);
    n_ = N, c_ = F;
    a0 = numbers(E, N * F, -1, 1), a1 = numbers(E, N * F, -3, 3), a2 = numbers(E, N * F, -1, 1),
        a3 = numbers(E, N * F, -1, 1);
    f0 = numbers(DT_F32, F, -1, 1), f1 = numbers(DT_F32, F, 0, 0), f2 = numbers(DT_F32, F, 1, 1),
        f3 = numbers(DT_F32, N, 0, 0);
    f4 = numbers(DT_F32, N, 1, 1);
    static const char *const kinds[] = {"gelu", "gelu tanh", "gelu quick", "relu", "silu"};
    for (int k = ACT_GELU; k <= ACT_SILU; k++) {
        ac = (Act){.kind = k, .N = N, .F = F, .ldu = F, .ldh = F, .u = a1, .bias = f0, .h = a0};
        bench(kinds[k], run_act, 0, 2 * nf);
    }
    ac = (Act){.kind = ACT_GELU, .N = N, .F = F, .ldu = F, .ldh = F, .u = a1, .bias = f0, .h = a3};
    acg = (ActGrad){.dh = a2, .du = a0, .lddh = F, .lddu = F, .dbias = f1};
    bench("gelu_bwd", run_act_bwd, 0, 4 * nf);
    bench("colsum", run_colsum, 0, nf);
    RowKey *keys = calloc((size_t)N, sizeof *keys);
    if (!keys) exit(1);
    for (int64_t i = 0; i < N; i++) keys[i] = (RowKey){(uint32_t)i, 1};
    Dropout drop = {0.1f, 16, 1, 1, device_copy(keys, (size_t)N * sizeof *keys)};
    free(keys);
    no = (AddNorm){.N = N, .C = (int32_t)C, .eps = 1e-12f, .s = a1, .x = a2, .bias = f0, .gamma = f2, .beta = f1,
                   .y = a0, .mean = f3, .rstd = f4};
    nog = (AddNormGrad){.dy = a0, .ds = a3, .dx = a2, .dbias = f1, .dgamma = f1, .dbeta = f1, .add_dx = true};
    bench("add_norm", run_norm, 0, 4 * nc);
    bench("add_norm_bwd", run_norm_bwd, 0, 5 * nc);
    no.drop = drop;
    bench("add_norm dropout", run_norm, 0, 4 * nc);
    bench("add_norm_bwd dropout", run_norm_bwd, 0, 5 * nc);
    n_ = N / S->Q, c_ = S->Q;
    bench("segment_mean", run_mean, 0, nc);
    n_ = S->images * S->P, c_ = S->E;
    a0 = numbers(E, n_ * c_, -1, 1), a1 = numbers(DT_F16, n_ * c_, -1, 1);
    bench("normalize f16", run_normalize, 0, (double)(n_ * c_) * (double)(2 + es));
    n_ = 12 * C;
    a0 = numbers(E, n_ * c_, 0, 0), a1 = numbers(E, n_, 0, 0), a2 = numbers(DT_F32, n_ * c_, -1, 1), f0 = a2;
    f1 = numbers(DT_F32, n_, 0, 0), f2 = numbers(DT_F32, c_, 1, 1), f3 = numbers(DT_F32, c_, 0, 0),
        f4 = numbers(DT_F32, n_ * c_, -1, 1);
    bench("fold", run_fold, 0, (double)(n_ * c_) * (double)(4 + es));
    f0 = numbers(DT_F32, n_ * c_, -1, 1);
    bench("unfold", run_unfold, 0, (double)(n_ * c_) * 12);
    n_ = S == &sizes[0] ? 24 << 20 : 400000;
    f0 = numbers(DT_F32, n_, -1, 1);
    d0 = numbers(DT_F64, 1, 0, 0);
    ad = (AdamW){.p = numbers(DT_F32, n_, -1, 1), .g = f0, .m = numbers(DT_F32, n_, -1, 1),
                 .v = numbers(DT_F32, n_, 0, 1), .n = n_, .copy = E == DT_F32 ? NULL : numbers(E, n_, 0, 0),
                 .gscale = f2, .lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f,
                 .weight_decay = 0.05f, .c1 = 0.1f, .c2 = 0.02f};
    bench("sumsq", run_sumsq, 0, (double)n_ * 4);
    bench("adamw", run_adamw, 0, (double)n_ * (E == DT_F32 ? 32 : 34));
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

static Attn at;
static AttnGrad atg;
static AttnPlan plan;
static AttnItem items[1024];
static AttnGroup groups[512];
static int32_t key_rows;
static void run_attention(void) { K->attention(&at); }
static void run_attention_bwd(void) { K->attention_bwd(&at, &atg); }

static void group(int32_t nk0, int32_t nk1) {
    groups[plan.ngroups++] = (AttnGroup){.item0 = plan.nitems, .k0 = {key_rows, key_rows + nk0}, .nk = {nk0, nk1}};
    key_rows += nk0 + nk1;
    plan.max_group_nk = nk0 > plan.max_group_nk ? nk0 : plan.max_group_nk;
    plan.max_group_nk = nk1 > plan.max_group_nk ? nk1 : plan.max_group_nk;
}

static void item(int32_t nq, bool a, bool b, bool causal) {
    AttnGroup *g = &groups[plan.ngroups - 1];
    AttnItem *t = &items[plan.nitems++];
    *t = (AttnItem){.q0 = plan.nrows, .nq = nq, .a0 = g->k0[0], .na = a ? g->nk[0] : 0,
                    .b0 = g->k0[1], .nb = b ? g->nk[1] : 0,
                    .causal = causal, .group = plan.ngroups - 1};
    g->nitems++;
    plan.nrows += nq;
    plan.max_nq = nq > plan.max_nq ? nq : plan.max_nq;
    plan.max_nk = t->na + t->nb > plan.max_nk ? t->na + t->nb : plan.max_nk;
    plan.products += causal ? nq * t->na + (int64_t)nq * (nq + 1) / 2 : nq * (t->na + t->nb);
}

static void attend(const char *name, float p) {
    int64_t C = S->C, n = plan.nrows;
    char full[64];
    plan.host_items = items, plan.host_groups = groups;
    plan.items = device_copy(items, (size_t)plan.nitems * sizeof *items);
    plan.groups = device_copy(groups, (size_t)plan.ngroups * sizeof *groups);
    RowKey *keys = calloc((size_t)n, sizeof *keys);
    if (!keys) exit(1);
    for (int64_t i = 0; i < n; i++) keys[i] = (RowKey){(uint32_t)i, 1};
    at = (Attn){.plan = &plan, .q = numbers(E, n * C, -1, 1), .k = numbers(E, key_rows * 2 * C, -1, 1),
                .o = numbers(E, n * C, -1, 1), .lse = numbers(DT_F32, n * S->H, 0, 0), .ldq = C, .ldk = 2 * C,
                .ldv = 2 * C, .ldo = C, .H = S->H, .KH = S->H, .D = (int32_t)C / S->H,
                .scale = 0.2f, .drop = {p, 16, 1, 1, device_copy(keys, (size_t)n * sizeof *keys)}};
    free(keys);
    at.v = (const char *)at.k + C * dtype_size(E);
    atg = (AttnGrad){.d_o = numbers(E, n * C, -1, 1), .dq = numbers(E, n * C, -1, 1),
                     .dk = numbers(E, key_rows * 2 * C, -1, 1), .lddq = C, .lddk = 2 * C, .lddv = 2 * C};
    atg.dv = (char *)atg.dk + C * dtype_size(E);
    double flops = 4.0 * (double)plan.products * (double)C;
    snprintf(full, sizeof full, "%s%s", name, p > 0 ? " dropout" : "");
    bench(full, run_attention, flops, 0);
    snprintf(full, sizeof full, "%s_bwd%s", name, p > 0 ? " dropout" : "");
    bench(full, run_attention_bwd, 2.5 * flops, 0);
}

static void attention(void) {
    for (int drop = 0; drop < 2; drop++) {
        plan = (AttnPlan){0};
        key_rows = 0;
        for (int64_t i = 0; i < S->pairs; i++) {
            group(S->Q, S->text), item(S->Q, true, false, false), item(S->text, true, true, true);
            group(S->text, 0), item(S->text, true, false, false);
            group(S->Q, S->text), item(S->Q, true, true, false), item(S->text, true, true, false);
        }
        attend("attention self", drop ? 0.1f : 0);
        plan = (AttnPlan){0};
        key_rows = 0;
        for (int64_t i = 0; i < S->images; i++) group((int32_t)S->P, 0), item(S->Q, true, false, false),
            item(S->Q, true, false, false);
        attend("attention cross", drop ? 0.1f : 0);
        plan = (AttnPlan){0};
        key_rows = 0;
        for (int64_t i = 0; !drop && i < S->images; i++) {               /* five beams behind a prefix */
            group((int32_t)S->P, 0);
            for (int beam = 0; beam < 5; beam++) item(1, true, false, false);
        }
        if (!drop) attend("attention one row", 0);
    }
}

/* ---- heads and losses ------------------------------------------------------------------------------------------ */

static float *si, *st, *ss, *sd;
static int32_t *sarg;
static void run_simmax(void) { K->simmax(ss, sarg, si, st, S->pairs, S->pairs, S->Q, S->Z, S->pairs, 1); }
static void run_simmax_bwd(void) {
    K->simmax_bwd_image(sd, ss, sarg, st, S->pairs, S->pairs, S->Q, S->Z, S->pairs, 1);
    K->simmax_bwd_text(sd, ss, sarg, si, S->pairs, S->pairs, S->Q, S->Z, S->pairs, 1);
}
static Xent xe;
static void run_xent(void) { K->xent(&xe); }
static ItcLoss il;
static void run_itc(void) { K->itc_loss(&il); }
static void run_l2norm(void) { K->l2norm(f0, f1, a0, n_, c_); }
static Embed em;
static void run_embed(void) { K->embed(&em); }

static void heads(void) {
    int64_t n = S->pairs;
    si = numbers(DT_F32, n * S->Q * S->Z, -1, 1), st = numbers(DT_F32, n * S->Z, -1, 1),
        ss = numbers(DT_F32, n * n, -1, 1);
    sarg = numbers(DT_I32, n * n, 0, 0), sd = numbers(DT_F32, n * S->Q * S->Z, 0, 0);
    bench("simmax", run_simmax, 2.0 * (double)(n * n * S->Q * S->Z), 0);
    bench("simmax_bwd", run_simmax_bwd, 4.0 * (double)(n * n * S->Z), 0);
    int32_t *target = numbers(DT_I32, S->N, 0, (float)n);
    il = (ItcLoss){.rows = n, .n = n, .si = n, .sj = 1, .S = ss, .temp = numbers(DT_F32, 1, 1, 1), .target = target,
                   .smoothing = 0.1f, .scale = 1, .loss = numbers(DT_F32, n, 0, 0), .dS = numbers(DT_F32, n * n, 0, 0),
                   .dtemp = numbers(DT_F32, n, 0, 0)};
    bench("itc_loss", run_itc, 0, 8.0 * (double)(n * n));
    int64_t m = S->N / 5;
    xe = (Xent){.rows = m, .n = S->V, .ld = S->V, .logits = numbers(DT_F32, m * S->V, -4, 4), .target = target,
                .smoothing = 0.1f, .scale = 1, .loss = numbers(DT_F32, m, 0, 0), .dlogits = numbers(E, m * S->V, 0, 0),
                .ldd = S->V, .dt = E};
    bench("xent", run_xent, 0, (double)(m * S->V) * (4.0 + dtype_size(E)));
    n_ = n * S->Q, c_ = S->Z;
    f0 = numbers(DT_F32, n_ * c_, 0, 0), f1 = numbers(DT_F32, n_, 0, 0), a0 = numbers(E, n_ * c_, -1, 1);
    bench("l2norm", run_l2norm, 0, (double)(n_ * c_) * (4.0 + dtype_size(E)));
    int64_t nt = S->N / 2, nq = S->N / 2 / S->Q * S->Q;
    em = (Embed){.nq = nq, .nt = nt, .Q = S->Q, .C = (int32_t)S->C, .eps = 1e-12f,
                 .query = numbers(E, S->Q * S->C, -1, 1), .word = numbers(E, S->V * S->C, -1, 1),
                 .pos = numbers(E, 32 * S->C, -1, 1), .ids = numbers(DT_I32, nt, 0, (float)S->V - 1),
                 .pos_id = numbers(DT_I32, nt, 0, 31), .gamma = numbers(DT_F32, S->C, 1, 1),
                 .beta = numbers(DT_F32, S->C, 0, 0),
                 .y = numbers(E, (nq + nt) * S->C, 0, 0), .mean = numbers(DT_F32, nq + nt, 0, 0),
                 .rstd = numbers(DT_F32, nq + nt, 0, 0)};
    bench("embed", run_embed, 0, (double)((nq + nt) * S->C * dtype_size(E)) * 2);
}

int main(int argc, char **argv) {
    const char *device = getenv("QFORMER_DEVICE") ? getenv("QFORMER_DEVICE") : "cpu", *elem = "f32", *size = "";
    wanted = calloc((size_t)argc, sizeof *wanted);
    if (!wanted) return 1;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "device=", 7) == 0) device = argv[i] + 7;
        else if (strncmp(argv[i], "elem=", 5) == 0) elem = argv[i] + 5;
        else if (strncmp(argv[i], "size=", 5) == 0) size = argv[i] + 5;
        else if (strcmp(argv[i], "clock=cpu") == 0) the_clock = CLOCK_PROCESS_CPUTIME_ID;
        else if (strncmp(argv[i], "json=", 5) == 0) json = fopen(argv[i] + 5, "w");
        else wanted[nwanted++] = argv[i];
    }
    E = strcmp(elem, "bf16") == 0 ? DT_BF16 : DT_F32;
    if (backend_open(&K, device, E, 0) != OK) die();
    void *workspace;
    if (K->alloc(&workspace, K->workspace + 1) != OK) die();
    K->set_workspace(workspace, K->workspace);
    a0 = numbers(DT_U8, 256 << 20, 0, 1), a1 = numbers(DT_U8, 256 << 20, 0, 1);
    peak_bytes = 2.0 * (256 << 20) / best_time(run_copy);
    K->release(a0);
    K->release(a1);
    product(NULL, 1500, 3072, 768, 'y', false, false);
    product(NULL, 1500, 768, 768, 'x', false, false);
    product(NULL, 1024, 1024, 1024, 'y', false, false);
    printf("%s, %s: copy %.1f GB/s, best product %.1f GFLOP/s\n", K->name, dtype_name(E), peak_bytes * 1e-9,
           peak_flops * 1e-9);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        S = &sizes[i];
        if (*size && strcmp(size, S->name) != 0) continue;
        products();
        rows();
        attention();
        heads();
    }
    if (json) fclose(json);
    free(wanted);
    backend_close(K);
    return 0;
}
