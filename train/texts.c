/* texts: what a run's captions become, looked at once before the first step (run.h): words that the vocabulary does not
 * have, texts that are cut. The loss falls nicely over both. */
#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/base/strmap.h"
#include "train/run.h"

enum { MOST_CAPTIONS = 20000 };

typedef struct {
    StrMap seen;                        /* captions, as the loader cleans them */
    int64_t different, images, captions, looked, pieces, unknown, cut;
    int64_t *of_length;                 /* (T + 1) captions of so many word pieces */
} Texts;

static Status note_different(Texts *t, const char *text) {
    if (strmap_get(&t->seen, text)) return OK;
    char *own = mem_strdup(text);
    return own && strmap_put(&t->seen, own, t->different++) == OK ? OK : ERR_MEMORY;
}

static Status look_at(const Run *r, Texts *t, const char *caption, size_t n, int32_t *ids) {
    char *clean = NULL;
    size_t len = 0;
    int count = 0;
    int64_t full = 0;
    int32_t unk = tokenizer_ids(r->tok)->unk;
    Status st = settext_blip(&clean, &len, caption, n, r->o->data.prompt, (int)r->o->data.max_words);
    if (st == OK) st = note_different(t, clean);
    if (st == OK) st = tokenizer_encode(r->tok, clean, len, r->d.T, ids, &count, &full);
    free(clean);
    if (st != OK) return st;
    for (int i = 0; i < count; i++) t->unknown += ids[i] == unk;
    t->looked++;
    t->pieces += count;
    t->of_length[count]++;
    t->cut += full > r->d.T;
    return OK;
}

/* Evenly over the split, at most MOST_CAPTIONS. */
static Status look(const Run *r, const int64_t *image, Texts *t) {
    int32_t *ids = mem_new((size_t)r->d.T, sizeof *ids);
    Status st = ids ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < t->images; i++) t->captions += set_ncaptions(r->train, image[i]);
    /* a start must not wait for millions of captions */
    int64_t every = (t->captions + MOST_CAPTIONS - 1) / MOST_CAPTIONS, at = 0;
    for (int64_t i = 0; st == OK && i < t->images; i++)
        for (int64_t k = 0; st == OK && k < set_ncaptions(r->train, image[i]); k++) {
            size_t n;
            const char *caption = set_caption(r->train, image[i], k, &n);
            if (at++ % every == 0) st = look_at(r, t, caption, n, ids);
        }
    free(ids);
    return st;
}

static double percent(int64_t n, int64_t of) { return of ? 100.0 * (double)n / (double)of : 0; }

static void say_counts(const Run *r, const Texts *t) {
    char part[64] = "";
    /* [CLS] and [SEP] are never unknown */
    double unknown = percent(t->unknown, t->pieces - 2 * t->looked), cut = percent(t->cut, t->looked);
    if (t->looked < t->captions) snprintf(part, sizeof part, " (of %lld looked at)", (long long)t->looked);
    status_say("texts     %lld captions of %lld images: %.1f word pieces, %.3g %% of them [UNK]; %.3g %% of captions "
               "cut at %d%s", (long long)t->captions, (long long)t->images,
               t->looked ? (double)t->pieces / (double)t->looked : 0, unknown, cut, r->d.T, part);
    if (unknown > 5)                                         /* a few are in every set */
        status_say("warning: %.3g %% of the words are [UNK], unknown to %s: another language, or a vocabulary of other "
                   "texts; 'qformer vocab' makes one of these", unknown, r->o->model.vocab);
    if (cut > 10)
        status_say("warning: %.3g %% of the captions are longer than data.max_tokens=%d and lose their end", cut,
                   r->d.T);
}

/* Whoever learns to tell pairs apart needs pairs that differ. */
static void say_alike(const Run *r, const Texts *t) {
    const Options *o = r->o;
    double alike = percent(t->looked - t->different, t->looked);
    if (r->learns != LEARNS_STAGE1) return;
    if (t->images == 1) status_say("warning: all captions are of one image: there is nothing to tell it apart from");
    else if (alike >= 50 && (o->loss.itc > 0 || o->loss.itm > 0))
        status_say("warning: %.3g %% of the captions are word for word another one%s: the contrastive and the matching "
                   "loss take an equal caption of another image for a wrong one",
                   alike, t->different == 1 ? ", all are the same" : "");
}

