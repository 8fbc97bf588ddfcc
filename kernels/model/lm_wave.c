/* lm_wave: see lm_wave.h. */
#include "kernels/model/lm_wave.h"

#include <string.h>

#include "kernels/model/planner.h"

/* What is taken below, list by list. A text that follows its prefix at once has a target more than rows. */
size_t lm_wave_bytes(int64_t rows, int64_t prefixes, int64_t texts) {
    size_t word = sizeof(int32_t), lists = 3 * staging_bytes(rows, word) + 3 * staging_bytes(rows + texts, word);
    size_t self = staging_bytes(prefixes + texts, sizeof(AttnItem)) + staging_bytes(prefixes, sizeof(AttnGroup));
    size_t decoder = 2 * staging_bytes(texts, sizeof(AttnItem)) + staging_bytes(texts, sizeof(AttnGroup)) +
                     staging_bytes(prefixes, sizeof(AttnGroup));
    size_t keys = 2 * staging_bytes(rows, sizeof(RowKey)) + staging_bytes(rows + texts, sizeof(RowKey));
    return lists + keys + staging_bytes(texts + 2, word) + self + decoder;
}

/* ---- sharing ----------------------------------------------------------------------------------------------------- */

/* Whether b may have the prefix of a. */
static bool continues(const LmDims *d, const LmItem *a, const LmItem *b) {
    if (a->image != b->image) return false;
    /* T5's encoder sees both ways: a longer prompt changes every row */
    if (d->family != LM_T5 || (!a->target && !b->target)) return true;
    /* equal to the last id, or nothing of it can be shared */
    return a->target == b->target && memcmp(a->ids, b->ids, (size_t)a->target * sizeof *a->ids) == 0;
}

/* How many ids all prompts of items [0, n) begin with. */
static int32_t common_ids(const LmItem *items, int n) {
    int32_t most = items->target;
    for (int i = 1; i < n; i++) {
        int32_t k = 0;
        while (k < most && k < items[i].target && items[i].ids[k] == items->ids[k]) k++;
        most = k;
    }
    return most;
}

