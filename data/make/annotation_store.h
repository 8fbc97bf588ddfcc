/* annotation_store: how the readers of forms hand over what they find. Private to annotations. */
#ifndef QF_ANNOTATION_STORE_H
#define QF_ANNOTATION_STORE_H
#include <stdio.h>

#include "data/make/annotation_names.h"
#include "data/make/annotations.h"

/* The index of an image, new or known. `split` NULL: the file's. ERR_FORMAT: no name, or in another split already. */
Status annotation_image(Annotations *a, const char *image, const char *split, int64_t *index);

/* A caption of it; a blank one is counted and dropped. */
Status annotation_caption(Annotations *a, int64_t index, const char *text);

/* A caption field that may hold a list: ["one", 'two']. */
Status annotation_captions(Annotations *a, int64_t index, const char *text);

const char *annotation_keep(Annotations *a, const char *s); /* a copy that lives as long as `a`; NULL: memory */
const AnnotationColumns *annotation_columns(const Annotations *a);     /* of the file being read; never NULL */

/* How well a column called `name` serves the role, by what the user named or by the usual names. */
int annotation_fits(const Annotations *a, enum AnnotationRole role, const char *name);

/* The readers. Errors name the file and the place. */
Status annotation_json(Annotations *a, const char *text, size_t n, const char *name);
Status annotation_table(Annotations *a, const char *text, size_t n, const char *name);

#endif
