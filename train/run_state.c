/* run_state: what goes into a run, batches as a step wants them, and what it leaves behind, checkpoints (run.h). Where
 * one starts is in run_start.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/origin.h"
#include "checkpoints/params_io.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

/* ---- batches ----------------------------------------------------------------------------------------------------- */

LoaderSpec run_pairs(const Run *r, const char *split) {
    const Options *o = r->o;
    return (LoaderSpec){.split = split, .shuffle = true, .drop_last = true, .B = o->train.batch, .rank = dist_rank(),
                        .ranks = dist_size(), .verify_crc = o->data.verify_crc,
                        /* stage 2 without prompts has no words of the Q-Former's: the language model's count lengths */
                        .tok = r->tok ? r->tok : r->speaker.tok, .max_tokens = r->d.T,
                        .max_words = (int)o->data.max_words, .prompt = o->data.prompt};
}

ObjectiveBatch run_features(const Batch *b) {
    return (ObjectiveBatch){.features = b->features, .scale = b->scale, .dt = b->dtype};
}

Status run_batch(Run *r, Feed *feed, const Batch *b, ObjectiveBatch *out) {
    if (r->learns != LEARNS_STAGE1) return feed_batch(feed, b, out);
    *out = (ObjectiveBatch){.features = b->features, .scale = b->scale, .ids = b->ids, .len = b->len,
                            .image_id = b->image, .dt = b->dtype};
    return OK;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

static char *describe(const Run *r) {
    char *text = NULL;
    size_t n = 0;
    OriginSpec origin = {r->o, r->tok, r->train, r->d.H, r->short_text};
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    JsonWriter w;
    jw_begin(&w, f, 0);
    jw_object(&w, NULL);
    jw_int(&w, "updates", r->updates);
    jw_int(&w, "skipped", r->skipped);
    jw_num(&w, "best", r->best);
    jw_int(&w, "best_step", r->best_step);
    jw_int(&w, "evals_since_best", r->evals_since_best);
    jw_int(&w, "seed", r->o->run.seed);
    /* a run that goes on is held against it: the same draws want the same pairs */
    jw_int(&w, "global_batch", r->spec.B * dist_size());
    Status st = origin_write(&origin, &w);
    jw_end(&w);
    jw_done(&w);
    fclose(f);
    if (st == OK) return text;
    free(text);
    return NULL;
}

Status run_save(Run *r, bool best) {
    char *run = describe(r);
    SaveSpec s = {.out = r->o->run.out, .run = run, .step = r->step, .keep = (int)r->o->train.keep,
                  .best = best, .warn = status_warn};
    dist_step(r->step - 1);
    /* all ranks: moments may be shared out among them */
    Status st = run ? save_run(r->t.params, &s) : ERR_MEMORY;
    free(run);
    log_pause(r->log);
    dist_step(r->step - 1);
    return dist_agree_at(st, "the end of saving");
}
