/* run_open: everything that a run works with, taken in order and given back (run.h). */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/outfile.h"
#include "data/text/settext.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "kernels/peak.h"
#include "train/products.h"
#include "train/run.h"

/* Before there are arenas: the kernels' scratch comes and goes. */
static Status measure_peak(Run *r) {
    const Backend *b = r->b;
    void *scratch = NULL;
    Status st = b->workspace ? b->alloc(&scratch, b->workspace) : OK;
    if (st != OK) return st;
    b->set_workspace(scratch, b->workspace);
    r->peak = peak_rate(b);
    b->set_workspace(NULL, 0);
    if (scratch) b->release(scratch);
    return b->status();
}

static void *pinned_alloc(void *ctx, size_t bytes) {
    void *p = NULL;
    return ((const Backend *)ctx)->host_alloc(&p, bytes) == OK ? p : NULL;
}
static void pinned_release(void *ctx, void *p) { ((const Backend *)ctx)->host_release(p); }

/* All texts of a picture at once: a language model always learns to say some behind another. */
static bool whole_pictures(const Run *r) {
    return r->learns == LEARNS_LM || strcmp(r->o->data.sample.name, "images") == 0;
}

static void loader_spec(const Run *r, LoaderSpec *s) {
    const Options *o = r->o;
    *s = run_pairs(r, o->data.train_split);
    s->images = whole_pictures(r), s->seed = (uint64_t)o->run.seed, s->start_step = r->step;
    s->threads = (int)o->data.threads, s->queue = (int)o->data.queue;
    if (r->b->unified) return;                               /* ordinary memory */
    s->alloc = pinned_alloc;
    s->release = pinned_release;
    s->ctx = (void *)(uintptr_t)r->b;
}

/* Which words the Q-Former reads, and which language model it speaks to. */
static Status open_words(Run *r) {
    const Options *o = r->o;
    bool speaks = r->learns == LEARNS_STAGE2, reads = !speaks || o->stage2.instruct;
    Status st = reads ? options_require(o, "model.vocab") : OK;
    if (st == OK && reads) st = tokenizer_open(&r->tok, o->model.vocab);
    if (st == OK && speaks) st = options_require(o, "stage2.lm");
    SpeakerSpec spec = {o->stage2.instruct, (int32_t)o->stage2.max_prompt, (int32_t)o->stage2.max_target,
                        (int32_t)o->model.queries, false};
    return st == OK && speaks ? speaker_open(&r->speaker, r->b, o->stage2.lm, &spec) : st;
}

/* Of a language model: what a run's folder says of any model, and the lengths of texts. */
static Status lm_sizes(Run *r) {
    Status st = recipe_lm(&r->reader.d, r->o, r->tok);
    r->d = (Dims){.C = r->reader.d.C, .H = r->reader.d.H, .L = r->reader.d.L, .V = r->reader.d.V,
                  .T = (int32_t)r->o->data.max_tokens};
    return st == OK ? speech_open(&r->speech, &r->reader.d, r->tok, false) : st;
}

/* Of stage 2's Q-Former: no heads, no text unless it reads prompts, and a projection. */
static void stage2_dims(Dims *d, const Run *r) {
    d->Z = 0, d->W = r->speaker.src.d.E;
    if (!r->tok) d->V = d->N = 0;
}

static Status open_data(Run *r) {
    const Options *o = r->o;
    const char *val = o->data.val;
    Status st = options_require(o, "data.train");
    if (st == OK) st = open_words(r);
    if (st == OK)
        st = o->data.local_shards
                 ? set_open_part(&r->train, o->data.train, dist_rank(), dist_size(), true)
                 : set_open(&r->train, o->data.train);
    if (st == OK && *val) st = set_open(&r->val, val);
    /* one file with splits: opened once */
    if (st == OK && !*val) r->val = r->train;
    if (st != OK) return st;
    if (r->val != r->train && (set_P(r->val) != set_P(r->train) || set_E(r->val) != set_E(r->train)))
        return err_set(ERR_USAGE,
                       "data.val=%s has features %lld x %lld, data.train %lld x %lld: they need the same encoder", val,
                       (long long)set_P(r->val), (long long)set_E(r->val), (long long)set_P(r->train),
                       (long long)set_E(r->train));
    const char *field = shard_encoder_difference(set_encoder(r->train), set_encoder(r->val));
    /* other pictures' preparation is a matter of taste, another encoder is not */
    if (field && strcmp(field, "preprocessing") != 0)
        return err_set(ERR_USAGE, "data.val=%s has features of \"%s\", data.train of \"%s\": another encoder (%s)", val,
                       set_encoder(r->val)->name, set_encoder(r->train)->name, field);
    if (set_scaled(r->val) && set_scaled(r->train) && set_scales(r->val) != set_scales(r->train))
        return err_set(ERR_USAGE, "data.val=%s and data.train have scales of another kind (one a row, one a token): "
                       "repack brings them to one", val);
    for (int64_t i = 0; dist_rank() == 0 && set_warning(r->train, i); i++)
        status_say("warning: %s", set_warning(r->train, i));
    st = r->learns == LEARNS_LM ? lm_sizes(r) : setup_dims(&r->d, o, r->tok, set_P(r->train), set_E(r->train));
    r->d.S = (int32_t)(set_scales(r->val) > 1 ? set_scales(r->val) : set_scales(r->train));
    if (st == OK && r->learns == LEARNS_STAGE2) stage2_dims(&r->d, r);
    return st;
}