int lm_share(const LmDims *d, int32_t Q, const LmItem *items, int n, bool shared, LmPrefix *p, int32_t *image,
             LmText *s) {
    int np = 0;
    for (int i = 0, end; i < n; i = end, np++) {
        end = i + 1;
        while (shared && end < n && continues(d, &items[i], &items[end])) end++;
        /* what all begin with is computed once, and its gradient summed there */
        int32_t common = common_ids(items + i, end - i);
        p[np] = (LmPrefix){.soft = np * Q, .nsoft = Q, .ids = items[i].ids, .n = common};
        image[np] = items[i].image;
        for (int k = i; k < end; k++)
            s[k] = (LmText){.prefix = np, .ids = items[k].ids + common, .n = items[k].n - common,
                            .target = items[k].target - common};
    }
    return np;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Rows that a text takes: all ids but the last, behind T5's start. */
static int32_t text_rows(const LmDims *d, const LmText *s) {
    return d->family == LM_T5 ? s->n : s->n > 0 ? s->n - 1 : 0;
}

static void longest(LmWave *w, int32_t n) {
    if (n > w->longest) w->longest = n;
}

static void place_rows(LmWave *w, const LmDims *d, LmPrefix *p, int np, LmText *s, int ns) {
    bool two = d->family == LM_T5;
    int k = 0;
    for (int i = 0; i < np; i++) {
        p[i].row0 = (int32_t)w->N;
        w->N += p[i].nsoft + p[i].n;
        longest(w, p[i].nsoft + p[i].n);
        for (; k < ns && s[k].prefix == i; k++) {
            int32_t n = text_rows(d, &s[k]);
            BUG_ON(s[k].target < 0 || s[k].target > s[k].n || (!two && !s[k].target && !(p[i].nsoft + p[i].n)),
                   "lm_wave: text %d of %d ids, targets from %d", k, s[k].n, s[k].target);
            s[k].row0 = (int32_t)(two ? w->M : w->N);
            s[k].target0 = (int32_t)w->T;
            *(two ? &w->M : &w->N) += n;
            /* a prompt's ids are read, not said */
            w->T += s[k].n - s[k].target;
            longest(w, two ? n : p[i].nsoft + p[i].n + n);
        }
    }
    BUG_ON(k < ns, "lm_wave: text %d continues prefix %d of %d, or stands out of order", k, s[k].prefix, np);
}

static void put_ids(int32_t *to, const LmDims *d, const int32_t *ids, int32_t n) {
    /* once on the host: kernels look words up unasked */
    for (int32_t i = 0; i < n; i++) BUG_ON(ids[i] < 0 || ids[i] >= d->V, "lm_wave: id %d of %d", ids[i], d->V);
    if (n > 0) memcpy(to, ids, (size_t)n * sizeof *ids);
}

static void fill_rows(LmWave *w, Staging *r, const LmDims *d, const LmPrefix *p, int np, const LmText *s, int ns) {
    bool two = d->family == LM_T5;
    int32_t *ids = staging_take(r, (size_t)w->N, sizeof *ids), *pos = staging_take(r, (size_t)w->N, sizeof *pos);
    int32_t *yids = staging_take(r, (size_t)w->M, sizeof *yids);
    for (int i = 0; i < np; i++) {
        for (int32_t j = 0; j < p[i].nsoft; j++) ids[p[i].row0 + j] = -1 - (p[i].soft + j);
        put_ids(ids + p[i].row0 + p[i].nsoft, d, p[i].ids, p[i].n);
        for (int32_t j = 0; j < p[i].nsoft + p[i].n; j++) pos[p[i].row0 + j] = j;
    }
    for (int k = 0; k < ns; k++) {
        int32_t n = text_rows(d, &s[k]), before = p[s[k].prefix].nsoft + p[s[k].prefix].n;
        /* the decoder is told to begin by an id that is never said */
        if (two && n) yids[s[k].row0] = d->start;
        put_ids(two ? yids + s[k].row0 + 1 : ids + s[k].row0, d, s[k].ids, two ? n - 1 : n);
        for (int32_t j = 0; j < n && !two; j++) pos[s[k].row0 + j] = before + j;
    }
    w->ids = staging_device(r, ids);
    w->pos = staging_device(r, pos);
    w->yids = staging_device(r, yids);
}

/* Prefix and text are told apart by a bit that no row's number reaches. */
enum { KEY_TEXT = 1 << 24 };

static void fill_keys(LmWave *w, Staging *r, const LmDims *d, const LmPrefix *p, int np, const LmText *s, int ns) {
    RowKey *x = staging_take(r, (size_t)w->N, sizeof *x), *y = staging_take(r, (size_t)w->M, sizeof *y);
    bool two = d->family == LM_T5;
    for (int i = 0; i < np; i++)
        for (int32_t j = 0; j < p[i].nsoft + p[i].n; j++) x[p[i].row0 + j] = (RowKey){p[i].pair, (uint32_t)j};
    for (int k = 0; k < ns; k++)
        for (int32_t j = 0; j < text_rows(d, &s[k]); j++)
            /* numbered within the text, not the wave: the same bits however batches are cut */
            (two ? y : x)[s[k].row0 + j] = (RowKey){s[k].pair, KEY_TEXT | (uint32_t)j};
    w->rows = staging_device(r, x);
    w->yrows = staging_device(r, y);
}

/* ---- targets ----------------------------------------------------------------------------------------------------- */

typedef struct { int32_t *row, *id, *order, n; } Targets;

static void add_target(Targets *t, const LmText *s, int32_t i, int32_t row) {
    t->row[t->n] = row;
    t->id[t->n] = s->ids[i];
    t->order[t->n++] = s->target0 + i - s->target;
}

/* The first round: what a text's own rows predict, and the first id of a prefix's first text. Then a round for the
 * first ids of the second texts, and so on. */
static void fill_targets(LmWave *w, Staging *r, const LmDims *d, const LmPrefix *p, const LmText *s, int ns) {
    bool two = d->family == LM_T5;
    size_t T = (size_t)w->T;
    Targets t = {staging_take(r, T, sizeof *t.row), staging_take(r, T, sizeof *t.id),
                 staging_take(r, T, sizeof *t.order), 0};
    w->round = staging_take(r, (size_t)ns + 2, sizeof *w->round);
    w->nrounds = 0;
    for (int32_t more = 1, round = 0; more; round++) {
        more = 0;
        w->round[w->nrounds++] = t.n;
        for (int k = 0, turn = 0; k < ns; k++) {
            /* texts of one prefix share that row: one a round */
            turn = k && s[k].prefix == s[k - 1].prefix ? turn + 1 : 0;
            const LmPrefix *a = &p[s[k].prefix];
            /* its first id is predicted by the prefix's last row, which is not its own */
            bool first = !two && !s[k].target && s[k].n > 0;
            for (int32_t i = s[k].target + first; i < s[k].n && !round; i++)
                add_target(&t, &s[k], i, s[k].row0 + i - !two);
            if (first && turn == round) add_target(&t, &s[k], 0, a->row0 + a->nsoft + a->n - 1);
            more |= first && turn > round;
        }
    }
    w->round[w->nrounds] = t.n;
    BUG_ON(t.n != w->T, "lm_wave: %d targets of %lld", t.n, (long long)w->T);
    RowKey *key = staging_take(r, T, sizeof *key);
    const RowKey *of = staging_host(r, two ? w->yrows : w->rows);
    for (size_t i = 0; i < T; i++) key[i] = of[t.row[i]];
    w->trows = staging_device(r, key);
    w->order = t.order;
    w->row = staging_device(r, t.row);
    w->target = staging_device(r, t.id);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

/* A group a prefix; with OPT and Llama its texts are in it. */
static void plan_self(LmWave *w, Staging *r, const LmDims *d, const LmPrefix *p, int np, const LmText *s, int ns) {
    bool two = d->family == LM_T5;
    Planner a = planner_begin(&w->self, r, two ? np : np + ns, np);
    for (int i = 0, k = 0; i < np; i++) {
        int32_t n = p[i].nsoft + p[i].n, end = p[i].row0 + n, last = k;
        while (!two && last < ns && s[last].prefix == i) end = s[last].row0 + text_rows(d, &s[last]), last++;
        /* range a: what all of its texts see; range b: their own rows */
        planner_group(&a, p[i].row0, n, p[i].row0 + n, end - p[i].row0 - n);
        planner_item(&a, (AttnItem){.q0 = p[i].row0, .nq = n, .a0 = p[i].row0, .na = n, .b0 = p[i].row0 + n,
                                    /* visual rows too are causal: the models were never trained otherwise */
                                    .causal = two ? 0 : CAUSAL_A});
        for (; k < last; k++) {
            int32_t rows = text_rows(d, &s[k]);
            planner_item(&a, (AttnItem){.q0 = s[k].row0, .nq = rows, .a0 = p[i].row0, .na = n, .b0 = s[k].row0,
                                        .nb = rows, .causal = CAUSAL_B, .pos = n});
        }
    }
    planner_end(&a);
}

/* T5's decoder: a text on itself; the texts of a prefix on it. */
static void plan_decoder(LmWave *w, Staging *r, const LmDims *d, const LmPrefix *p, int np, const LmText *s, int ns) {
    Planner a = planner_begin(&w->yself, r, ns, ns), c = planner_begin(&w->cross, r, ns, np);
    for (int i = 0, k = 0; i < np; i++) {
        int32_t n = p[i].nsoft + p[i].n;
        planner_group(&c, p[i].row0, n, p[i].row0 + n, 0);
        for (; k < ns && s[k].prefix == i; k++) {
            int32_t rows = text_rows(d, &s[k]);
            planner_group(&a, s[k].row0, rows, s[k].row0 + rows, 0);
            planner_item(&a, (AttnItem){.q0 = s[k].row0, .nq = rows, .a0 = s[k].row0, .na = rows,
                                        .b0 = s[k].row0 + rows, .causal = CAUSAL_A});
            planner_item(&c, (AttnItem){.q0 = s[k].row0, .nq = rows, .a0 = p[i].row0, .na = n, .b0 = p[i].row0 + n});
        }
    }
    planner_end(&a);
    planner_end(&c);
}

void lm_wave_build(LmWave *w, Staging *r, const LmDims *d, LmPrefix *p, int np, LmText *s, int ns) {
    *w = (LmWave){0};
    place_rows(w, d, p, np, s, ns);
    fill_rows(w, r, d, p, np, s, ns);
    fill_keys(w, r, d, p, np, s, ns);
    fill_targets(w, r, d, p, s, ns);
    plan_self(w, r, d, p, np, s, ns);
    if (d->family == LM_T5) plan_decoder(w, r, d, p, np, s, ns);
}
