/* gallery: see gallery.h. */
#include "eval/report/gallery.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "kernels/base/mem.h"

void gallery_close(Gallery *g) {
    for (int a = 0; a < ASKS; a++)
        for (int o = 0; o < OUTCOMES; o++)
            for (int i = 0; i < g->n[a][o]; i++) {
                GalleryQuery *q = &g->query[a][o][i];
                free(q->text);
                for (int k = 0; k < q->n; k++) free(q->hit[k].text);
            }
    *g = (Gallery){0};
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

/* Ranks of all queries of one kind, NO_RANK where there is nothing to find; `where` says which line or row each is. */
enum { NO_RANK = INT32_MAX };
typedef struct { int32_t *rank; int64_t *where; int64_t n; } Ranks;
typedef struct { int64_t at[OUTCOMES][GALLERY_EACH]; int n[OUTCOMES]; } Choice;

static void choose(const Ranks *r, Choice *c, int64_t *first) {
    int64_t good = 0, seen = 0;
    *c = (Choice){0};
    for (int64_t i = 0; i < r->n; i++) good += r->rank[i] == 0;
    *first = good;
    int want = good < GALLERY_EACH ? (int)good : GALLERY_EACH;
    for (int64_t i = 0; i < r->n && c->n[WENT_WELL] < want; i++) {
        if (r->rank[i] != 0) continue;
        /* the middle of each of `want` equal parts */
        if (seen++ >= (2 * c->n[WENT_WELL] + 1) * good / (2 * want)) c->at[WENT_WELL][c->n[WENT_WELL]++] = i;
    }
    for (int64_t i = 0; i < r->n; i++) {                      /* the worst, kept in order: few, so by insertion */
        if (r->rank[i] <= 0 || r->rank[i] == NO_RANK) continue;
        int64_t *bad = c->at[WENT_WRONG];
        int k = c->n[WENT_WRONG];
        if (k == GALLERY_EACH && r->rank[bad[k - 1]] >= r->rank[i]) continue;
        if (k < GALLERY_EACH) c->n[WENT_WRONG]++;
        else k--;
        for (; k > 0 && r->rank[bad[k - 1]] < r->rank[i]; k--) bad[k] = bad[k - 1];
        bad[k] = i;
    }
}

/* ---- from memory ------------------------------------------------------------------------------------------------- */

static char *caption_of(const EvalSet *e, int64_t text) {
    size_t n;
    const char *s = set_caption(e->set, e->image[e->owner[text]], e->caption[text], &n);
    return mem_format("%.*s", (int)n, s);
}

static Status fill(GalleryQuery *q, const Retrieval *r, const EvalSet *e, int asks, int64_t row, int64_t rank) {
    const TopK *list = asks == ASKS_IMAGE ? &r->i2t : &r->t2i;
    const Hit *h = topk_row(list, row);
    int64_t own = asks == ASKS_IMAGE ? row : e->owner[row];
    *q = (GalleryQuery){.image = e->image[own], .rank = rank};
    q->text = asks == ASKS_IMAGE ? mem_strdup(set_image_id(e->set, q->image)) : caption_of(e, row);
    bool whole = q->text;
    for (; q->n < list->n[row] && q->n < GALLERY_TOP; q->n++) {
        int64_t other = asks == ASKS_IMAGE ? e->owner[h[q->n].index] : h[q->n].index;
        GalleryHit *g = &q->hit[q->n];
        *g = (GalleryHit){.image = e->image[other],
                          .own = other == own,
                          .score = (double)hit_score(&h[q->n], RANK_ITC)};
        g->text = asks == ASKS_IMAGE ? caption_of(e, h[q->n].index) : mem_strdup(set_image_id(e->set, g->image));
        whole = whole && g->text;
    }
    return whole ? OK : ERR_MEMORY;
}

Status gallery_from_retrieval(Gallery *g, const Retrieval *r, const EvalSet *e) {
    const Ranks ranks[ASKS] = {{r->txt_rank, NULL, r->NI}, {r->img_rank, NULL, r->NT}};
    Status st = OK;
    *g = (Gallery){0};
    for (int a = 0; a < ASKS; a++) {
        Choice c;
        choose(&ranks[a], &c, &g->first[a]);
        g->queries[a] = ranks[a].n;
        for (int o = 0; o < OUTCOMES; o++)
            for (int i = 0; st == OK && i < c.n[o]; i++) {
                int64_t row = c.at[o][i];
                st = fill(&g->query[a][o][g->n[a][o]++], r, e, a, row, ranks[a].rank[row]);
            }
    }
    if (st != OK) gallery_close(g);
    return st;
}

/* ---- from a file ------------------------------------------------------------------------------------------------- */

typedef struct {
    Gallery *g;
    const Set *set;
    Ranks ranks[ASKS];
    Choice choice[ASKS];
} Reading;

static int kind_of(const Json *o) {
    const char *s = json_str(json_get(o, "query"), NULL);
    return s && strcmp(s, "image") == 0 ? ASKS_IMAGE : s && strcmp(s, "text") == 0 ? ASKS_TEXT : -1;
}

static Status keep_rank(void *ctx, int64_t line, const Json *o) {
    Reading *r = ctx;
    int64_t rank;
    int kind = kind_of(o);
    if (kind < 0) return err_set(ERR_FORMAT, "no query of kind image or text");
    /* null: an image without a text */
    if (!json_int(json_get(o, "rank"), &rank) || rank < 0 || rank > NO_RANK) rank = NO_RANK;
    /* the first walk keeps ranks alone: there may be millions of lines */
    Ranks *k = &r->ranks[kind];
    Status st = mem_room(&k->rank, (size_t)k->n, 1, sizeof *k->rank);
    if (st == OK) st = mem_room(&k->where, (size_t)k->n, 1, sizeof *k->where);
    if (st != OK) return st;
    k->rank[k->n] = (int32_t)rank;
    k->where[k->n++] = line;
    return OK;
}

static int64_t find_image(const Set *set, const char *id) {
    int64_t n = set && id ? set_images(set) : 0;
    for (int64_t i = 0; i < n; i++)
        if (set_has(set, i) && strcmp(set_image_id(set, i), id) == 0) return i;
    return -1;
}

static char *copy_of(const Json *s) {
    const char *text = json_str(s, NULL);
    return mem_strdup(text ? text : "");
}

static Status read_query(GalleryQuery *q, const Set *set, int asks, int64_t rank, const Json *o) {
    const char *of = asks == ASKS_IMAGE ? "image" : "caption", *hits = asks == ASKS_IMAGE ? "caption" : "image";
    const Json *top = json_get(o, "top");
    *q = (GalleryQuery){.image = find_image(set, json_str(json_get(o, "image"), NULL)),
                        .rank = rank,
                        .text = copy_of(json_get(o, of))};
    bool whole = q->text;
    for (; (size_t)q->n < json_len(top) && q->n < GALLERY_TOP; q->n++) {
        const Json *h = json_at(top, (size_t)q->n);
        GalleryHit *g = &q->hit[q->n];
        /* a caption's image is not looked at: it need not be found */
        *g = (GalleryHit){.image = asks == ASKS_TEXT ? find_image(set, json_str(json_get(h, "image"), NULL)) : -1,
                          .text = copy_of(json_get(h, hits))};
        json_bool(json_get(h, "true"), &g->own);
        json_num(json_get(h, "score"), &g->score);
        whole = whole && g->text;
    }
    return whole ? OK : ERR_MEMORY;
}

static Status keep_chosen(void *ctx, int64_t line, const Json *o) {
    Reading *r = ctx;
    int a = kind_of(o);
    if (a < 0) return OK;
    for (int w = 0; w < OUTCOMES; w++)
        for (int i = 0; i < r->choice[a].n[w]; i++) {
            int64_t at = r->choice[a].at[w][i];
            if (r->ranks[a].where[at] != line) continue;
            GalleryQuery *q = &r->g->query[a][w][i];
            if (q->text) continue;                           /* the file grew meanwhile: nothing of ours */
            Status st = read_query(q, r->set, a, r->ranks[a].rank[at], o);
            if (r->g->n[a][w] <= i) r->g->n[a][w] = i + 1;
            if (st != OK) return st;
        }
    return OK;
}

Status gallery_from_file(Gallery *g, const char *path, const Set *set) {
    Reading r = {.g = g, .set = set};
    *g = (Gallery){0};
    /* twice over the file: who is shown is known only after all ranks */
    Status st = json_each(path, keep_rank, &r);
    for (int a = 0; st == OK && a < ASKS; a++) {
        choose(&r.ranks[a], &r.choice[a], &g->first[a]);
        g->queries[a] = r.ranks[a].n;
    }
    if (st == OK) st = json_each(path, keep_chosen, &r);
    for (int a = 0; a < ASKS; a++) mem_free(r.ranks[a].rank, r.ranks[a].where);
    if (st != OK) gallery_close(g);
    return st;
}
