/* annotations: which images there are, which captions belong to each, and in which split it is.
 *
 * Called by extraction and import, before anything is computed. The one idea: whatever the file looks like, what comes
 * out is a list of images in order of first mention, each with all its captions in file order. The form is found by
 * looking at the content, not at the name:
 *
 *   [{"image", "caption": "..."}, ...]            LAVIS training form, an entry a caption; other keys are ignored
 *   [{"image", "caption": ["...", ...]}, ...]     LAVIS evaluation form, an entry an image; also mixed with the above
 *   {"image": ...} a line                         the same entries as JSON Lines
 *   {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}        COCO captions
 *   {"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}            Karpathy
 *   CSV or TSV (told by a tab in the first line) with a header; columns image, caption and maybe split;
 *     fields may be quoted as RFC 4180 has it; image_name, file_name, filename, filepath, title, text do as names
 *
 * An entry's own "split" counts, unless the caller names one for the whole file; without either, a word in the file's
 * name (train, val, test) decides, and then "train". An image in two splits is an error: it would leak.
 *
 * Captions that are empty or blank are dropped and counted, and so are images that end up without any.
 * Errors name the file, and the line or the entry (counted from 1). Texts must be UTF-8 without NUL bytes. */
#ifndef QF_ANNOTATIONS_H
#define QF_ANNOTATIONS_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    const char *image;             /* as the file names it, relative to the folder of images */
    const char *split;             /* "train", "restval", "val", "test", ... */
    const char *file;              /* base name of the annotation file that mentioned it first */
    int64_t ncaptions;
    const char *const *captions;   /* valid after annotations_finish */
} AnnotatedImage;

typedef struct {
    AnnotatedImage *images;        /* (count) */
    int64_t count, ncaptions;
    int64_t blank;                 /* captions dropped */
    int64_t uncaptioned;           /* images dropped by annotations_finish */
    struct AnnotationStore *store; /* private */
} Annotations;                     /* starts as {0} */

/* Adds one file. `split` NULL or "": the file's own. After an error `a` can only be freed. */
Status annotations_add(Annotations *a, const char *path, const char *split);

/* The same from memory, all forms but JSON Lines; `name` stands for the path. */
Status annotations_add_text(Annotations *a, const char *text, size_t n, const char *name, const char *split);

/* Call once, after the last file: sets the captions of every image, drops images without. Error: ERR_FORMAT when no
 * image is left. */
Status annotations_finish(Annotations *a);

/* All files, then annotations_finish. Frees `a` on failure. */
typedef struct { const char *path, *split; } AnnotationFile;
Status annotations_load(Annotations *a, const AnnotationFile *files, size_t n);

int64_t annotations_find(const Annotations *a, const char *image);    /* index after finish; -1 */
void annotations_free(Annotations *a);                                /* leaves {0} */

#endif
