/* evalset: see evalset.h. */
#include "eval/evalset.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "data/text/settext.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

Status text_encode(const TextSpec *t, const char *text, size_t n, int32_t *ids, int32_t *len) {
    char *clean = NULL;
    size_t m = 0;
    int count = 0;
    if (!t->tok) return *len = 0, OK;                      /* nobody reads them as word pieces */
    Status st = settext_blip(&clean, &m, text, n, t->prompt, t->max_words);
    memset(ids, 0, (size_t)t->T * sizeof *ids);
    if (st == OK) st = tokenizer_encode(t->tok, clean, m, t->T, ids, &count, NULL);
    *len = count;
    free(clean);
    return st;
}

static Status encode_captions(EvalSet *e, const TextSpec *text) {
    Status st = OK;
    int64_t t = 0;
    for (int64_t i = 0; st == OK && i < e->NI; i++)
        for (int64_t k = 0; st == OK && k < set_ncaptions(e->set, e->image[i]); k++, t++) {
            size_t n;
            const char *caption = set_caption(e->set, e->image[i], k, &n);
            e->owner[t] = (int32_t)i;
            e->caption[t] = k;
            st = text_encode(text, caption, n, e->ids + t * e->T, &e->len[t]);
        }
    return st;
}

static Status take_texts(EvalSet *e, int64_t n, int T) {
    e->NT = n, e->T = T;
    e->owner = mem_new((size_t)n, sizeof *e->owner);
    e->len = mem_new((size_t)n, sizeof *e->len);
    e->caption = mem_new((size_t)n, sizeof *e->caption);
    e->ids = mem_new((size_t)n, (size_t)T * sizeof *e->ids);
    return e->owner && e->len && e->caption && e->ids ? OK : ERR_MEMORY;
}

Status evalset_open(EvalSet *e, const Set *set, const char *split, int64_t limit, const TextSpec *text) {
    int64_t n = 0;
    *e = (EvalSet){.set = set};
    Status st = set_select(set, split, &e->image, &e->NI);
    if (st != OK) return st;
    if (limit > 0 && e->NI > limit) e->NI = limit;
    for (int64_t i = 0; i < e->NI; i++) n += set_ncaptions(set, e->image[i]);
    st = take_texts(e, n, text->T);
    if (st == OK) st = encode_captions(e, text);
    if (st != OK) evalset_close(e);
    return st;
}

Status evalset_texts(EvalSet *e, const TextSpec *text, const char *const *texts, int64_t n) {
    *e = (EvalSet){0};
    Status st = take_texts(e, n, text->T);
    for (int64_t t = 0; st == OK && t < n; t++)
        st = text_encode(text, texts[t], strlen(texts[t]), e->ids + t * e->T, &e->len[t]);
    if (st != OK) evalset_close(e);
    return st;
}

void evalset_close(EvalSet *e) {
    mem_free(e->image, e->owner, e->len, e->caption, e->ids);
    *e = (EvalSet){0};
}

Status evalset_read(const EvalSet *e, int64_t first, int64_t n, void *features, float *scales) {
    int64_t *rows = mem_new((size_t)n, sizeof *rows);
    if (!rows) return ERR_MEMORY;
    /* the other views are for training */
    for (int64_t i = 0; i < n; i++) rows[i] = e->image[first + i] * set_views(e->set);
    Status st = set_read_rows(e->set, rows, n, features, scales);
    free(rows);
    return st;
}

Status evalrows_open(EvalRows *r, const EvalSet *e, const Backend *b, int64_t n) {
    *r = (EvalRows){.e = e, .b = b, .scale = mem_new((size_t)(n * set_scales(e->set)), sizeof *r->scale)};
    return r->scale ? b->host_alloc(&r->data, (size_t)n * set_row_bytes(e->set)) : ERR_MEMORY;
}

Status evalrows_read(EvalRows *r, int64_t first, int64_t n) {
    r->rows = (FeatureRows){r->data, set_scaled(r->e->set) ? r->scale : NULL};
    return evalset_read(r->e, first, n, r->data, r->scale);
}

void evalrows_close(EvalRows *r) {
    if (r->data) r->b->host_release(r->data);
    free(r->scale);
    *r = (EvalRows){0};
}

Status evalprogress(EvalProgress *p, int64_t more) {
    p->done += more;
    /* in validation nobody looks on */
    if (!p->tell || p->tell(p->ctx, p->done, p->total)) return OK;
    return err_set(ERR_INTERRUPTED, "stopped on request after %lld of %lld", (long long)p->done, (long long)p->total);
}

Status evalset_encode_images(const EvalSet *e, Encoder *enc, int64_t first, int64_t n, float *I, EvalProgress *p) {
    const Dims *d = &enc->model->d;
    EvalRows r;
    Status st = evalrows_open(&r, e, enc->f.b, enc->batch);
    for (int64_t i = 0; st == OK && i < n; i += enc->batch) {
        int64_t m = n - i < enc->batch ? n - i : enc->batch;
        st = evalrows_read(&r, first + i, m);
        if (st == OK) st = encode_images(enc, r.rows, m, I + i * d->Q * d->Z);
        if (st == OK) st = evalprogress(p, m);
    }
    evalrows_close(&r);
    return st;
}

Status evalset_encode_texts(const EvalSet *e, Encoder *enc, int64_t first, int64_t n, float *T, EvalProgress *p) {
    Status st = OK;
    for (int64_t t = 0; st == OK && t < n; t += enc->batch) {
        int64_t m = n - t < enc->batch ? n - t : enc->batch, at = first + t;  /* a batch at a time, for progress */
        st = encode_texts(enc, e->ids + at * e->T, e->len + at, m, T + t * enc->model->d.Z);
        if (st == OK) st = evalprogress(p, m);
    }
    return st;
}

/* Where a rank's part of n begins; of the rank behind the last one, n. */
static int64_t part(int64_t n, int rank) { return n * rank / dist_size(); }
static int64_t part_of(int64_t n) { return part(n, dist_rank() + 1) - part(n, dist_rank()); }

int64_t evalset_share(const EvalSet *e) { return part_of(e->NI) + part_of(e->NT); }

Status evalset_encode(const EvalSet *e, Encoder *enc, float **I, float **T, EvalProgress *p) {
    const Dims *d = &enc->model->d;
    int64_t i = part(e->NI, dist_rank()), t = part(e->NT, dist_rank());
    *I = mem_new((size_t)e->NI, (size_t)(d->Q * d->Z) * sizeof **I);
    *T = mem_new((size_t)e->NT, (size_t)d->Z * sizeof **T);
    Status st = *I && *T ? evalset_encode_images(e, enc, i, part_of(e->NI), *I + i * d->Q * d->Z, p) : ERR_MEMORY;
    if (st == OK) st = evalset_encode_texts(e, enc, t, part_of(e->NT), *T + t * d->Z, p);
    st = dist_agree_at(st, "the end of encoding");           /* else others wait in the gather for one that failed */
    /* a sum gathers: what other ranks computed is zero here */
    if (st == OK) st = dist_all_reduce_f32(*I, e->NI * d->Q * d->Z, "the gather of features");
    if (st == OK) st = dist_all_reduce_f32(*T, e->NT * d->Z, "the gather of features");
    if (st != OK) {
        mem_free(*I, *T);
        *I = *T = NULL;
    }
    return st;
}
