/* gold_ranks: the fixture kind ranks: one batch over several processes. Losses, features, similarities and weights of
 * each rank; gradients as the reference averages them (itg_mean: rank), and as one process with the whole batch has
 * them (global).
 *
 * Met by one process, a case starts its processes itself: this program again, under mpirun,
 * for the case's folder alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/dist/dist.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"
#include "train/plan.h"

typedef struct { double loss, grad, feature, sim; } Tolerance;

static Tolerance tolerance(const Case *c) {
    return c->precision == DT_F32 ? (Tolerance){1e-5, 1e-4, 1e-4, 1e-4} : (Tolerance){6e-2, 8e-2, 2e-2, 0.3};
}

/* ---- one of the processes ---------------------------------------------------------------------------------------- */

static void compare(Case *c, const char *name, const float *x, int64_t n, float factor, const StFile *f, double tol) {
    char full[64];
    float *h = mem_new((size_t)n, sizeof *h);
    BUG_ON(!h, "out of memory");
    snprintf(full, sizeof full, "rank%d.%s", dist_rank(), name);
    c->b->download(h, x, (size_t)n * sizeof *h);
    for (int64_t i = 0; i < n; i++) h[i] *= factor;
    gold_tensor(c, full, h, n, st_find(f, full), tol, 0);
    free(h);
}

static void check_loss(Case *c, const Json *of, const char *key, double got, double tol) {
    double want = gold_num(of, key);
    gold_check(c, key, got - want, tol * fmax(1.0, fabs(want)));
}

static void check_means(Case *c, const char *of, const Stage1Losses *l) {
    const Json *want = json_get(c->json, of);
    double tol = tolerance(c).loss;
    check_loss(c, want, "loss", l->loss, tol);
    check_loss(c, want, "loss_itc", l->itc, tol);
    check_loss(c, want, "loss_itm", l->itm, tol);
    check_loss(c, want, "loss_lm", l->itg, tol);
}

/* What this rank alone knows. Its matching loss is not here: the reference counts a negative pair where its text is, we
 * where its image is. */
static Status check_own(Case *c, const Trainer *t) {
    const Json *mine = json_at(json_get(c->json, "ranks"), (size_t)dist_rank());
    const Contrast *k = &((const Stage1 *)t->self)->contrast;
    Tolerance tol = tolerance(c);
    StFile *out = NULL;
    float sums[SUM_COUNT], itemp = 1.0f / (float)gold_num(c->json, "temp");
    Status st = gold_open(c, NULL, "outputs.safetensors", &out);
    if (st != OK) return st;
    c->b->download(sums, ((const Stage1 *)t->self)->sums, sizeof sums);
    check_loss(c, mine, "loss_itc", sums[SUM_ITC] / (2.0 * (double)k->B), tol.loss);
    check_loss(c, mine, "loss_lm", sums[SUM_ITG] / gold_num(mine, "lm_targets"), tol.loss);
    compare(c, "sim_i2t", k->S_i2t, k->B * k->G, itemp, out, tol.sim);
    compare(c, "sim_t2i", k->S_t2i, k->B * k->G, itemp, out, tol.sim);
    compare(c, "weights_t2i", k->weights, k->B * k->G, 1, out, tol.sim);
    compare(c, "weights_i2t", k->weights + k->B * k->G, k->B * k->G, 1, out, tol.sim);
    compare(c, "image_feats", k->I, k->B * k->Q * k->Z, 1, out, tol.feature);
    compare(c, "text_feats", k->T, k->B * k->Z, 1, out, tol.feature);
    st_close(out);
    return OK;
}

/* What train/plan.h counts on paper is what came. Parts of the gradient are multiples of 64, the paper's are not. */
static void check_wire(Case *c, const Trainer *t, double received, bool ids) {
    const Contrast *k = &((const Stage1 *)t->self)->contrast;
    Wire w = wire_ours(&t->model.d, t->model.params.total, k->B, dist_size(), 4);
    double no_ids = ids ? 0 : 8.0 * (double)(k->G - k->B);   /* a case without has none to send */
    gold_check(c, "bytes on the wire", received + no_ids - wire_total(&w),
               2 * 64 * 4 * dist_size());
}

static Status run_mixture(Case *c, const GoldBatch *batch, Stage1Spec spec, const char *stem, const char *means) {
    Trainer t;
    StFile *f = NULL;
    Stage1Losses l;
    Status st = gold_open_first(c, stem, &f);
    spec.keep_weights = true;
    if (st == OK) st = gold_trainer(c, &t, spec);
    if (st == OK) {
        double before = dist_received();
        st = stage1_losses(t.self, &batch->batch, 0, 1.0f, true, &l);
        if (st == OK && t.b->unified) check_wire(c, &t, dist_received() - before, batch->image_id != NULL);
        if (st == OK) gold_params(c, &t, t.model.params.g, f, stem, tolerance(c).grad, false);
        if (st == OK && means) check_means(c, means, &l);
        if (st == OK && means) st = check_own(c, &t);
        trainer_close(&t);
    }
    st_close(f);
    return st;
}

