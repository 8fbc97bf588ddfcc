/* setout: where a data set is written to: one shard (x.h5), or a folder of set-00000.h5, set-00001.h5, ... and
 * manifest.json.
 *
 * Called by extract, import, repack and synth. The one rule about what is there already, whoever made it:
 *     a shard that was made from the same files with the same options is kept (shard_difference), nothing is computed
 *     any other is refused, unless `overwrite`: then it is replaced, and leftovers of a larger set in the folder go
 *     an unfinished shard (.part) of the same request goes on, of another one begins anew
 * and each of these is said on the terminal. The manifest lists the shards of this request, not what else is there. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "data/shard_write.h"

typedef struct {
    const char *out;
    bool overwrite, folder;
    bool quiet;                    /* set before opening: another rank lists the shards and speaks */
    int64_t shards, kept;          /* of this request; found complete */
    char **name;                   /* (shards) files in the folder; of one shard: `out` itself */
} SetOut;

/* Whether `out` names one shard: it ends in .h5. */
bool setout_is_file(const char *out);

/* Makes the folder. ERR_USAGE: it holds shards of a larger set, and not `overwrite`. */
Status setout_open(SetOut *s, const char *out, int64_t shards, bool overwrite);

/* Opens shard k for writing. OK with *w NULL: it is there already. ERR_USAGE: another one is. */
Status setout_shard(SetOut *s, int64_t k, ShardSpec *spec, ShardWriter **w);

/* With st OK: writes the manifest of a folder, says what was kept. Frees in any case; returns st or its own failure. */
Status setout_close(SetOut *s, Status st);
