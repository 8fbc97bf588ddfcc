/* products: see products.h. */
#include "train/products.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/outfile.h"
#include "data/format/textfile.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

/* What the measuring backend was asked for; its calls carry no context. What follows a product lives as long as its
 * call, so it is kept beside it. */
typedef struct { Act act; ActGrad grad; } After;
static struct { Gemm *g; After *after; int n; bool full; } seen;

static bool same_act(const After *a, const Act *b, const ActGrad *d) {
    return a->act.kind == b->kind && !a->act.up == !b->up && !a->act.h == !b->h && !a->grad.du == !d;
}

static bool same(int i, const Gemm *b) {
    const Gemm *a = &seen.g[i];
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           a->ta == b->ta && a->tb == b->tb && a->add == b->add && a->ct == b->ct &&
           !a->bias == !b->bias && !a->sums == !b->sums && !a->act == !b->act &&
           (!b->act || same_act(&seen.after[i], b->act, b->grad));
}

static void see(const Gemm *g) {
    for (int i = 0; i < seen.n; i++)
        if (same(i, g)) return;
    seen.full = seen.full || mem_room(&seen.g, (size_t)seen.n, 1, sizeof *seen.g) != OK ||
                mem_room(&seen.after, (size_t)seen.n, 1, sizeof *seen.after) != OK;
    if (seen.full) return; /* there is nobody to return an error to: it is asked for at the end */
    After *after = &seen.after[seen.n];
    *after = (After){0};
    if (g->act) after->act = *g->act;
    if (g->grad) after->grad = *g->grad;
    seen.g[seen.n++] = *g;
}

/* Products of one call: each by itself, then all in a row. */
static void see_together(const Gemm *g, int n) {
    int known = 0;
    for (int i = 0; i < n; i++) see(&g[i]);
    for (int i = 0; i < seen.n && known < n; i++) {
        if (seen.g[i].together != n - 1 || i + n > seen.n) continue;
        for (known = 0; known < n && same(i + known, &g[known]);) known++;
    }
    if (known == n || n < 2) return;
    seen.full = seen.full || mem_room(&seen.g, (size_t)seen.n, (size_t)n, sizeof *seen.g) != OK ||
                mem_room(&seen.after, (size_t)seen.n, (size_t)n, sizeof *seen.after) != OK;
    for (int i = 0; i < n && !seen.full; i++) {
        seen.after[seen.n] = (After){0};
        seen.g[seen.n] = g[i];
        seen.g[seen.n++].together = i ? 0 : n - 1;
    }
}

/* All are seen: where what follows stands. */
static void link_after(void) {
    for (int i = 0; i < seen.n; i++) {
        Gemm *g = &seen.g[i];
        if (g->act) g->act = &seen.after[i].act;
        if (g->grad) g->grad = &seen.after[i].grad;
    }
}

/* The products of steps whose texts are of one length, for up to 16 lengths: sizes between are rounded to theirs. */
static Status list_products(const Backend *b, const TrainerSpec *spec) {
    TrainerSpec at = *spec;
    Plan plan;
    int step = (spec->tokens + 15) / 16;
    Status st = OK;
    memset(&seen, 0, sizeof seen);
    /* the null backend computes nothing: a step of each length costs little */
    at.product = see, at.products = see_together;
    for (at.tokens = spec->tokens; st == OK && at.tokens >= 2; at.tokens -= step) st = trainer_plan(&plan, b, &at);
    link_after();
    return seen.full ? ERR_MEMORY : st;
}

/* Rank 0's text to all; NULL stays NULL. */
static Status share(char **text) {
    int64_t n = dist_rank() == 0 && *text ? (int64_t)strlen(*text) : -1;
    Status st = dist_broadcast(&n, sizeof n, 0, "the choice of products");
    if (st != OK || n < 0) return st;
    if (dist_rank() && !(*text = mem_new((size_t)n + 1, 1))) return ERR_MEMORY;
    return dist_broadcast(*text, (size_t)n, 0, "the choice of products");
}

static Status choose(const Backend *b, const char *path) {
    char *kept = NULL, *text = NULL;
    size_t n;
    bool first = dist_rank() == 0;
    Status st = first && access(path, R_OK) == 0 ? textfile_read(&kept, &n, path, "choices of products") : OK;
    /* one rank times, all take its choice: other algorithms are other bits */
    if (st == OK && first) st = b->choose_products(seen.g, seen.n, kept, &text);
    if (st == OK && first && text && (!kept || strcmp(kept, text))) st = outfile_put(path, text, strlen(text));
    st = dist_agree(st);
    if (st == OK) st = share(&text);
    free(kept);
    if (st == OK && !first && text) {
        char *again = NULL;
        st = b->choose_products(seen.g, seen.n, text, &again);
        free(again);
    }
    free(text);
    return st;
}

Status products_choose(const Backend *b, const TrainerSpec *spec, const char *out) {
    if (!b->choose_products) return OK;
    char *path = mem_format("%s/products", out);
    Status st = path ? list_products(b, spec) : ERR_MEMORY;
    if (st == OK) st = choose(b, path);
    mem_free(seen.g, seen.after);
    memset(&seen, 0, sizeof seen);
    free(path);
    return st;
}
