/* pairs: see pairs.h. */
#include "train/pairs.h"

#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

const int32_t *pairs_text(const Stage1 *s, int64_t g) { return s->ids + g * s->model->d.T; }

/* A word piece is a target when something stands before it and it is not [PAD]. */
bool pairs_is_target(const Stage1 *s, int64_t g, int32_t t) { return t > 0 && pairs_text(s, g)[t] != s->model->d.pad; }

int64_t pairs_targets(const Stage1 *s, int64_t first, int64_t n) {
    int64_t k = 0;
    for (int64_t g = first; g < first + n; g++)
        for (int32_t t = 1; t < s->len[g]; t++) k += pairs_is_target(s, g, t);
    return k;
}

bool pairs_is_negative(const Stage1 *s, int64_t a, int64_t b) {
    return a != b && !(s->spec.image_ids && s->image_id[a] == s->image_id[b]);
}

int64_t pairs_matched(const Stage1 *s) {
    int64_t n = s->G;
    for (int64_t g = 0; g < s->G; g++)
        n += pairs_is_negative(s, g, s->negative_image[g]) + pairs_is_negative(s, g, s->negative_text[g]);
    return n;
}

Status pairs_gather(Stage1 *s, const ObjectiveBatch *batch, uint32_t step) {
    size_t B = (size_t)s->B, T = (size_t)s->model->d.T;
    dist_step(step);
    Status st = dist_all_gather(s->ids, batch->ids, B * T * sizeof *s->ids, "the gather of texts");
    if (st == OK) st = dist_all_gather(s->len, batch->len, B * sizeof *s->len, "the gather of text lengths");
    if (st == OK && batch->image_id)
        st = dist_all_gather(s->image_id, batch->image_id, B * sizeof *s->image_id, "the gather of image ids");
    for (int64_t g = 0; st == OK && g < s->G; g++)
        /* [CLS] and an end at least; checked here once for all ranks' texts */
        BUG_ON(s->len[g] < 2 || s->len[g] > s->model->d.T, "step: a text of %d word pieces, 2 to %d are possible",
               s->len[g], s->model->d.T);
    return st;
}

/* The worst case of memory: texts from everywhere draw images of this rank's first piece, up to the cap. The others
 * draw what comes after it in turn, or another piece would hold more than the cap. */
static void crowd_first_piece(Stage1 *s) {
    int64_t first = s->contrast.first, n = s->B / s->micro, left = s->itm_cap - n, others = s->G - n;
    /* k, inside, outside: counted from the first of the piece */
    for (int64_t k = 0; k < s->G; k++) {
        int64_t inside = k == 0 && n > 1, outside = n + k % others;
        if (outside == k) outside = (outside + 1) % s->G;
        bool draw = left > 0 && inside != k;
        s->negative_image[(first + k) % s->G] = (int32_t)((first + (draw ? inside : outside)) % s->G);
        left -= draw;
    }
}

Status pairs_draw(Stage1 *s, const ObjectiveBatch *batch) {
    int64_t B = s->B;
    size_t bytes = (size_t)B * sizeof(int32_t);
    int32_t *image = s->negative_image + s->contrast.first, *text = s->negative_text + s->contrast.first;
    s->b->fetch_wait();
    Status st = tape_status(&s->tape);                       /* what came back may be anything after a failure */
    if (st != OK) return st;
    memcpy(image, s->drawn, bytes);
    memcpy(text, s->drawn + B, bytes);
    if (s->step->measuring)                                  /* nothing was drawn: measure with a shift */
        for (int64_t i = 0; i < B; i++) image[i] = text[i] = (int32_t)((s->contrast.first + i + 1) % s->G);
    if (batch->negative_image) memcpy(image, batch->negative_image, bytes);
    if (batch->negative_text) memcpy(text, batch->negative_text, bytes);
    st = dist_all_gather(s->negative_image, image, bytes, "the gather of negatives");
    if (st == OK) st = dist_all_gather(s->negative_text, text, bytes, "the gather of negatives");
    if (s->crowd) crowd_first_piece(s);
    return st;
}

Status pairs_worst(ObjectiveBatch *batch, const Stage1 *s, int tokens, DType features, void **room) {
    int64_t B = s->B, T = s->model->d.T;
    int64_t *image_id = mem_new((size_t)B, sizeof *image_id + (size_t)(T + 1) * sizeof(int32_t));
    *room = image_id;
    if (!image_id) return ERR_MEMORY;
    int32_t *ids = (int32_t *)(image_id + B), *len = ids + B * T;
    for (int64_t i = 0; i < B * T; i++) ids[i] = i % T < tokens ? s->model->d.sep : s->model->d.pad;
    /* all different: as many negatives as there can be */
    for (int64_t i = 0; i < B; i++) len[i] = tokens, image_id[i] = s->contrast.first + i;
    *batch = (ObjectiveBatch){.features = ids, .ids = ids, .len = len, .image_id = image_id, .dt = features};
    return OK;                                               /* features: never read */
}
