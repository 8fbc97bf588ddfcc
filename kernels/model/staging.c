/* staging: see staging.h. */
#include "kernels/model/staging.h"

#include <stdlib.h>

#include "kernels/base/mem.h"

enum { ALIGN = 64 };                    /* each list begins on a line of the cache, for wide loads */

size_t staging_bytes(int64_t count, size_t size) { return ((size_t)count * size + ALIGN - 1) / ALIGN * ALIGN; }

Status staging_open(Staging *s, const Backend *b, Arena *run, size_t bytes) {
    void *host = NULL;
    *s = (Staging){.b = b, .size = bytes};
    s->plain = run->measuring;          /* the null backend has no memory, and the lists are real */
    Status st = s->plain ? ((host = mem_new(bytes, 1)) ? OK : ERR_MEMORY) : b->host_alloc(&host, bytes);
    if (st != OK) return st;
    s->host = host;
    s->device = b->unified ? s->host : arena_push(run, bytes, 1);
    return OK;
}

void staging_close(Staging *s) {
    if (s->plain) free(s->host);
    else if (s->host) s->b->host_release(s->host);
    *s = (Staging){0};
}

void staging_reset(Staging *s) { s->used = s->sent = 0; }

void *staging_take(Staging *s, size_t count, size_t size) {
    size_t bytes = staging_bytes((int64_t)count, size);
    BUG_ON(s->used + bytes > s->size, "staging: %zu bytes of %zu are taken, %zu more wanted", s->used, s->size, bytes);
    void *p = s->host + s->used;
    s->used += bytes;
    return p;
}

void *staging_device(const Staging *s, const void *host) { return s->device + ((const char *)host - s->host); }

void *staging_host(const Staging *s, const void *device) {
    return s->host + ((const char *)device - s->device);
}

void staging_upload(Staging *s) {
    if (!s->b->unified && s->used > s->sent) s->b->upload(s->device + s->sent, s->host + s->sent, s->used - s->sent);
    s->sent = s->used;
}