static void say_rates(const Run *r) {
    const Options *o = r->o;
    if (o->optim.min_lr > o->optim.lr && !strstr(o->optim.schedule.name, "constant"))
        status_say("warning: optim.min_lr=%g is above optim.lr=%g: the rate rises; optim.min_lr=0 lets it fall",
                   o->optim.min_lr,
                   o->optim.lr);
    if (*o->stage2.lm && o->run.stage == 1)
        status_say("warning: stage2.lm=%s is not used: this is stage 1; stage=2 learns to speak to it", o->stage2.lm);
    if (o->train.patience && !o->train.eval_every)
        status_say("warning: train.patience=%lld counts evaluations, and there are none (train.eval_every=0)",
                   (long long)o->train.patience);
}

/* Images that are trained on and watched flatter the curve. */
static Status say_shared(const Run *r, const int64_t *image, int64_t n) {
    StrMap watched = {0};
    int64_t *of = NULL, m = 0, shared = 0, first = -1;
    if (r->val == r->train || !r->o->train.eval_every) return OK; /* of one set its splits part them */
    Status st = set_select(r->val, r->o->data.val_split, &of, &m);
    for (int64_t i = 0; st == OK && i < m; i++) st = strmap_put(&watched, set_image_id(r->val, of[i]), i);
    for (int64_t i = 0; st == OK && i < n; i++)
        if (set_has(r->train, image[i]) && strmap_get(&watched, set_image_id(r->train, image[i])) && !shared++)
            first = image[i];
    if (st == OK && shared)
        status_say("warning: %lld of the %lld images of data.val are trained on as well (%s): its figures will flatter",
                   (long long)shared, (long long)m, set_image_id(r->train, first));
    strmap_free(&watched);
    free(of);
    return st;
}

static void say_warmup(const Run *r) {
    const Schedule *s = &r->schedule;
    bool by_epoch = s->kind == SCHED_LAVIS_EPOCH || s->kind == SCHED_LAVIS_STEP;
    if (s->warmup >= s->steps && s->warmup > 0)
        status_say("warning: the warm-up takes %lld steps, the run has %lld: it ends at %.2g of optim.lr=%g; "
                   "optim.warmup_steps=0.05 is a share of the run", (long long)s->warmup, (long long)s->steps,
                   schedule_lr(s, s->steps - 1), s->peak);
    else if (by_epoch && s->warmup > s->steps_per_epoch)
        status_say("warning: under optim.schedule=%s the warm-up of %lld steps ends with the first epoch, after %lld: "
                   "the rate jumps there", r->o->optim.schedule.name, (long long)s->warmup,
                   (long long)s->steps_per_epoch);
}

/* [CLS] pieces [SEP] is as long as [DEC] pieces and the end, which does not count. */
static int64_t short_text(const Run *r, const Texts *t) {
    int64_t shorter = 0, n = 0;
    /* at most one caption in twenty is shorter */
    while (n < r->d.T && 20 * (shorter + t->of_length[n]) <= t->looked) shorter += t->of_length[n++];
    return n > 1 ? n - 1 : 0;
}

static void free_texts(Texts *t) {
    for (size_t at = 0; at < t->seen.cap; at++) free((char *)(uintptr_t)t->seen.slot[at].key);
    strmap_free(&t->seen);
}

Status run_look(Run *r) {
    Texts t = {.of_length = mem_new((size_t)r->d.T + 1, sizeof *t.of_length)};
    int64_t *image = NULL;
    Status st = t.of_length ? set_select(r->train, r->o->data.train_split, &image, &t.images) : ERR_MEMORY;
    if (st == OK && r->tok) st = look(r, image, &t);         /* stage 2 reads no word pieces */
    if (st == OK && r->tok) r->short_text = short_text(r, &t);
    if (st == OK && r->tok) say_counts(r, &t);
    if (st == OK && r->tok) say_alike(r, &t);
    if (st == OK) say_warmup(r), say_rates(r);
    if (st == OK) st = say_shared(r, image, t.images);
    free_texts(&t);
    mem_free(image, t.of_length);
    return st;
}
