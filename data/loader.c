/* loader: see loader.h.
 *
 * Rows are handed out one at a time, in the order in which they will be needed, under one lock; everything else
 * (reading, checking, tokenizing) happens outside it, into places no other thread touches. Batch number n lives in
 * slot n % queue. */
#include "data/loader.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "data/order.h"
#include "data/text/caption.h"
#include "data/text/settext.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

typedef enum { SLOT_FREE, SLOT_FILLING, SLOT_READY, SLOT_HELD } SlotState;

typedef struct {
    Batch batch;
    SlotState state;
    int64_t left;                  /* rows not yet done */
    char *features;
    int64_t *image, *caption, *sample;     /* these, and what follows, are one block that begins here */
    float *scale;
    int32_t *ids, *len;
    Status st;                     /* of the first row that failed, bad_row */
    int64_t bad_row;
    char *message;
} Slot;

struct Loader {
    const Set *set;
    LoaderSpec spec;
    TokenKey key;
    uint64_t seed;
    int64_t n, steps;              /* samples of an epoch that this loader draws from, steps in it */
    int64_t stride, offset;        /* batch s starts at sample s * stride + offset of the order */
    int64_t *images, nimages;      /* of the split, those with captions */
    int64_t *first;                /* (nimages + 1) pairs: first sample of each image */

    Slot *slot;
    pthread_t *thread;
    int threads;

    pthread_mutex_t lock;          /* guards what follows, and state, left, st of the slots */
    pthread_cond_t room, ready;    /* a slot became free (or: stop); a batch became complete */
    bool stop;
    int64_t fill_step, fill_row;   /* what is handed out next */
    int64_t take_step;             /* what loader_next returns next */
};

/* ---- samples ---- */

Status loader_count(const Set *s, const LoaderSpec *spec, int64_t *samples, int64_t *steps_per_epoch) {
    int64_t ranks = spec->ranks ? spec->ranks : 1, parts = set_parts(s), least = INT64_MAX, most = 0;
    *samples = 0;
    for (int p = 0; p < parts; p++) {
        SplitCount c = set_count(s, spec->split, p);
        int64_t n = spec->images ? c.captioned : c.captions;
        *samples += n;
        if (n < least) least = n;
        if (n > most) most = n;
    }
    int64_t share = parts > 1 ? spec->B : spec->B * ranks;   /* a part belongs to its rank alone */
    *steps_per_epoch = spec->drop_last ? least / share : (most + share - 1) / share;
    if (*steps_per_epoch > 0) return OK;
    char there[512] = "";
    if (*samples == 0) set_name_splits(s, there, sizeof there);
    for (int64_t i = 0; *samples == 0 && i < set_images(s); i++)
        if (set_has(s, i) && set_split_matches(spec->split, set_split(s, i)))
            return err_set(ERR_USAGE,
                           "%s: none of the images of split \"%s\" has a caption, and captions are what is learned",
                           set_path(s), spec->split);
    if (*samples == 0)
        return err_set(ERR_USAGE, "%s: split \"%s\" has no image with a caption; there are %s", set_path(s),
                       spec->split, there[0] ? there : "none");
    int64_t have = parts > 1 ? least : *samples, fits = parts > 1 ? have : have / ranks;
    char on[48] = "", instead[64] = "";
    if (ranks > 1) snprintf(on, sizeof on, " (%" PRId64 " on each of %" PRId64 " ranks)", spec->B, ranks);
    if (fits) snprintf(instead, sizeof instead, "; train.batch=%" PRId64 " is the largest that fits", fits);
    return err_set(ERR_USAGE, "%s: split \"%s\" has %" PRId64 " %s%s, which is less than one batch of %" PRId64 "%s%s",
                   set_path(s), spec->split, have, spec->images ? "images" : "pairs",
                   parts > 1 ? " on the rank with the fewest" : "", share, on, instead);
}

/* The images of the split that have captions, and where their samples start. */
static Status list_samples(Loader *l) {
    int64_t n = 0, total = 0;
    Status st = set_select(l->set, l->spec.split, &l->images, &l->nimages);
    if (st != OK) return st;
    if (!(l->first = mem_new((size_t)l->nimages + 1, sizeof *l->first))) return ERR_MEMORY;
    for (int64_t i = 0; i < l->nimages; i++) {
        int64_t captions = set_ncaptions(l->set, l->images[i]);
        if (captions == 0) continue;                         /* nothing to learn from */
        l->images[n] = l->images[i];
        l->first[n++] = total;
        total += l->spec.images ? 1 : captions;
    }
    l->first[n] = total;
    l->nimages = n;
    l->n = total;
    return OK;
}