static void open_feed(Run *r, Feed *f, const Set *set) {
    const Options *o = r->o;
    bool lm = r->learns == LEARNS_LM;
    feed_open(f, &(FeedSpec){.speech = lm ? &r->speech : &r->speaker.speech, .set = set, .prompt = o->stage2.prompt,
                             .questions = o->stage2.questions, .seed = (uint64_t)o->run.seed,
                             .asked = !lm && o->stage2.instruct ? r->tok : NULL, .front = lm ? r->tok : NULL,
                             .max_asked = (int32_t)o->data.max_tokens, .all = whole_pictures(r),
                             .texts = (int)(lm ? r->reader.texts : r->stage2.texts),
                             .max_words = (int)o->data.max_words, .split = o->stage2.split});
}

/* Whether some text of a set is a question: then texts of a picture have prompts of their own. */
static bool asks(const Set *s) {
    for (int64_t i = 0; i < set_images(s); i++)
        for (int64_t k = 0; set_has(s, i) && k < set_ncaptions(s, i); k++) {
            size_t n;
            const char *text = set_caption(s, i, k, &n);
            if (settext_of(text, n).kind != TEXT_CAPTION) return true;
        }
    return false;
}

static Status choose_reader(Run *r) {
    const Options *o = r->o;
    if (o->stage2.max_prompt) r->speech.max_prompt = (int32_t)o->stage2.max_prompt;
    recipe_reader(&r->reader, o, r->speech.max_prompt);
    r->spec.objective = &reader_objective, r->spec.spec = &r->reader;
    if (r->reader.front + r->reader.ids > r->reader.d.N)
        return err_set(ERR_USAGE, "texts of up to %d ids behind up to %d (data.max_tokens) are more than "
                       "lm.positions=%d", r->reader.ids, r->reader.front, r->reader.d.N);
    return OK;
}

static Status choose_stage2(Run *r) {
    recipe_stage2(&r->stage2, r->o, &r->speaker.lm, speaker_ids(&r->speaker));
    r->stage2.one_prompt = r->stage2.one_prompt && !asks(r->train) && !asks(r->val);
    r->spec.objective = &stage2_objective, r->spec.spec = &r->stage2;
    /* sizes are enough for a plan: gigabytes stay where they are */
    return r->o->run.dry_run ? speaker_measure(&r->speaker) : speaker_load(&r->speaker);
}

static Status choose_objective(Run *r) {
    if (r->learns == LEARNS_STAGE1) {
        recipe_stage1(&r->stage1, r->o);
        r->spec.objective = &stage1_objective, r->spec.spec = &r->stage1;
        return OK;
    }
    Status st = r->learns == LEARNS_LM ? choose_reader(r) : choose_stage2(r);
    open_feed(r, &r->feed, r->train);
    open_feed(r, &r->val_feed, r->val);
    return st;
}

static Status open_sizes(Run *r) {
    const Options *o = r->o;
    LoaderSpec ls;
    int64_t samples;
    loader_spec(r, &ls);
    Status st = loader_count(r->train, &ls, &samples, &r->steps_per_epoch);
    if (st != OK) return st;
    if (o->train.steps_per_epoch) r->steps_per_epoch = o->train.steps_per_epoch;
    r->steps = o->train.steps ? o->train.steps : o->train.epochs * r->steps_per_epoch;
    r->spec = (TrainerSpec){.d = r->d, .tokens = r->d.T, .features = set_dtype(r->train), .B = o->train.batch,
                            .micro = (int)o->optim.accum};
    recipe_params(&r->spec.params, o);
    recipe_adam(&r->adam, o);
    recipe_schedule(&r->schedule, o, r->steps, r->steps_per_epoch);
    if (r->spec.B % r->spec.micro)
        return err_set(ERR_USAGE, "optim.accum=%d does not divide train.batch=%lld", r->spec.micro,
                       (long long)r->spec.B);
    /* contrast and hard negatives want somebody else */
    if (r->learns == LEARNS_STAGE1 && r->spec.B * dist_size() < 2)
        return err_set(ERR_USAGE,
                       "train.batch=1 on one rank leaves nothing to tell apart: the smallest global batch is 2");
    return choose_objective(r);
}

