/* run_batch: from what the loader hands out to what a step wants (run.h). */
#include "train/run.h"

const Tokenizer *run_words(const Run *r) { return r->tok ? r->tok : r->speaker.tok; }

ObjectiveBatch run_features(const Batch *b) {
    return (ObjectiveBatch){.features = b->features, .scale = b->scale, .dt = b->dtype};
}

Status run_batch(Run *r, Feed *feed, const Batch *b, ObjectiveBatch *out) {
    if (r->learns != LEARNS_STAGE1) return feed_batch(feed, b, out);
    *out = (ObjectiveBatch){.features = b->features, .scale = b->scale, .ids = b->ids, .len = b->len,
                            .image_id = b->image, .dt = b->dtype};
    return OK;
}
