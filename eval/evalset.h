/* evalset: a split laid out for evaluation: images in order, their captions as word pieces, and who belongs to whom. */
#pragma once
#include "data/set.h"
#include "data/text/tokenizer.h"
#include "eval/encode.h"

typedef struct {
    const Set *set;
    int64_t NI, NT;
    int64_t *image;                     /* (NI) numbers in the set */
    int32_t *owner;                     /* (NT) position of the text's image in image[] */
    int32_t *ids, *len;                 /* (NT,T) zero padded, (NT) */
    int64_t *caption;                   /* (NT) which caption of its image */
    int T;
} EvalSet;

/* How text becomes word pieces: the caption processor's prompt and word limit, then at most T pieces. */
typedef struct { const Tokenizer *tok; int T, max_words; const char *prompt; } TextSpec;

/* Images of the split (at most `limit`, 0: all), all their captions, in the order of the set. */
Status evalset_open(EvalSet *e, const Set *set, const char *split, int64_t limit, const TextSpec *text);
void evalset_close(EvalSet *e);

/* n texts of the user's, without images: owner and caption are his to fill in. */
Status evalset_texts(EvalSet *e, const TextSpec *text, const char *const *texts, int64_t n);

Status text_encode(const TextSpec *t, const char *text, size_t n, int32_t *ids /* (T) */, int32_t *len);

/* Features of images [first, first + n) of the list: raw rows (view 0) and scales, into the caller's memory. */
Status evalset_read(const EvalSet *e, int64_t first, int64_t n, void *features, float *scales);

/* The same into memory that the device reads fast, n images at a time at most: `rows` is what was read last. */
typedef struct { const EvalSet *e; const Backend *b; void *data; float *scale; FeatureRows rows; } EvalRows;
Status evalrows_open(EvalRows *r, const EvalSet *e, const Backend *b, int64_t n);
Status evalrows_read(EvalRows *r, int64_t first, int64_t n);
void evalrows_close(EvalRows *r);       /* accepts one that is zero */

/* How far this rank is, of total. tell may be NULL; it says whether to go on. */
typedef bool EvalTell(void *ctx, int64_t done, int64_t total);
typedef struct { EvalTell *tell; void *ctx; int64_t done, total; } EvalProgress;

/* All image features (NI,Q,Z) and text features (NT,Z), taken (free them) by the caller. Several ranks share the work;
 * all call alike and get everything. evalset_share: how many images and texts this rank will encode. */
Status evalset_encode(const EvalSet *e, Encoder *enc, float **I, float **T, EvalProgress *p);
int64_t evalset_share(const EvalSet *e);

/* Parts of it, into the caller's memory: images [first, first + n) into I (n,Q,Z), texts into T (n,Z). */
Status evalset_encode_images(const EvalSet *e, Encoder *enc, int64_t first, int64_t n, float *I, EvalProgress *p);
Status evalset_encode_texts(const EvalSet *e, Encoder *enc, int64_t first, int64_t n, float *T, EvalProgress *p);
Status evalprogress(EvalProgress *p, int64_t more);                        /* ERR_INTERRUPTED when asked to stop */
