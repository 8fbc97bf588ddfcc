/* caption: captions of a split, as text, and as the two files of COCO's evaluation.
 *
 * Called by the command caption and by the report. Images are read, captioned (generate.h) a batch at a time, and
 * shared out over the ranks; every rank has all captions afterwards. Does not score (score.h). */
#pragma once
#include "eval/search.h"
#include "eval/use.h"

/* What caption.* asks for, with the model's start and end tokens; of a stage-2 model, those of its language model
 * and the lengths as LAVIS counts them. One beam is greedy search, as in transformers. */
void caption_search(SearchSpec *s, const Options *o, const Use *u);

typedef struct { double score; int32_t len, ended; } CaptionEnd;    /* as in Hypothesis: len counts [DEC] */

typedef struct {
    int64_t n;
    int32_t max_length;
    CaptionEnd *end;                    /* (n) */
    int32_t *tokens;                    /* (n, max_length), [DEC] first */
    char **text;                        /* (n) without special tokens */
    int64_t rows;                       /* decoder rows this rank computed */
} Captions;

/* One caption for each image of `e`; `batch` images at a time. `p` as in evalset.h, counting this rank's images. */
Status captions_make(Captions *c, const Use *u, const EvalSet *e, const SearchSpec *s, int batch, EvalProgress *p);
void captions_free(Captions *c);        /* accepts an empty one */
int64_t captions_share(int64_t n);      /* how many of n images fall to this rank */

/* The image's number for COCO: digits at the end of its name, before an ending like .jpg. False when there are
 * none, or more than 18. caption_ids: numbers of all images of the split, or *ids NULL when some have none or two
 * are equal: names then. */
bool caption_id(const char *name, int64_t *id);
Status caption_ids(const EvalSet *e, int64_t **ids);

/* [{"image_id", "caption"}], and {"images": [{"id"}], "annotations": [{"image_id", "id", "caption"}]} of the images
 * that have captions; new texts (free them) of *len bytes. ids: from caption_ids, may be NULL. */
Status captions_json(const Captions *c, const EvalSet *e, const int64_t *ids, char **text, size_t *len);
/* The same as a table: image,caption. */
Status captions_csv(const Captions *c, const EvalSet *e, char **text, size_t *len);
Status references_json(const EvalSet *e, const int64_t *ids, char **text, size_t *len);