typedef struct { int64_t sample, image, caption, row; } Choice;

/* What stands at place `at` of the order of an epoch. */
static Choice choose(const Loader *l, int64_t epoch, int64_t at) {
    Choice c;
    uint64_t e = (uint64_t)epoch;
    c.sample = l->spec.shuffle ? order_at(l->seed, e, l->n, at) : at;
    /* bisection: a table of samples would take eight bytes a caption */
    int64_t low = 0, high = l->nimages;                   /* the last image that starts at or before the sample */
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        if (l->first[mid] <= c.sample) low = mid;
        else high = mid;
    }
    c.image = l->images[low];
    c.caption = c.sample - l->first[low];
    int64_t view = 0;
    /* drawn from (seed, epoch, sample), so threads, ranks and resuming change nothing */
    if (l->spec.shuffle) {
        if (l->spec.images) c.caption = order_draw(l->seed, e, c.sample, 1, set_ncaptions(l->set, c.image));
        view = order_draw(l->seed, e, c.sample, 2, set_views(l->set));
    }
    c.row = c.image * set_views(l->set) + view;
    return c;
}

/* ---- filling a row ---- */

static Status copy_tokens(const Loader *l, const Choice *c, const uint32_t *tokens, int n, int32_t *ids) {
    for (int i = 0; i < n; i++) {
        if (tokens[i] >= (uint32_t)tokenizer_size(l->spec.tok)) /* it indexes the embedding */
            return err_set(ERR_FORMAT, "%s: the token cache of image \"%s\" holds id %u, the vocabulary has %d",
                           set_path(l->set), set_image_id(l->set, c->image), tokens[i], tokenizer_size(l->spec.tok));
        ids[i] = (int32_t)tokens[i];
    }
    return OK;
}

static Status fill_text(const Loader *l, const Choice *c, int32_t *ids, int32_t *len) {
    int n = 0;
    const uint32_t *tokens = set_tokens(l->set, c->image, c->caption, &l->key, &n);
    Status st;
    /* a slot held another text before: what is behind the end must not depend on it */
    memset(ids, 0, (size_t)l->spec.max_tokens * sizeof *ids);
    if (tokens) {
        st = copy_tokens(l, c, tokens, n, ids);
    } else {
        size_t bytes;
        char *clean;
        const char *text = set_caption(l->set, c->image, c->caption, &bytes);
        if ((st = settext_blip(&clean, &bytes, text, bytes, l->key.prompt, (int)l->key.max_words)) != OK) return st;
        st = tokenizer_encode(l->spec.tok, clean, bytes, l->spec.max_tokens, ids, &n, NULL);
        free(clean);
    }
    *len = n;
    return st;
}

static Status fill(const Loader *l, Slot *s, int64_t b) {
    int64_t place = (s->batch.step % l->steps) * l->stride + l->offset + b;
    Choice c = choose(l, s->batch.epoch, place);
    s->sample[b] = c.sample;
    s->image[b] = c.image;
    s->caption[b] = c.caption;
    Status st = fill_text(l, &c, s->ids + b * l->spec.max_tokens, &s->len[b]);
    if (st != OK) return st;
    return set_read_row(l->set, c.row, l->spec.verify_crc, s->features + (size_t)b * set_row_bytes(l->set),
                        s->scale + b * set_scales(l->set));
}

/* ---- the threads ---- */

/* Starts batch l->fill_step in its slot. The batch may be short, or empty on this rank, at the end of an epoch. */
static void begin(Loader *l, Slot *s) {
    const LoaderSpec *p = &l->spec;
    Batch *t = &s->batch;
    int64_t ranks = set_parts(l->set) > 1 ? 1 : p->ranks;  /* whose samples are in the same order as ours */
    t->step = l->fill_step;
    t->epoch = t->step / l->steps;
    int64_t rest = l->n - (t->step % l->steps) * l->stride, here = rest - l->offset;
    t->B = here < 0 ? 0 : here < p->B ? here : p->B;
    t->G = ranks > 1 ? (rest < p->B * ranks ? rest : p->B * ranks) : t->B * p->ranks;
    t->first_pair = p->rank * p->B;                          /* in a short batch, too: those before are full */
    s->left = t->B;
    s->st = OK;
    s->state = t->B ? SLOT_FILLING : SLOT_READY;             /* empty here, and still a step: the other ranks have it */
}

static void record(Slot *s, int64_t b, Status st) {
    if (s->st != OK && b > s->bad_row) return;             /* the first row's message, whatever the threads did */
    free(s->message);
    s->message = mem_strdup(err_message());
    s->st = st;
    s->bad_row = b;
}