static Status open_batch(Case *c, GoldBatch *batch) {
    StFile *f = NULL;
    const Json *j = json_get(c->json, "dims"), *mine = json_at(json_get(c->json, "ranks"), (size_t)dist_rank());
    Dims d = {.P = (int32_t)gold_int(j, "P"), .E = (int32_t)gold_int(j, "E"), .T = (int32_t)gold_int(j, "T")};
    int64_t B = gold_int(j, "B");
    *batch = (GoldBatch){0};
    Status st = gold_open(c, "batch", "batch.safetensors", &f);
    if (st == OK) st = gold_batch(c, f, dist_rank(), &d, B, batch);
    st_close(f);
    if (st != OK) return st;
    batch->negative_image = mem_new((size_t)B, sizeof(int32_t));
    batch->negative_text = mem_new((size_t)B, sizeof(int32_t));
    if (!batch->negative_image || !batch->negative_text) return ERR_MEMORY;
    for (int64_t i = 0; i < B; i++) {
        int64_t image = -1, text = -1;
        json_int(json_at(json_get(mine, "negative_image"), (size_t)i), &image);
        json_int(json_at(json_get(mine, "negative_text"), (size_t)i), &text);
        batch->negative_image[i] = (int32_t)image, batch->negative_text[i] = (int32_t)text;
        if (batch->image_id)
            json_int(json_at(json_get(c->json, "image_id"), (size_t)(dist_rank() * B + i)), &batch->image_id[i]);
    }
    batch->batch.negative_image = batch->negative_image;
    batch->batch.negative_text = batch->negative_text;
    return OK;
}

/* Every rank ends with the worst of all. */
static Status join(Case *c, Status st) {
    struct { double worst; int64_t compared; char what[200]; } mine = {c->worst, c->compared, ""}, all[64];
    st = dist_agree(st);
    if (st != OK) return st;
    snprintf(mine.what, sizeof mine.what, "%s", c->worst_what);
    st = dist_all_gather(all, &mine, sizeof mine, "a gather");
    for (int r = 0; st == OK && r < dist_size(); r++) {
        if (r != dist_rank()) c->compared += (int)all[r].compared;
        if (all[r].worst > c->worst) c->worst = all[r].worst, memcpy(c->worst_what, all[r].what, sizeof c->worst_what);
    }
    return st;
}

static Status run_rank(Case *c) {
    GoldBatch b;
    Status st = open_batch(c, &b);
    Stage1Spec mean = {.itc = 1, .itm = 1, .itg = 1, .image_ids = b.image_id != NULL, .itg_rank_mean = true},
             global = mean;
    Stage1Spec itc = mean, itm = mean, itg = mean;
    itc.itm = itc.itg = 0, itm.itc = itm.itg = 0, itg.itc = itg.itm = 0;
    global.itg_rank_mean = false;
    if (st == OK) st = run_mixture(c, &b, mean, "grads", "mean");
    if (st == OK) st = run_mixture(c, &b, itc, "grads_itc", NULL);
    if (st == OK) st = run_mixture(c, &b, itm, "grads_itm", NULL);
    if (st == OK) st = run_mixture(c, &b, itg, "grads_lm", NULL);
    if (st == OK) st = run_mixture(c, &b, global, "grads_single", "single_process");
    gold_batch_free(&b);
    return join(c, st);
}

/* ---- the one that starts them ------------------------------------------------------------------------------------ */

/* Runs argv and keeps the end of what it says. */
static int capture(char *const argv[], const char *ranks, char *text, size_t size) {
    int to[2], status = -1;
    if (pipe(to) != 0) return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(to[1], 1);
        dup2(to[1], 2);
        close(to[0]);
        close(to[1]);
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);            /* without it mpirun refuses root, which containers are */
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
        setenv("OMP_NUM_THREADS", "1", 0);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);         /* of MPI's own */
        setenv("VGPU_DEVICES", ranks, 1);                    /* where GPUs are emulated: one for each */
        execvp(argv[0], argv);
        _exit(127);
    }
    close(to[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(to[0], text + n, size - 1 - n)) > 0;) {
        n += (size_t)got;
        if (n > size / 2) memmove(text, text + n - size / 4, size / 4), n = size / 4;
    }
    close(to[0]);
    text[n] = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static Status start(Case *c, int64_t W) {
    char exe[1024], ranks[8], device[32], precision[32], program[] = "mpirun", np[] = "-np", over[] = "--oversubscribe",
                                                         bind[] = "--bind-to", none[] = "none",
                                                         *text = mem_new(1 << 16, 1);
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (!text) return ERR_MEMORY;
    exe[n > 0 ? n : 0] = 0;
    snprintf(ranks, sizeof ranks, "%d", (int)W);
    snprintf(device, sizeof device, "device=%s", c->b->name);
    snprintf(precision, sizeof precision, "precision=%s", dtype_name(c->precision));
    char *argv[] = {program, np, ranks, over, bind, none, exe, c->dir, device, precision, NULL};
    int code = capture(argv, ranks, text, 1 << 16), compared = 0;
    Status st = OK;
    const char *line = strstr(text, "compared, worst "), *begin = line;
    while (begin && begin > text && begin[-1] != '\n') begin--;
    if (code == 127) st = err_set(ERR_MISSING, "mpirun was not found");
    else if (strstr(text, "has no GPU of its own") || strstr(text, "Duplicate GPU"))
        st = err_set(ERR_MISSING, "%lld GPUs are needed", (long long)W);
    else if (!line ||
             sscanf(begin, "%*s %*s %*s %d compared, worst %lf of its tolerance (%199[^)]", &compared, &c->worst,
                    c->worst_what) != 3 ||
             (code != 0 && c->worst <= 1.0))
        st = err_set(ERR_DIST, "%lld processes ended with code %d: %.300s", (long long)W, code, text);
    c->compared = compared;
    free(text);
    return st;
}

Status gold_ranks(Case *c) {
    int64_t W = gold_int(json_get(c->json, "dims"), "W");
    if (W < 2 || W > 64) return err_set(ERR_FORMAT, "%lld ranks", (long long)W);
    if (dist_size() == W) return run_rank(c);
    if (dist_size() > 1) return err_set(ERR_MISSING, "for %lld processes, these are %d", (long long)W, dist_size());
    if (strncmp(dist_version(), "none", 4) == 0)
        return err_set(ERR_MISSING, "several processes, and this build has no MPI");
    return start(c, W);
}
