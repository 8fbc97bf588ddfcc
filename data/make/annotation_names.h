/* annotation_names: the words by which people call the columns of captions, and their splits. Private to annotations.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum AnnotationRole { ROLE_IMAGE, ROLE_CAPTION, ROLE_SPLIT, ROLE_OTHER, ROLES };

enum { NO_RANK = 1 << 20 };

/* How well a column (member) of this name serves the role: 0 best; NO_RANK not at all. ROLE_OTHER: names that are known
 * to be neither image nor caption (id, width, url, ...). Case, blanks, '_' and '-' do not count; digits at the end are
 * ignored for captions (caption1, caption_2). */
int annotation_rank(enum AnnotationRole role, const char *name);

bool annotation_name_equal(const char *a, const char *b);      /* the same letters and digits, in any case */
bool annotation_is_picture(const char *name);                  /* ends in .jpg, .png, .webp, ... */

/* "Validation", "dev", "val2014" -> "val"; "Train" -> "train"; others as they are. */
const char *annotation_split_word(const char *word);

/* The split that a word within a name says ("captions_val2014.json", "x/train/1.png"); NULL when none does. */
const char *annotation_split_in(const char *name);
const char *annotation_split_on_way(const char *name);         /* the same of its folders alone */