/* The next row to fill, or false: nothing to do now. Called with the lock held. */
static bool next_row(Loader *l, Slot **s, int64_t *b) {
    if (l->spec.stop_step > 0 && l->fill_step >= l->spec.stop_step) return false;
    *s = &l->slot[l->fill_step % l->spec.queue];
    if (l->fill_row == 0) {
        if ((*s)->state != SLOT_FREE) return false;
        begin(l, *s);
    }
    *b = l->fill_row++;
    if (l->fill_row >= (*s)->batch.B) {                      /* handed out, not done: `left` counts those */
        l->fill_row = 0;
        l->fill_step++;
    }
    return true;
}

static void *reader(void *arg) {
    Loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        Slot *s;
        int64_t b;
        if (!next_row(l, &s, &b)) {
            pthread_cond_wait(&l->room, &l->lock);
            continue;
        }
        if (s->batch.B > 0) {
            /* the lock is for the bookkeeping; rows are filled side by side */
            pthread_mutex_unlock(&l->lock);
            Status st = fill(l, s, b);
            pthread_mutex_lock(&l->lock);
            if (st != OK) record(s, b, st);
            if (--s->left == 0) s->state = SLOT_READY;       /* whoever is last */
        }
        if (s->state == SLOT_READY) pthread_cond_signal(&l->ready);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* Signals are for the main thread. */
static Status start_threads(Loader *l) {
    sigset_t all, before;
    Status st = OK;
    /* threads inherit the mask, so it is set before they begin */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (st == OK && l->threads < l->spec.threads) {
        if (pthread_create(&l->thread[l->threads], NULL, reader, l) == 0) l->threads++;
        else st = err_set(ERR_MEMORY, "cannot start thread %d of %d that read data", l->threads + 1, l->spec.threads);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}

/* ---- opening and closing ---- */

/* The kernel copies rows into huge pages a quarter faster than into small ones (measured: 12 against 9.8 GB/s). */
static void *plain_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    const size_t huge = (size_t)2 << 20;
    void *p = NULL;
    if (posix_memalign(&p, bytes >= huge ? huge : 4096, bytes) != 0) return NULL;
    if (bytes >= huge) madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static void plain_release(void *ctx, void *p) {
    (void)ctx;
    free(p);
}

static Status make_slot(const Loader *l, Slot *s) {
    size_t B = (size_t)l->spec.B, T = (size_t)l->spec.max_tokens, S = (size_t)set_scales(l->set), bytes;
    if (!mem_mul(B, set_row_bytes(l->set), &bytes) || !(s->features = l->spec.alloc(l->spec.ctx, bytes)))
        return err_set(ERR_MEMORY,
                       "out of memory for %d batches of %zu rows of %zu bytes: lower data.queue or train.batch",
                       l->spec.queue, B, set_row_bytes(l->set));
    /* one block, the widest numbers first: each array begins where its type may */
    s->image = mem_new(B, 3 * sizeof *s->image + S * sizeof *s->scale + (T + 1) * sizeof *s->ids);
    if (!s->image) return ERR_MEMORY;
    s->caption = s->image + B;
    s->sample = s->caption + B;
    s->scale = (float *)(s->sample + B);
    s->ids = (int32_t *)(s->scale + B * S);
    s->len = s->ids + B * T;
    s->batch = (Batch){.P = set_P(l->set), .E = set_E(l->set), .T = l->spec.max_tokens, .dtype = set_dtype(l->set),
                       .features = s->features, .scale = set_scaled(l->set) ? s->scale : NULL, .ids = s->ids,
                       .len = s->len, .image = s->image, .caption = s->caption, .sample = s->sample};
    return OK;
}

static void free_slot(const Loader *l, Slot *s) {
    if (s->features) l->spec.release(l->spec.ctx, s->features);
    mem_free(s->image, s->message);
}

static void settle(Loader *l, const Set *set, const LoaderSpec *spec) {
    l->set = set;
    l->spec = *spec;
    LoaderSpec *p = &l->spec;
    if (p->ranks == 0) p->ranks = 1;
    if (p->threads <= 0) p->threads = 4;                     /* a disk wants several requests at once */
    if (p->queue <= 0) p->queue = 4;
    /* one is held by the consumer while the next is read */
    if (p->queue < 2) p->queue = 2;
    if (!p->alloc) {
        p->alloc = plain_alloc;
        p->release = plain_release;
    }
    l->key = (TokenKey){tokenizer_hash(p->tok), p->max_tokens, p->max_words ? p->max_words : CAPTION_MAX_WORDS,
                        p->prompt ? p->prompt : ""};
    bool parts = set_parts(set) > 1;
    /* a part has its own samples: the same order on each would pair the same places */
    l->seed = p->seed + (parts ? ((uint64_t)p->rank + 1) * UINT64_C(0x9E3779B97F4A7C15) : 0);
    l->stride = parts ? p->B : p->B * p->ranks;
    l->offset = parts ? 0 : p->B * p->rank;
    l->fill_step = l->take_step = p->start_step;
}

Status loader_open(Loader **out, const Set *set, const LoaderSpec *spec) {
    *out = NULL;
    int64_t samples;
    BUG_ON(spec->B < 1 || spec->max_tokens < 2 || !spec->tok || spec->start_step < 0 || spec->rank < 0 ||
           spec->rank >= (spec->ranks ? spec->ranks : 1), "loader: B %lld, T %d, rank %d of %d", (long long)spec->B,
           spec->max_tokens, spec->rank, spec->ranks);
    BUG_ON(set_parts(set) > 1 && !spec->drop_last, "loader: a set in parts has no short batches");
    BUG_ON(set_parts(set) > 1 && (set_parts(set) != spec->ranks || set_part(set) != spec->rank),
           "loader: rank %d of %d, but the set is part %d of %d", spec->rank, spec->ranks, set_part(set),
           set_parts(set));
    Loader *l = mem_new(1, sizeof *l);
    if (!l) return ERR_MEMORY;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->room, NULL);
    pthread_cond_init(&l->ready, NULL);
    settle(l, set, spec);
    Status st = loader_count(set, &l->spec, &samples, &l->steps);
    if (st == OK) st = list_samples(l);
    if (st == OK) {
        l->slot = mem_new((size_t)l->spec.queue, sizeof *l->slot);
        l->thread = mem_new((size_t)l->spec.threads, sizeof *l->thread);
        if (!l->slot || !l->thread) st = ERR_MEMORY;
    }
    for (int i = 0; st == OK && i < l->spec.queue; i++) st = make_slot(l, &l->slot[i]);
    if (st == OK) st = start_threads(l);
    if (st == OK) {
        *out = l;
        return OK;
    }
    loader_close(l);
    return st;
}

void loader_close(Loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->room);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->threads; i++) pthread_join(l->thread[i], NULL); /* before anything that they use goes */
    for (int i = 0; l->slot && i < l->spec.queue; i++) free_slot(l, &l->slot[i]);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->room);
    pthread_mutex_destroy(&l->lock);
    mem_free(l->slot, l->thread, l->images, l->first, l);
}

