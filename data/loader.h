/* loader: from a set to a stream of batches, read ahead by threads.
 *
 * Called by training (and by anything that wants the validation loss). The one idea: what batch s holds is a formula
 * of (seed, s), so that threads can fill a ring of batches row by row in any order, and a run can start at any step.
 *
 *   pairs    every (image, caption) is a sample; an epoch visits each once
 *   images   every image with a caption is a sample; each visit draws one of its captions
 *   views    one of the V views is drawn a visit
 *
 * Of global batch s (G = B * ranks samples in the order of order.h) rank r takes samples [r B, (r + 1) B). A set
 * opened in parts gives each rank its own shards instead: then each rank shuffles its own samples, and the epoch
 * ends when the rank with the fewest has no full batch left.
 *
 * Rows come by pread straight into buffers from the caller's allocator (pinned memory), with their CRC compared;
 * captions pass caption_blip and the tokenizer, or come from the shard's token cache. An error waits for its batch:
 * loader_next of just that step returns it. One consumer thread. The set, the vocabulary and the strings must
 * outlive the loader. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/set.h"
#include "data/text/tokenizer.h"

typedef struct {
    const char *split;             /* as set_select */
    bool images;                   /* sample images, not pairs */
    bool shuffle;                  /* false: in order, view 0, caption 0 of an image: for evaluation */
    bool drop_last;                /* a last batch of less than G samples is left out; parts need it */
    int64_t B;                     /* pairs a step on each rank */
    int rank, ranks;               /* ranks 0 counts as 1 */
    uint64_t seed;
    int64_t start_step;            /* step of the first batch */
    int64_t stop_step;             /* no batch from this step on; 0: endless */
    int threads, queue;            /* readers, batches in the ring; 0: 4 */
    bool verify_crc;
    const Tokenizer *tok;
    int max_tokens;                /* T */
    int max_words;                 /* 0: 50 */
    const char *prompt;            /* NULL: none */
    /* Memory for features; NULL: ordinary memory, in huge pages where there are any. */
    void *(*alloc)(void *ctx, size_t bytes);
    void (*release)(void *ctx, void *p);
    void *ctx;
} LoaderSpec;

typedef struct {
    int64_t B, G;                  /* pairs here (0 possible when short) and over all ranks */
    int64_t P, E;
    int T;
    DType dtype;
    const void *features;          /* (B,P,E) raw; value = element * scale of its row */
    const float *scale;            /* (B, set_scales), or NULL when the set has none */
    const int32_t *ids, *len;      /* (B,T) zero padded, [CLS] first; (B) */
    const int64_t *image;          /* (B) number of the image in the set: what image-id targets compare */
    const int64_t *caption;        /* (B) which of the image's captions */
    const int64_t *sample;         /* (B) number of the sample in its split, before shuffling */
    int64_t first_pair;            /* row b is pair first_pair + b of the global batch */
    int64_t step, epoch;           /* epoch: of this step */
} Batch;

typedef struct Loader Loader;

/* Samples of an epoch and steps in it, before opening anything. ERR_USAGE when not even one batch is full. */
Status loader_count(const Set *s, const LoaderSpec *spec, int64_t *samples, int64_t *steps_per_epoch);

Status loader_open(Loader **l, const Set *s, const LoaderSpec *spec);

/* The next step's batch; *batch NULL with OK after stop_step. *waited (may be NULL): seconds it was not ready. A
 * batch stays valid until it is released; up to queue - 1 may be held at a time. Failure is final. */
Status loader_next(Loader *l, const Batch **batch, double *waited);
const Batch *loader_peek(Loader *l); /* what loader_next will return, when it is ready; else NULL */
void loader_release(Loader *l, const Batch *batch);
void loader_close(Loader *l);                              /* stops the threads; accepts NULL; all batches are gone */
