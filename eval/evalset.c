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

Status evalset_open(EvalSet *e, const Set *set, const char *split, int64_t limit, const TextSpec *text) {
    *e = (EvalSet){.set = set, .T = text->T};
    Status st = set_select(set, split, &e->image, &e->NI);
    if (st != OK) return st;
    if (limit > 0 && e->NI > limit) e->NI = limit;
    for (int64_t i = 0; i < e->NI; i++) e->NT += set_ncaptions(set, e->image[i]);
    e->owner = mem_new((size_t)e->NT, sizeof *e->owner);
    e->len = mem_new((size_t)e->NT, sizeof *e->len);
    e->caption = mem_new((size_t)e->NT, sizeof *e->caption);
    e->ids = mem_new((size_t)e->NT, (size_t)e->T * sizeof *e->ids);
    st = e->owner && e->len && e->caption && e->ids ? encode_captions(e, text) : ERR_MEMORY;
    if (st != OK) evalset_close(e);
    return st;
}

void evalset_close(EvalSet *e) {
    free(e->image);
    free(e->owner);
    free(e->len);
    free(e->caption);
    free(e->ids);
    *e = (EvalSet){0};
}

Status evalset_read(const EvalSet *e, int64_t first, int64_t n, void *features, float *scales) {
    int64_t *rows = mem_new((size_t)n, sizeof *rows);
    if (!rows) return ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) rows[i] = e->image[first + i] * set_views(e->set);
    Status st = set_read_rows(e->set, rows, n, features, scales);
    free(rows);
    return st;
}

Status evalprogress(EvalProgress *p, int64_t more) {
    p->done += more;
    if (!p->tell || p->tell(p->ctx, p->done, p->total)) return OK;
    return err_set(ERR_INTERRUPTED, "stopped on request after %lld of %lld", (long long)p->done, (long long)p->total);
}

Status evalset_encode_images(const EvalSet *e, Encoder *enc, int64_t first, int64_t n, float *I, EvalProgress *p) {
    const Dims *d = &enc->model->d;
    void *rows = NULL;
    float *scales = mem_new((size_t)(enc->batch * set_scales(e->set)), sizeof *scales);
    Status st = scales ? enc->b->host_alloc(&rows, (size_t)enc->batch * set_row_bytes(e->set)) : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < n; i += enc->batch) {
        int64_t m = n - i < enc->batch ? n - i : enc->batch;
        st = evalset_read(e, first + i, m, rows, scales);
        if (st == OK) st = encode_images(enc, rows, set_scaled(e->set) ? scales : NULL, m, I + i * d->Q * d->Z);
        if (st == OK) st = evalprogress(p, m);
    }
    if (rows) enc->b->host_release(rows);
    free(scales);
    return st;
}

Status evalset_encode_texts(const EvalSet *e, Encoder *enc, int64_t first, int64_t n, float *T, EvalProgress *p) {
    Status st = OK;
    for (int64_t t = 0; st == OK && t < n; t += enc->batch) {
        int64_t m = n - t < enc->batch ? n - t : enc->batch, at = first + t;
        st = encode_texts(enc, e->ids + at * e->T, e->len + at, m, T + t * enc->model->d.Z);
        if (st == OK) st = evalprogress(p, m);
    }
    return st;
}

/* Each rank computes its share; the sum over ranks is a gather, because the shares of others are zero here. */
Status evalset_encode(const EvalSet *e, Encoder *enc, float **I, float **T, EvalTell *tell, void *ctx) {
    const Dims *d = &enc->model->d;
    int64_t r = dist_rank(), W = dist_size(), i0 = e->NI * r / W, i1 = e->NI * (r + 1) / W, t0 = e->NT * r / W,
            t1 = e->NT * (r + 1) / W;
    EvalProgress p = {tell, ctx, 0, i1 - i0 + t1 - t0};
    *I = mem_new((size_t)e->NI, (size_t)(d->Q * d->Z) * sizeof **I);
    *T = mem_new((size_t)e->NT, (size_t)d->Z * sizeof **T);
    Status st = *I && *T ? evalset_encode_images(e, enc, i0, i1 - i0, *I + i0 * d->Q * d->Z, &p) : ERR_MEMORY;
    if (st == OK) st = evalset_encode_texts(e, enc, t0, t1 - t0, *T + t0 * d->Z, &p);
    st = dist_agree_at(st, "the end of encoding");
    if (st == OK) st = dist_all_reduce_f32(*I, e->NI * d->Q * d->Z, "the gather of features");
    if (st == OK) st = dist_all_reduce_f32(*T, e->NT * d->Z, "the gather of features");
    if (st != OK) {
        free(*I);
        free(*T);
        *I = *T = NULL;
    }
    return st;
}
