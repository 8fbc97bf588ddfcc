/* wave: see wave.h. */
#include "kernels/model/wave.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/planner.h"

/* What is taken below, list by list. */
size_t wave_bytes(int64_t nq, int64_t nt, int64_t segments, int64_t images) {
    size_t word = sizeof(int32_t), sorted = 2 * staging_bytes(nt, word) + staging_bytes(nt + 1, word);
    size_t rows = staging_bytes(nq + nt, sizeof(RowKey)) + 2 * staging_bytes(nt, word) + 2 * sorted;
    size_t self = staging_bytes(2 * segments, sizeof(AttnItem)) + staging_bytes(segments, sizeof(AttnGroup));
    size_t cross = staging_bytes(segments, sizeof(AttnItem)) + staging_bytes(images, sizeof(AttnGroup));
    return rows + self + cross + staging_bytes(images + 1, word) + staging_bytes(segments, word);
}

/* Rows by the value of key[0..n), below `values`: distinct values, where each one's rows begin, the rows. Counting
 * sort, stable. */
static int32_t sort_rows(Staging *r, int32_t *count, int32_t values, const int32_t *key, int64_t n, const int32_t **id,
                         const int32_t **ptr, const int32_t **row) {
    int32_t *ids = staging_take(r, (size_t)n, sizeof *ids), *ptrs = staging_take(r, (size_t)n + 1, sizeof *ptrs);
    int32_t *rows = staging_take(r, (size_t)n, sizeof *rows), distinct = 0, at = 0;
    memset(count, 0, (size_t)values * sizeof *count);
    for (int64_t i = 0; i < n; i++) count[key[i]]++;
    for (int32_t v = 0; v < values; v++) {
        if (!count[v]) continue;
        ids[distinct] = v;
        ptrs[distinct++] = at;
        at += count[v];
        /* from here where the value's next row goes */
        count[v] = at - count[v];
    }
    ptrs[distinct] = at;
    for (int64_t i = 0; i < n; i++) rows[count[key[i]]++] = (int32_t)i;
    *id = staging_device(r, ids);
    *ptr = staging_device(r, ptrs);
    *row = staging_device(r, rows);
    return distinct;
}

static void place_rows(Wave *w, Segment *s, int n) {
    w->NQ = w->NT = 0;
    for (int i = 0; i < n; i++) {
        s[i].q0 = (int32_t)w->NQ;
        s[i].t0 = (int32_t)w->NT;
        w->NQ += s[i].nq;
        w->NT += s[i].nt;
    }
    w->text = w->NQ;                                         /* side by side, unless another wave stands between */
}

static Status fill_embedding(Wave *w, Staging *r, const Dims *d, const Segment *s, int n) {
    RowKey *key = staging_take(r, (size_t)(w->NQ + w->NT), sizeof *key);
    int32_t *ids = staging_take(r, (size_t)w->NT, sizeof *ids), *pos = staging_take(r, (size_t)w->NT, sizeof *pos);
    for (int i = 0; i < n; i++) {
        uint32_t pass = (uint32_t)s[i].pass << 16;
        for (int32_t q = 0; q < s[i].nq; q++) key[s[i].q0 + q] = (RowKey){s[i].pair, pass | (uint32_t)q};
        for (int32_t t = 0; t < s[i].nt; t++) {
            int32_t id = t == 0 && s[i].first_id >= 0 ? s[i].first_id : s[i].ids[t];
            /* here once, and no kernel has to ask */
            BUG_ON(id < 0 || id >= d->V, "wave: word piece %d of %d", id, d->V);
            ids[s[i].t0 + t] = id;
            pos[s[i].t0 + t] = t;
            key[w->NQ + s[i].t0 + t] = (RowKey){s[i].pair, pass | (uint32_t)(s[i].nq + t)};
        }
    }
    Embed *e = &w->embed;
    *e = (Embed){.nq = w->NQ, .nt = w->NT, .Q = d->Q, .C = d->C, .ids = staging_device(r, ids),
                 .pos_id = staging_device(r, pos)};
    w->rows = staging_device(r, key);
    /* one room for both sorts */
    int32_t values = d->V > d->N ? d->V : d->N, *count = mem_new((size_t)values, sizeof *count);
    if (!count) return ERR_MEMORY;
    e->ntok = sort_rows(r, count, d->V, ids, w->NT, &e->tok_id, &e->tok_ptr, &e->tok_row);
    e->nposn = sort_rows(r, count, d->N, pos, w->NT, &e->posn_id, &e->posn_ptr, &e->posn_row);
    free(count);
    return OK;
}

