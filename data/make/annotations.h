/* annotations: which images there are, which captions belong to each, and in which split it is.
 *
 * Called by extraction and import, before anything is computed. The one idea: whatever the file looks like, what comes
 * out is a list of images in order of first mention, each with all its captions in file order. The form is found by
 * looking at the content, not at the name (annotation_json.c and annotation_table.c have a table of forms each):
 *
 *   JSON, a list of entries or an entry a line (JSON Lines), or such a list as a member (TextCaps, MiniGPT-4), or one a
 * split
 *     {"image", "caption": "..." or ["...", ...]}     LAVIS; metadata.jsonl, img2dataset, LAION under their names
 *     {"image", "conversations": [{from, value}]}     LLaVA: what "gpt" says first
 *     "x.jpg" or ["x.jpg", "..."]                     names alone, pairs
 *   JSON, a document
 *     {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}        COCO, NoCaps; without the
 * second: images alone
 *     {"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}            Karpathy
 *     {"x.jpg": "..." or ["...", ...]}; {"image": [...], "caption": [...]}               a map; columns
 *   a table with a header, separated by comma, semicolon, tab or bar; columns image, caption and maybe split
 *   a table without one: NAME#0<tab>caption (Flickr8k, Flickr30k), NAME,caption, or NAME alone
 *
 * Entries that ask something (VQAv2, GQA, OK-VQA, LLaVA, {image, question, answers}, {image, text_input, text_output},
 * a table with columns question and answer) give texts that settext.h takes apart: questions.h.
 *
 * Columns and members go by any of the names in annotation_names.c, whatever their case, blanks and underscores; or by
 * those that AnnotationColumns gives. Files may be packed by gzip, begin with a byte order mark, or be UTF-16
 * (textfile.h).
 *
 * An entry's own "split" counts, unless the caller names one for the whole file; without either, a word in the file's
 * name (train, val, test) decides, and then "train", or for a list of images what a folder on the way says, else
 * "test". Words mean the same everywhere: Validation, dev and val2014 are "val". An image in two splits is an error: it
 * would leak. Names are compared and kept without "./", "//" and "a/../".
 *
 * Captions that are empty or blank are dropped and counted, and so are images that end up without any; but a file that
 * has no captions at all is a list of images, which are kept. Errors name the file, and the line or the entry (counted
 * from 1). Texts must be UTF-8 without NUL bytes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    const char *image;             /* as the file names it, relative to the folder of images */
    const char *split;             /* "train", "restval", "val", "test", ... */
    const char *file;              /* base name of the annotation file that mentioned it first */
    bool bare;                     /* of a file without captions: kept without one */
    bool unsaid;                   /* nothing says its split */
    int64_t ncaptions;
    const char *const *captions;   /* valid after annotations_finish */
} AnnotatedImage;

typedef struct {
    AnnotatedImage *images;        /* (count) */
    int64_t count, ncaptions;
    int64_t blank;                 /* captions dropped */
    int64_t uncaptioned;           /* images dropped by annotations_finish */
    int64_t imageless;             /* entries that are about no image (LLaVA has such conversations) */
    struct AnnotationStore *store; /* private */
} Annotations;                     /* starts as {0} */

/* What columns (members) are called; NULL or "": by a usual name. A number, from 1, is a column of a table that has no
 * header. caption "none": the file lists images. */
typedef struct {
    const char *image, *caption, *split;
    char separator;                /* of tables; 0: found by looking */
    bool questions;                /* conversations are questions, turn by turn, not captions */
} AnnotationColumns;

typedef struct {
    const char *path;
    const char *split;             /* NULL or "": the file's own */
    const char *root;              /* put in front of image names; NULL or "": nothing */
    const AnnotationColumns *columns;          /* NULL: the usual names */
} AnnotationFile;

/* Adds one file. After an error `a` can only be freed. */
Status annotations_add(Annotations *a, const AnnotationFile *file);

/* The same from memory; file->path is a name for messages. */
Status annotations_add_text(Annotations *a, const char *text, size_t n, const AnnotationFile *file);

/* Images without an annotation file. `source` (a folder, an archive) must stay the same pointer for its images; `split`
 * NULL: a folder on the way called train or val says it, else "train" if captions follow (`captioned`), else "test". A
 * picture that is not captioned is kept without. */
Status annotations_add_image(Annotations *a, const char *image, const char *split, bool captioned, const char *source,
                             int64_t *index);

/* A caption of image `index`, or what lies beside a picture: a text with one a line, or an object with a caption in it.
 */
Status annotations_add_caption(Annotations *a, int64_t index, const char *text);
Status annotations_add_lines(Annotations *a, int64_t index, const char *text, size_t n);
Status annotations_add_object(Annotations *a, int64_t index, const char *json, size_t n, const char *name);

/* Call once, after the last file: sets the captions of every image, drops images without (bare ones are kept). Error:
 * ERR_FORMAT when no image is left. */
Status annotations_finish(Annotations *a);

/* All files, then annotations_finish. Frees `a` on failure. */
Status annotations_load(Annotations *a, const AnnotationFile *files, size_t n);

/* The same, for whoever wants the captions and has no use for images alone: ERR_FORMAT when there are none. */
Status annotations_load_captions(Annotations *a, const AnnotationFile *files, size_t n);

int64_t annotations_find(const Annotations *a, const char *image);    /* index after finish; -1 */
void annotations_free(Annotations *a);                                /* leaves {0} */
