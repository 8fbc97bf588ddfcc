/* staging: lists that are made on the host and read by the device: taken piece by piece, filled, sent in one copy.
 * Where the host's memory is the device's nothing moves. Reused step after step; who opens it says how many bytes will
 * be taken, by staging_bytes: memory is known before anything runs, so one list more than was said is a bug. */
#pragma once
#include "kernels/arena.h"

typedef struct {
    const Backend *b;
    char *host, *device;                /* the same when the backend is unified */
    size_t size, used, sent;            /* sent: what the device has already */
    bool plain;                         /* host memory from malloc: when measuring */
} Staging;

size_t staging_bytes(int64_t count, size_t size);           /* that staging_take takes */

/* The device's side from `run`. */
Status staging_open(Staging *s, const Backend *b, Arena *run, size_t bytes);
void staging_close(Staging *s);
void staging_reset(Staging *s);
void *staging_take(Staging *s, size_t count, size_t size);  /* host memory: fill it, send it, name it to a kernel */
void *staging_device(const Staging *s, const void *host);   /* the same place on the device */
void *staging_host(const Staging *s, const void *device);   /* and back */
void staging_upload(Staging *s);        /* what was taken since the last time; memory stays until staging_reset */
