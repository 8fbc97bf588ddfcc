/* twins: see twins.h. */
#include "data/twins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/set.h"
#include "kernels/base/mem.h"

typedef struct { uint32_t crc; int64_t shard, image; } Entry;

static int by_crc(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->crc != y->crc) return x->crc < y->crc ? -1 : 1;
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1; /* then by place: the same sentence each time */
    return (x->image > y->image) - (x->image < y->image);
}

static void note(Twins *t, const Shard *a, int64_t i, const Shard *b, int64_t k) {
    const char *x = column_text(&a->split, i), *y = column_text(&b->split, k);
    bool leak = strcmp(x, y) != 0;
    if (leak ? !t->leaks : !t->leaks && !t->images)          /* a leak is what one must see first */
        snprintf(t->first, sizeof t->first, "%.200s (%.40s) and %.200s (%.40s)", column_text(&a->image_id, i), x,
                 column_text(&b->image_id, k), y);
    if (leak) t->leaks++;
    else t->images++;
}

/* Entries [from, to) have one CRC: those that are the first one again. */
static Status compare(const Shard *const *shard, const Entry *e, int64_t from, int64_t to, char *first, char *other,
                      Twins *t) {
    const Shard *s = shard[e[from].shard];
    Status st = shard_read(s, e[from].image * s->views, false, first);
    /* rows of zeros are all alike, and no picture */
    if (st != OK || (!first[0] && !memcmp(first, first + 1, s->row_bytes - 1))) return st;
    for (int64_t k = from + 1; k < to && st == OK; k++) {
        const Shard *o = shard[e[k].shard];
        st = shard_read(o, e[k].image * o->views, false, other);
        if (st == OK && !memcmp(first, other, s->row_bytes)) note(t, s, e[from].image, o, e[k].image);
    }
    return st;
}

Status twins_find(const Shard *const *shard, int64_t n, Twins *t) {
    int64_t images = 0, count = 0;
    *t = (Twins){0};
    for (int64_t s = 0; s < n; s++) images += shard[s]->images;
    if (!images) return OK;
    Entry *e = mem_new((size_t)images, sizeof *e);
    char *first = mem_new(shard[0]->row_bytes, 1), *other = mem_new(shard[0]->row_bytes, 1);
    Status st = e && first && other ? OK : ERR_MEMORY;
    for (int64_t s = 0; s < n && st == OK; s++)
        for (int64_t i = 0; shard[s]->crc && i < shard[s]->images; i++)
            /* by its first view: the others follow from it */
            e[count++] = (Entry){shard[s]->crc[i * shard[s]->views], s, i};
    if (st == OK) qsort(e, (size_t)count, sizeof *e, by_crc);
    for (int64_t from = 0, to; from < count && st == OK; from = to) {
        for (to = from + 1; to < count && e[to].crc == e[from].crc; to++) continue;
        if (to - from > 1) st = compare(shard, e, from, to, first, other, t);
    }
    mem_free(e, first, other);
    return st;
}

Status twins_of(const char *path, Twins *t) {
    Set *set = NULL;
    *t = (Twins){0};
    Status st = set_open(&set, path);
    const Shard **shard = st == OK ? mem_new((size_t)set_shards(set), sizeof *shard) : NULL;
    if (st == OK && !shard) st = ERR_MEMORY;
    for (int64_t k = 0; st == OK && k < set_shards(set); k++) shard[k] = set_shard(set, k, NULL);
    if (st == OK) st = twins_find(shard, set_shards(set), t);
    free(shard);
    set_close(set);
    return st;
}
