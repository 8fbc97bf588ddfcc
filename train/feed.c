/* feed: see feed.h. */
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "data/text/settext.h"
#include "kernels/base/rng.h"
#include "kernels/base/mem.h"

void feed_open(Feed *f, const FeedSpec *spec) { *f = (Feed){.spec = *spec}; }

void feed_close(Feed *f) {
    mem_free(f->ids.v, f->asked.v, f->items, f->views, f->at, f->view_at, f->last);
    *f = (Feed){0};
}

static Status make_room(Feed *f, int64_t items) {
    if (items <= f->room) return OK;
    size_t n = (size_t)f->room, more = (size_t)(items - f->room);
    Status st = mem_room(&f->items, n, more, sizeof *f->items);
    if (st == OK) st = mem_room(&f->at, n, more, sizeof *f->at);
    if (st == OK) st = mem_room(&f->views, n, more, sizeof *f->views);
    if (st == OK) st = mem_room(&f->view_at, n, more, sizeof *f->view_at);
    if (st != OK) return st;
    f->room = items;
    return OK;
}

static uint64_t draw_of(const Feed *f, const Batch *b, int64_t image, int64_t caption) {
    /* by picture, text and step: the same draw whoever reads it, resumed or not */
    Philox x = philox((uint32_t)image, (uint32_t)caption, (uint32_t)b->step, SITE_DATA, rng_key0(f->spec.seed),
                      (uint32_t)(b->step >> 32));
    return (uint64_t)x.v[0] << 32 | x.v[1];
}

/* Cuts a caption at a blank that is drawn: its first words join the prompt. Takes *target, gives two new strings. */
static Status split_caption(uint64_t draw, char **prompt, char **target) {
    int blanks = 0;
    char *text = *target, *rest = text, *front = *prompt;
    for (const char *c = text; *c; c++) blanks += *c == ' ';
    if (!blanks) return OK;
    /* the upper half: the lower one chooses templates */
    for (int at = (int)((draw >> 32) % (uint64_t)blanks); at >= 0; at--) rest = strchr(rest, ' ') + 1;
    rest[-1] = 0;
    /* a prompt may bring its own blank */
    bool apart = *front && front[strlen(front) - 1] != ' ';
    *prompt = mem_format("%s%s%s", front, apart ? " " : "", text);
    *target = mem_strdup(rest);
    mem_free(front, text);
    return *prompt && *target ? OK : ERR_MEMORY;
}

/* What is asked and what is to be said: new strings. */
static Status texts_of(const Feed *f, const Batch *b, int64_t image, int64_t caption, char **prompt, char **target) {
    size_t n = 0;
    const char *text = set_caption(f->spec.set, image, caption, &n);
    SetText t = settext_of(text, n);
    uint64_t draw = draw_of(f, b, image, caption);
    TextTemplates with = {f->spec.prompt, f->spec.questions};
    *prompt = *target = NULL;
    /* a question goes as it is: only captions are cleaned as LAVIS cleans them */
    if (t.kind != TEXT_CAPTION) return settext_say(prompt, target, &t, &with, draw);
    Status st = caption_blip(target, NULL, text, n, NULL, f->spec.max_words);
    if (st == OK && !(*prompt = mem_strdup(f->spec.prompt))) st = ERR_MEMORY;
    return st == OK && f->spec.split ? split_caption(draw, prompt, target) : st;
}

/* The view of a text: the picture's, or, when prompts enter the Q-Former, that of the same prompt just before. */
static Status find_view(Feed *f, int32_t row, const char *prompt, int32_t *view) {
    int n = 0;
    size_t most = (size_t)f->spec.max_asked;
    *view = row;
    if (!f->spec.asked) return OK;
    bool same = f->nviews && f->views[f->nviews - 1].image == row && f->last && strcmp(f->last, prompt) == 0;
    *view = f->nviews - same;
    if (same) return OK;
    /* room first: the tokenizer writes where it is told, and pushes nothing */
    while (f->asked.cap < f->asked.n + most)
        if (ids_push(&f->asked, 0) != OK) return ERR_MEMORY;
    /* back from the pushes, which were for room alone */
    f->asked.n = f->nviews ? f->view_at[f->nviews - 1] + (size_t)f->views[f->nviews - 1].n : 0;
    Status st = tokenizer_encode(f->spec.asked, prompt, strlen(prompt), f->spec.max_asked, f->asked.v + f->asked.n, &n,
                                 NULL);
    free(f->last);
    if (st == OK && !(f->last = mem_strdup(prompt))) st = ERR_MEMORY;
    f->view_at[f->nviews] = f->asked.n;
    f->views[f->nviews++] = (ObjectiveView){.image = row, .n = (int32_t)n};
    f->asked.n += (size_t)n;
    return st;
}