/* ---- the consumer ---- */

Status loader_next(Loader *l, const Batch **batch, double *waited) {
    *batch = NULL;
    if (waited) *waited = 0;
    if (l->spec.stop_step > 0 && l->take_step >= l->spec.stop_step) return OK;
    Slot *s = &l->slot[l->take_step % l->spec.queue];
    Status st = OK;
    pthread_mutex_lock(&l->lock);
    BUG_ON(s->state == SLOT_HELD, "loader_next: all %d batches are held", l->spec.queue); /* would wait for itself */
    if (s->state != SLOT_READY) {
        double start = status_clock();
        /* a loop: a wait may return although nobody signalled */
        while (s->state != SLOT_READY) pthread_cond_wait(&l->ready, &l->lock);
        if (waited) *waited = status_clock() - start;
    }
    if (s->st != OK) {                                     /* stays ready: asking again gives the same answer */
        st = err_set(s->st, "%s", s->message ? s->message : "out of memory");
    } else {
        s->state = SLOT_HELD;
        l->take_step++;
        *batch = &s->batch;
    }
    pthread_mutex_unlock(&l->lock);
    return st;
}

const Batch *loader_peek(Loader *l) {
    Slot *s = &l->slot[l->take_step % l->spec.queue];
    pthread_mutex_lock(&l->lock);
    /* a slot may hold the batch of a step long past */
    bool ready = s->state == SLOT_READY && s->st == OK && s->batch.step == l->take_step;
    pthread_mutex_unlock(&l->lock);
    return ready ? &s->batch : NULL;
}

void loader_release(Loader *l, const Batch *batch) {
    for (int i = 0; i < l->spec.queue; i++) {
        Slot *s = &l->slot[i];
        if (&s->batch != batch) continue;
        pthread_mutex_lock(&l->lock);
        BUG_ON(s->state != SLOT_HELD, "loader_release: batch of step %lld is not held", (long long)batch->step);
        s->state = SLOT_FREE;
        pthread_cond_broadcast(&l->room);                    /* all readers may have waited for this one place */
        pthread_mutex_unlock(&l->lock);
        return;
    }
    BUG_ON(true, "loader_release: not a batch of this loader");
}
