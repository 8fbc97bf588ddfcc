/* annotation_store: what was found so far, and how the readers of forms hand over more. Private to annotations. */
#pragma once
#include <stdio.h>

#include "data/format/json.h"
#include "data/make/annotation_names.h"
#include "data/make/annotations.h"
#include "kernels/base/strmap.h"

/* While reading, captions form one list in file order, each with the number of its image; annotations_finish sorts it
 * by counting. Strings are copied into blocks that live as long as the Annotations. */
struct AnnotationStore {
    struct AnnotationBlock *blocks;
    StrMap by_image;                                /* name of an image to its index */
    struct { int64_t image; const char *text; } *caption;   /* (ncaptions), file order */
    const char **sorted;                            /* (ncaptions), by image; after finish */
    /* questions without answers yet (questions.h): id to index */
    StrMap by_question;
    size_t nquestions;
    struct { const char *image, *text; } *question;
    /* of the file being read */
    AnnotationFile current;
    const char *file, *split, *file_split;          /* base name; the caller's split; the one the name says; or NULL */
    int64_t file_texts;                             /* captions, blank ones too */
};

Status annotation_open(Annotations *a, const AnnotationFile *f);       /* begins a file */
void annotation_store_free(struct AnnotationStore *s);                 /* accepts NULL */

/* The index of an image, new or known. `split` NULL: the file's. ERR_FORMAT: no name, or in another split already. */
Status annotation_image(Annotations *a, const char *image, const char *split, int64_t *index);

/* "./a//b/../c" is "a/c", and so is ".\\a\\c": two spellings of one picture would be two images. to: strlen(name) + 1.
 */
void annotation_tidy(char *to, const char *name);

/* A caption of it; a blank one is counted and dropped. */
Status annotation_caption(Annotations *a, int64_t index, const char *text);

/* A caption field that may hold a list: ["one", 'two']. */
Status annotation_captions(Annotations *a, int64_t index, const char *text);

const char *annotation_keep(Annotations *a, const char *s); /* a copy that lives as long as `a`; NULL: memory */
const AnnotationColumns *annotation_columns(const Annotations *a);     /* of the file being read; never NULL */

/* How well a column called `name` serves the role, by what the user named or by the usual names. */
int annotation_fits(const Annotations *a, enum AnnotationRole role, const char *name);

/* Calls fn for each entry of a document's list, and says in which one it failed. */
typedef Status AnnotationEntryFn(Annotations *a, const Json *entry, void *ctx);
Status annotation_each(Annotations *a, const Json *doc, const char *list, AnnotationEntryFn *fn, void *ctx);

/* The readers. Errors name the file and the place. */
Status annotation_json(Annotations *a, const char *text, size_t n, const char *name);
Status annotation_table(Annotations *a, const char *text, size_t n, const char *name);

/* The captions of an object that lies beside a picture; none is no error. */
Status annotation_object(Annotations *a, int64_t index, const char *text, size_t n, const char *name);