static Status open_validation(Run *r) {
    const Options *o = r->o;
    TextSpec text = {r->tok, r->d.T, (int)o->data.max_words, o->data.prompt};
    if (!o->train.eval_every) return OK;
    /* retrieval is over the whole split, and this rank has a part of it */
    if (set_parts(r->val) > 1) {
        if (dist_rank() == 0)
            status_say("no validation: with data.local_shards, data.val must name a set that every rank can read");
        return OK;
    }
    if (r->learns != LEARNS_STAGE1) {                        /* loss and answers */
        r->validates = true;
        return OK;
    }
    Status st = evalset_open(&r->evalset, r->val, o->data.val_split, o->train.eval_images, &text);
    if (st == ERR_USAGE && !options_is_set(o, "data.val_split") && !*o->data.val) {
        if (dist_rank() == 0) status_say("no validation: %s", err_message());
        err_clear();
        return OK;
    }
    if (st == OK) st = encoder_open(&r->encoder, r->b, &r->t.model, 64, set_dtype(r->val));
    r->validates = st == OK;
    return st;
}

/* Two runs in one folder would mix their logs and remove each other's checkpoints. */
static Status take_out(Run *r) {
    const char *out = r->o->run.out;
    char *path = mem_format("%s/lock", out), *what = mem_format("out=%s", out);
    struct stat about;
    r->made_out = stat(out, &about) != 0; /* then it goes again if nothing came of the run */
    if (!r->made_out && !S_ISDIR(about.st_mode)) {
        mem_free(path, what);
        return err_set(ERR_USAGE, "out=%s is a file, a run is a folder; name another out", out);
    }
    Status st = path && what ? outfile_folder(out, NULL) : ERR_MEMORY;
    if (st == OK) st = outfile_parents(path);
    if (st == OK) st = lockfile_take(&r->lock, path, what);
    mem_free(path, what);
    return st;
}

Status run_open(Run *r, const Options *o) {
    *r = (Run){.o = o, .learns = recipe_learns(o)};
    Status st = options_require(o, "out");
    if (st == OK && dist_rank() == 0 && !o->run.dry_run) st = take_out(r);
    if (st == OK) st = setup_backend(&r->b, o);
    if (st == OK) st = dist_agree(st);
    if (st == OK) st = dist_open_device(r->b);
    if (st == OK) st = open_data(r);
    if (st == OK) st = open_sizes(r);
    /* before the memory is taken: the products that are timed need some themselves */
    if (st == OK) st = measure_peak(r);
    /* nothing is taken, and nobody waits for a folder */
    if (st == OK && o->run.dry_run) return trainer_plan(&r->t.plan, r->b, &r->spec);
    if (st == OK) st = trainer_open(&r->t, r->b, &r->spec);
    if (st == OK && o->run.verbose >= 2 && dist_rank() == 0) {
        /* one rank speaks: eight lines of one op would tell nothing more */
        r->watch.say = status_say;
        watch_tape(&r->watch, objective_tape(r->t.objective, r->t.self));
    }
    /* behind trainer_open: weights are read into what it opened */
    if (st == OK) st = run_start(r);
    if (st == OK) st = open_validation(r);
    if (st == OK) st = watched_open(r);
    if (st == OK) {
        LoaderSpec ls;
        loader_spec(r, &ls);
        st = loader_open(&r->loader, r->train, &ls);
    }
    if (st == OK)
        st = log_open(&r->log, o,
                      &(LogSetup){.resumed_step = r->step, .total_steps = r->steps, .peak_flops = r->peak,
                                  .speaks = dist_rank() == 0});
    st = dist_agree(st);
    return st == OK ? products_choose(r->b, &r->spec, o->run.out) : st;
}

void run_close(Run *r) {
    log_close(r->log);
    if (r->b) {                                              /* nothing on its way may outlive its memory */
        dist_close_device(r->b);
        r->b->sync();
    }
    loader_close(r->loader);
    quiz_close(&r->quiz);
    encoder_close(&r->encoder);
    evalset_close(&r->evalset);
    trainer_close(&r->t);
    feed_close(&r->feed);
    feed_close(&r->val_feed);
    speaker_close(&r->speaker);
    if (r->val != r->train) set_close(r->val);
    set_close(r->train);
    tokenizer_close(r->tok);
    lockfile_drop(r->lock);
    if (r->made_out) rmdir(r->o->run.out);                   /* only when nothing was written there */
    *r = (Run){0};
}
