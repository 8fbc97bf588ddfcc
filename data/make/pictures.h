/* pictures: where the pictures of a set lie, and which there are when nobody has listed them.
 *
 * Called by extract (and by whoever wants pictures by name). Pictures lie in folders, in tar archives, or alone,
 * several with commas between; archives are not unpacked (tar.h). A folder of archives stands for them, and so do
 * {00000..00031}.tar and other patterns, which no shell has to expand. The one idea: a picture is a name, and this
 * finds its bytes: in each folder in turn, or among the members of the archives. A name without an ending is also
 * tried with the usual ones, and a number as COCO writes it (391895: 000000391895.jpg, COCO_val2014_000000391895.jpg),
 * since lists of captions often have just keys. A name that is nowhere is tried without what "%20" stands for, and
 * then without its first folders one by one: lists carry the paths of the machine that made them
 * (/data/coco/train2014/x.jpg).
 *
 * Without annotation files all pictures are listed, and their captions come from, in this order,
 *
 *     folder_caption                            a text in which {} becomes the name of the picture's folder: classes
 *     metadata.jsonl (.json .csv .tsv)          in a folder, which then says what belongs to it: imagefolder's
 *     NAME.txt, NAME.caption or NAME.json       beside NAME.jpg: img2dataset's, webdataset's
 *     nowhere                                   images without captions
 *
 * The split of a picture is what a folder on the way, or the archive's name, says (annotation_split_in). Names of
 * members that several archives have get the archive's name in front. */
#pragma once
#include <stdint.h>

#include "data/format/image.h"
#include "data/make/annotations.h"

typedef struct Pictures Pictures;

/* in: "" finds names as they stand. ERR_IO, ERR_FORMAT name the folder or archive. */
Status pictures_open(Pictures **p, const char *in);
void pictures_close(Pictures *p);                          /* accepts NULL */

int64_t pictures_places(const Pictures *p);                /* folders and archives */
/* what names of its pictures begin with; NULL for an archive */
const char *pictures_root(const Pictures *p, int64_t i);

/* Enters all pictures. folder_caption NULL or "": captions as above. ERR_FORMAT: there are none. */
Status pictures_list(Pictures *p, Annotations *a, const char *folder_caption);

typedef struct {
    char *path;                    /* the file, or the archive. free() it */
    const void *archive, *member;  /* private; NULL: a file */
    bool otherwise;                /* the name itself is nowhere, the picture lies under one like it */
} PicturePlace;

/* ERR_IO: "NAME: No such file or directory", or that it lies in none of the archives. By several threads at a time. */
Status pictures_find(const Pictures *p, const char *name, PicturePlace *place);
Status pictures_read(const PicturePlace *place, const char *name, bool upright, Image *im); /* upright: as EXIF says */

/* Adds to *h what file it is: two runs over the same pictures get the same number (fingerprint.h). */
Status pictures_fingerprint(const PicturePlace *place, uint64_t *h);

/* Whether two places are one file under two names (links), by device and number. */
typedef struct { uint64_t device, file; int64_t at; } PictureIdentity;
PictureIdentity pictures_identity(const PicturePlace *place);
