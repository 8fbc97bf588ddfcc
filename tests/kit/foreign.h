/* foreign: shards as somebody else's program would lay them out; made by HDF5 itself, not by data/format/h5.c. */
#pragma once
#include <hdf5.h>

#include "tests/kit/set_fixture.h"

/* Gives the features of a shard another layout: chunks of so many rows and tokens, deflated or not. */
void foreign_layout(const char *path, hsize_t rows, hsize_t tokens, bool deflate);