void wave_pick(Wave *w, Staging *r, const int32_t *picked, int64_t n) {
    RowKey *rows = staging_take(r, (size_t)n, sizeof *rows);
    const RowKey *text = (const RowKey *)staging_host(r, w->rows) + w->NQ;
    for (int64_t i = 0; i < n; i++) rows[i] = text[picked[i]];
    w->picks = true, w->npicked = n;
    w->picked = staging_device(r, picked), w->picked_rows = staging_device(r, rows);
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

/* One group a segment, but a text that sees another segment's queries joins that one's. */
static Status plan_self(Wave *w, Staging *r, const Segment *s, int n) {
    Planner p = planner_begin(&w->self, r, 2 * n, n);
    int32_t *seen_by = mem_new((size_t)n, sizeof *seen_by);
    if (!seen_by) return ERR_MEMORY;
    for (int i = 0; i < n; i++)
        if (s[i].sees >= 0) {
            /* a group has one range a and one range b: there is no third */
            BUG_ON(seen_by[s[i].sees] || s[s[i].sees].nt, "wave: segment %d's queries are seen twice, or have text",
                   s[i].sees);
            seen_by[s[i].sees] = i + 1;
        }
    for (int i = 0; i < n; i++) {
        if (s[i].sees >= 0) continue;
        const Segment *a = &s[i], *text = a->nt ? a : seen_by[i] ? &s[seen_by[i] - 1] : NULL;
        int32_t t0 = text ? (int32_t)w->text + text->t0 : 0, nt = text ? text->nt : 0;
        bool text_sees = text != a || a->joint;
        planner_group(&p, a->q0, a->nq, t0, nt);
        planner_item(&p, (AttnItem){.q0 = a->q0, .nq = a->nq, .a0 = a->q0, .na = a->nq, .b0 = t0,
                                    .nb = a->joint ? nt : 0});
        planner_item(&p, (AttnItem){.q0 = t0, .nq = nt, .a0 = a->q0, .na = text_sees ? a->nq : 0, .b0 = t0, .nb = nt,
                                    .causal = text && text->causal ? CAUSAL_B : 0});
    }
    free(seen_by);
    planner_end(&p);
    return OK;
}

/* One group an image: all its users in the order of the segments. */
static void plan_cross(Wave *w, Staging *r, const Dims *d, const Segment *s, int n, int images) {
    Planner p = planner_begin(&w->cross, r, n, images);
    int32_t *head = staging_take(r, (size_t)images + 1, sizeof *head);
    int32_t *order = staging_take(r, (size_t)n, sizeof *order);
    /* sorted by image, counted first: one pass over the segments whatever their order */
    memset(head, 0, ((size_t)images + 1) * sizeof *head);
    for (int i = 0; i < n; i++)
        if (s[i].image >= 0) head[s[i].image + 1]++;
    /* from here head[i] is where image i begins; filling moves it to where it ends */
    for (int i = 0; i < images; i++) head[i + 1] += head[i];
    for (int i = 0; i < n; i++)
        if (s[i].image >= 0) order[head[s[i].image]++] = i;
    for (int g = 0, k = 0; g < images; g++) {
        planner_group(&p, g * d->P, d->P, 0, 0);
        for (; k < head[g]; k++) {
            const Segment *a = &s[order[k]];
            planner_item(&p, (AttnItem){.q0 = a->q0, .nq = a->nq, .a0 = g * d->P, .na = d->P});
        }
    }
    planner_end(&p);
}

/* ---- a second wave beside a first -------------------------------------------------------------------------------- */

void wave_between(Wave *first, int64_t before, int64_t behind) {
    /* strides of lse and the like are those of both waves from the start */
    first->self.nrows += (int32_t)(before + behind);
    first->cross.nrows += (int32_t)before;
}

/* All segments with rows in both waves' places: queries of the second first, text of the first first. */
static Segment *in_both(const Segment *s1, int n1, const Segment *s2, int n2, const Wave *first, const Wave *second) {
    Segment *s = mem_new((size_t)(n1 + n2), sizeof *s);
    if (!s) return NULL;
    for (int i = 0; i < n2; i++) s[i] = s2[i], s[i].t0 += (int32_t)first->NT;
    for (int i = 0; i < n1; i++) {
        s[n2 + i] = s1[i], s[n2 + i].q0 += (int32_t)second->NQ;
        if (s1[i].sees >= 0) s[n2 + i].sees += n2;
    }
    return s;
}

Status wave_second(Wave *second, Wave *both, const Wave *first, Staging *r, const Dims *d, const Segment *s1, int n1,
                   Segment *s2, int n2, int images) {
    *second = *both = (Wave){0};
    place_rows(second, s2, n2);
    Segment *s = in_both(s1, n1, s2, n2, first, second);
    if (!s) return ERR_MEMORY;
    both->NQ = both->text = second->NQ + first->NQ, both->NT = first->NT + second->NT;
    Status st = fill_embedding(both, r, d, s, n1 + n2);
    if (st == OK) st = plan_self(both, r, s, n1 + n2);
    if (st == OK) plan_cross(both, r, d, s, n1 + n2, images);
    free(s);
    second->text = both->text + first->NT;
    if (st == OK) st = plan_self(second, r, s2, n2);
    if (st == OK) plan_cross(second, r, d, s2, n2, images);
    both->self.nrows = second->self.nrows = first->self.nrows;
    both->cross.nrows = second->cross.nrows = first->cross.nrows;
    second->rows = both->rows;
    second->embed = both->embed, second->embed.nq = second->NQ, second->embed.nt = second->NT;
    /* in the lists of both its words stand behind the first's */
    second->embed.ids += first->NT, second->embed.pos_id += first->NT;
    both->picks = first->picks, both->npicked = first->npicked;
    both->picked = first->picked, both->picked_rows = first->picked_rows;
    return st;
}

Status wave_build(Wave *w, Staging *r, const Dims *d, Segment *s, int n, int images) {
    *w = (Wave){0};
    place_rows(w, s, n);
    Status st = fill_embedding(w, r, d, s, n);
    if (st == OK) st = plan_self(w, r, s, n);
    if (st == OK) plan_cross(w, r, d, s, n, images);
    return st;
}
