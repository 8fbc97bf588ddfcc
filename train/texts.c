/* texts: what a run's captions become, looked at once before the first step (run.h): words that the vocabulary does not
 * have, texts that are cut. The loss falls nicely over both. */
#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "train/run.h"

enum { MOST_CAPTIONS = 20000 };

typedef struct {
    int64_t images, captions, looked, pieces, unknown, cut;
    int64_t *of_length;                 /* (T + 1) captions of so many word pieces */
} Texts;

static Status look_at(const Run *r, Texts *t, const char *caption, size_t n, int32_t *ids) {
    char *clean = NULL;
    size_t len = 0;
    int count = 0;
    int64_t full = 0;
    int32_t unk = tokenizer_ids(r->tok)->unk;
    Status st = settext_blip(&clean, &len, caption, n, r->o->data.prompt, (int)r->o->data.max_words);
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

static void say_texts(const Run *r, const Texts *t) {
    char part[64] = "";
    double unknown = percent(t->unknown, t->pieces - 2 * t->looked), cut = percent(t->cut, t->looked);
    if (t->looked < t->captions) snprintf(part, sizeof part, " (of %lld looked at)", (long long)t->looked);
    status_say("texts     %lld captions of %lld images: %.1f word pieces, %.3g %% of them [UNK]; %.3g %% of captions "
               "cut at %d%s", (long long)t->captions, (long long)t->images,
               t->looked ? (double)t->pieces / (double)t->looked : 0, unknown, cut, r->d.T, part);
    if (unknown > 5)
        status_say("warning: %.3g %% of the words are [UNK], unknown to %s: another language, or a vocabulary of other "
                   "texts; 'qformer vocab' makes one of these", unknown, r->o->model.vocab);
    if (cut > 10)
        status_say("warning: %.3g %% of the captions are longer than data.max_tokens=%d and lose their end", cut,
                   r->d.T);
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
    while (n < r->d.T && 20 * (shorter + t->of_length[n]) <= t->looked) shorter += t->of_length[n++];
    return n > 1 ? n - 1 : 0;
}

Status run_look(Run *r) {
    Texts t = {.of_length = mem_new((size_t)r->d.T + 1, sizeof *t.of_length)};
    int64_t *image = NULL;
    Status st = t.of_length ? set_select(r->train, r->o->data.train_split, &image, &t.images) : ERR_MEMORY;
    if (st == OK && r->tok) st = look(r, image, &t);         /* stage 2 reads no word pieces */
    if (st == OK && r->tok) r->short_text = short_text(r, &t);
    if (st == OK && r->tok) say_texts(r, &t);
    if (st == OK) say_warmup(r);
    free(image);
    free(t.of_length);
    return st;
}
