/* gallery: a few queries of a retrieval with their best hits, some that went well and some that did not. Called by the
 * report.
 *
 * From the ranked lists that `qformer retrieval` wrote (retrieval.jsonl), or from a Retrieval in memory. Which ones:
 * of those whose true partner came first, some at even distances through the split; of the others, those whose partner
 * came last. So nobody's taste chooses. Does not draw. */
#pragma once
#include "eval/evalset.h"
#include "eval/retrieval.h"

enum { GALLERY_EACH = 4, GALLERY_TOP = 5 };
enum { ASKS_IMAGE, ASKS_TEXT, ASKS };                 /* the query: an image looks for texts, a text for images */
enum { WENT_WELL, WENT_WRONG, OUTCOMES };

typedef struct {
    int64_t image;
    char *text;
    bool own;
    double score;
} GalleryHit; /* image: number in the set, -1: unknown */

typedef struct {
    int64_t image, rank;                /* number in the set or -1; from 0 */
    char *text;                         /* the caption, or the image's name */
    int n;
    GalleryHit hit[GALLERY_TOP];
} GalleryQuery;

typedef struct {
    GalleryQuery query[ASKS][OUTCOMES][GALLERY_EACH];
    int n[ASKS][OUTCOMES];
    int64_t queries[ASKS], first[ASKS]; /* all of them; those whose partner came first */
} Gallery;                              /* starts as {0} */

Status gallery_from_file(Gallery *g, const char *path, const Set *set /* NULL: none at hand */);
Status gallery_from_retrieval(Gallery *g, const Retrieval *r, const EvalSet *e);
void gallery_close(Gallery *g);