/* Which of an image's texts stands in front of the others: a caption; -1: none. */
static int64_t draw_front(const Feed *f, const Batch *b, int64_t image) {
    int64_t all = set_ncaptions(f->spec.set, image), captions = 0, at = -1;
    size_t n = 0;
    for (int pass = 0; f->spec.front && all > 1 && pass < 2; pass++) { /* counted, then drawn: no list for so few */
        int64_t left = captions ? (int64_t)(draw_of(f, b, image, all) % (uint64_t)captions) : -1;
        for (int64_t k = 0; k < all && at < 0; k++) {
            const char *text = set_caption(f->spec.set, image, k, &n);
            if (settext_of(text, n).kind != TEXT_CAPTION) continue;
            if (pass && left-- == 0) at = k;
            captions += !pass;
        }
    }
    return at;
}

/* The view of a row: that text's pieces, or no rows at all. */
static Status put_front(Feed *f, int64_t image, int64_t caption, int32_t row) {
    size_t n = 0, from = f->asked.n;
    char *clean = NULL;
    Status st = OK;
    if (caption >= 0) {
        const char *text = set_caption(f->spec.set, image, caption, &n);
        st = caption_blip(&clean, &n, text, n, NULL, f->spec.max_words);
        if (st == OK) st = tokenizer_pieces(f->spec.front, clean, n, &f->asked);
        /* cut like any text: what is planned for is all that there is */
        if (f->asked.n > from + (size_t)f->spec.max_asked) f->asked.n = from + (size_t)f->spec.max_asked;
    }
    f->view_at[f->nviews] = from;
    f->views[f->nviews++] = (ObjectiveView){.image = row, .n = (int32_t)(f->asked.n - from)};
    free(clean);
    return st;
}

/* One text of an image, as item n of the batch. */
static Status add_text(Feed *f, const Batch *b, int64_t image, int64_t caption, int32_t row, int n) {
    size_t from = f->ids.n;
    char *prompt = NULL, *target = NULL;
    LmItem *it = &f->items[n];
    *it = (LmItem){0};
    Status st = texts_of(f, b, image, caption, &prompt, &target);
    if (st == OK) st = find_view(f, row, prompt, &it->image);
    if (st == OK) st = speech_ids(f->spec.speech, prompt, target, &f->ids, &it->target);
    it->n = (int32_t)(f->ids.n - from);
    f->at[n] = from;
    mem_free(prompt, target);
    return st;
}

/* The texts of a row, from the drawn one on, around; the one in front of them is not said. */
static Status add_texts(Feed *f, const Batch *b, int64_t i, int *n) {
    int64_t image = b->image[i], all = set_ncaptions(f->spec.set, image), front = draw_front(f, b, image);
    /* in one go: the picture's visual rows serve them all */
    int64_t most = f->spec.all ? all : 1, said = 0;
    Status st = f->spec.front ? put_front(f, image, front, (int32_t)i) : OK;
    for (int64_t k = 0; k < most && said < f->spec.texts && st == OK; k++) {
        int64_t caption = (b->caption[i] + k) % all;
        /* what stands in front would be copied, not learned */
        if (caption == front) continue;
        st = add_text(f, b, image, caption, (int32_t)i, *n);
        said++, ++*n;
    }
    return st;
}

Status feed_batch(Feed *f, const Batch *b, ObjectiveBatch *out) {
    int n = 0;
    Status st = make_room(f, b->B * (f->spec.texts > 1 ? f->spec.texts : 1));
    f->ids.n = f->asked.n = 0;
    f->nviews = 0;
    *out = (ObjectiveBatch){.features = b->features, .scale = b->scale, .dt = b->dtype};
    for (int64_t i = 0; i < b->B && st == OK; i++) st = add_texts(f, b, i, &n);
    for (int i = 0; i < n; i++) f->items[i].ids = f->ids.v + f->at[i];       /* they stand still now */
    for (int i = 0; i < f->nviews; i++) f->views[i].ids = f->asked.v + f->view_at[i];
    out->said = f->items;
    out->nsaid = n;
    if (f->nviews) out->views = f->views, out->nviews = f->nviews;
    return st;
}
