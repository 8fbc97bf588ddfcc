/* events: TensorBoard event files of scalars.
 *
 * Called by train/log.c. The format is small enough to write by hand: a file of records, each
 *
 *     length u64 | masked crc32c of the length u32 | protobuf message Event | masked crc32c of the message u32
 *
 * little endian, masked crc = rotr(crc, 15) + 0xa282ead8 (TensorFlow: lib/io/record_writer, util/event.proto). An Event
 * is wall_time (1, double), step (2, varint) and one of file_version (3, string), summary (5), session_log (7).
 *
 * A run that goes on writes a new file which opens with a session_log START at its first step: TensorBoard then
 * forgets what earlier files say of that step and later ones, so that curves do not double. Does not write images. */
#pragma once
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct Events Events;

typedef struct { const char *tag; double value; } EventScalar;

/* A new file in the folder `dir`, which exists. `first_step` is the first step that this run will write. */
Status events_open(Events **e, const char *dir, int64_t first_step);

/* n scalars of one step as one record, flushed to the file. ERR_IO names the file. */
Status events_scalars(Events *e, int64_t step, double wall_time, const EventScalar *scalars, int n);
void events_close(Events *e);                  /* accepts NULL */
