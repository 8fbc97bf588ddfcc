/* twins: images that stand twice in a set under different names: their features are the same to the last bit.
 *
 * Called by verify, and by extract and import when a set is made. A copy of a training picture in the test split makes
 * every figure of it a lie. Found by the CRCs of rows, which are in memory;
 * only rows whose CRCs agree are read and compared. */
#pragma once
#include <stdint.h>

#include "data/shard.h"

typedef struct {
    int64_t images;            /* that repeat one before them, of the same split */
    int64_t leaks;             /* and of another split */
    char first[600];           /* "a (train) and b (test)": of a leak if there is one */
} Twins;

/* Of the n shards, of one kind. Shards without CRCs and rows of zeros are passed over. */
Status twins_find(const Shard *const *shard, int64_t n, Twins *t);

/* The same of a data set by its path. */
Status twins_of(const char *path, Twins *t);
