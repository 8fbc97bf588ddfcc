/* feed: see feed.h. */
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "data/text/settext.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

void feed_open(Feed *f, const FeedSpec *spec) { *f = (Feed){.spec = *spec}; }

void feed_close(Feed *f) {
    free(f->ids.v);
    free(f->asked.v);
    free(f->items);
    free(f->views);
    free(f->at);
    *f = (Feed){0};
}

static Status make_room(Feed *f, int64_t items) {
    if (items <= f->room) return OK;
    LmItem *x = mem_grow(f->items, (size_t)items, sizeof *x);
    if (x) f->items = x;
    size_t *at = mem_grow(f->at, (size_t)items, sizeof *at);
    if (at) f->at = at;
    ObjectiveView *v = mem_grow(f->views, (size_t)items, sizeof *v);
    if (v) f->views = v;
    if (!x || !at || !v) return ERR_MEMORY;
    f->room = items;
    return OK;
}

/* Prompt and target of a text, new; which template and which answer hangs on step and text alone. */
static Status say(const Feed *f, const char *text, size_t n, int64_t step, int64_t which, char **prompt,
                  char **target) {
    SetText t = settext_of(text, n);
    uint64_t draw = hash_int(hash_int(hash_int(HASH_START, (int64_t)f->spec.seed), step), which);
    if (t.kind != TEXT_CAPTION)
        return settext_say(prompt, target, &t, &(TextTemplates){f->spec.prompt, f->spec.questions}, draw);
    *prompt = mem_strdup(f->spec.prompt);
    return *prompt ? caption_blip(target, NULL, text, n, NULL, f->spec.max_words) : ERR_MEMORY;
}

/* One text of an image, as item n of the batch. */
static Status add_caption(Feed *f, int64_t step, int64_t image, int64_t caption, int32_t row, int n) {
    size_t bytes = 0, from = f->ids.n;
    char *prompt = NULL, *clean = NULL;
    const char *text = set_caption(f->spec.set, image, caption, &bytes);
    Status st = say(f, text, bytes, step, image * 1000 + caption, &prompt, &clean);
    if (st == OK && f->spec.asked && settext_of(text, bytes).kind != TEXT_CAPTION)
        st = err_set(ERR_USAGE, "stage2.instruct learns captions; this set asks questions (image %s)",
                     set_image_id(f->spec.set, image));
    LmItem *it = &f->items[n];
    *it = (LmItem){.image = row};
    if (st == OK) st = speech_ids(f->spec.speech, prompt, clean, &f->ids, &it->target);
    it->n = (int32_t)(f->ids.n - from);
    f->at[n] = from;
    free(prompt);
    free(clean);
    return st;
}

static int captions_of(const Feed *f, int64_t image) {
    int64_t n = f->spec.all ? set_ncaptions(f->spec.set, image) : 1;
    return (int)(n < f->spec.texts ? n : f->spec.texts);
}

/* The same prompt enters the Q-Former for all texts: one view a picture. */
static Status ask(Feed *f, const Batch *b, ObjectiveBatch *out) {
    int n = 0;
    if (!f->spec.asked) return OK;
    if (!f->asked.v) {
        int32_t *v = mem_new((size_t)f->spec.max_asked, sizeof *v);
        if (!v) return ERR_MEMORY;
        f->asked = (TokenIds){.v = v, .cap = (size_t)f->spec.max_asked};
        Status st = tokenizer_encode(f->spec.asked, f->spec.prompt, strlen(f->spec.prompt), f->spec.max_asked, v, &n,
                                     NULL);
        if (st != OK) return st;
        f->asked.n = (size_t)n;
    }
    for (int64_t i = 0; i < b->B; i++)
        f->views[i] = (ObjectiveView){.image = (int32_t)i, .ids = f->asked.v, .n = (int32_t)f->asked.n};
    out->views = f->views;
    out->nviews = (int)b->B;
    return OK;
}

Status feed_batch(Feed *f, const Batch *b, ObjectiveBatch *out) {
    int n = 0;
    Status st = make_room(f, b->B * (f->spec.texts > 1 ? f->spec.texts : 1));
    f->ids.n = 0;
    *out = (ObjectiveBatch){.features = b->features, .scale = b->scale, .dt = b->dtype};
    for (int64_t i = 0; i < b->B && st == OK; i++) {
        int64_t all = set_ncaptions(f->spec.set, b->image[i]);
        for (int k = 0, most = captions_of(f, b->image[i]); k < most && st == OK; k++, n++)
            st = add_caption(f, b->step, b->image[i], (b->caption[i] + k) % all, (int32_t)i, n);
    }
    for (int i = 0; i < n; i++) f->items[i].ids = f->ids.v + f->at[i];       /* they stand still now */
    out->said = f->items;
    out->nsaid = n;
    return st == OK ? ask(f, b, out) : st;
}
