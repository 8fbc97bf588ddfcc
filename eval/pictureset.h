/* pictureset: pictures as a data set that lasts as long as a command: photo.jpg, a folder, a tar archive, several with
 * commas, in place of a set, for caption, match, embed, classify.
 *
 * Called by use.c when the data named are no set. The image encoder (extract.encoder, or the patches that the run was
 * trained on) writes one shard into a temporary file, which is opened and unlinked at once: whoever reads a set reads
 * pictures, with the same checks that they were made by the encoder the model was trained on. */
#pragma once
#include "checkpoints/origin.h"
#include "configs/options.h"
#include "data/set.h"
#include "kernels/backend.h"

/* Whether it names pictures: an existing file or folder (several with commas) that is no shard,
 * manifest, or folder of them. */
bool pictureset_is(const char *path);

/* ERR_USAGE: nobody says which encoder, or several processes ask. */
Status pictureset_open(Set **set, const Options *o, const Origin *g, const Backend *b, const char *path);
