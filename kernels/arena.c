/* arena: see arena.h. */
#include "kernels/arena.h"

#include <stdint.h>

#include "kernels/base/mem.h"

enum { ALIGN = 256 };

/* Where a measuring arena pretends to be: not NULL, and never mapped. */
static char *const NOWHERE = (char *)(uintptr_t)ALIGN;

Status arena_open(Arena *a, const char *name, const Backend *b, size_t bytes) {
    *a = (Arena){.name = name, .size = bytes};
    void *p = NULL;
    Status st = b->alloc(&p, bytes ? bytes : 1);
    if (st != OK) return err_context(st, "the %s memory of %.2f GiB", name, (double)bytes / (1 << 30));
    a->base = p;
    return OK;
}

void arena_measure(Arena *a, const char *name) {
    *a = (Arena){.name = name, .base = NOWHERE, .size = SIZE_MAX / 2, .measuring = true};
}

void arena_close(Arena *a, const Backend *b) {
    if (a->base && !a->measuring) b->release(a->base);
    *a = (Arena){0};
}

static size_t rounded(size_t count, size_t size) {
    size_t n = 0;
    BUG_ON(!mem_mul(count, size, &n) || n > SIZE_MAX / 4, "arena: %zu x %zu bytes", count, size);
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static void *arena_take(Arena *a, size_t bytes) {
    /* it stays full: what came after would lie on what is thought to be there */
    if (!a->full && bytes > a->size - a->used) a->full = true;
    char *p = a->full ? NOWHERE : a->base + a->used;
    a->used += bytes; /* beyond the size, too: the peak then says what would have been enough */
    if (a->used > a->peak) a->peak = a->used;
    return p;
}

void *arena_push(Arena *a, size_t count, size_t size) { return arena_take(a, rounded(count, size)); }

static bool has_room(const Arena *a, size_t bytes) {
    return a->measuring || (!a->full && bytes <= a->size - a->used);
}

void pool_open(Pool *p, Arena *a) { *p = (Pool){.arena = a, .start = a->used}; }

void *pool_take(Pool *p, size_t count, size_t size) {
    size_t bytes = rounded(count, size);
    if (!bytes) bytes = ALIGN; /* a block of nothing still has a place: it is given back by its address */
    for (int i = 0; i < p->n; i++) {
        PoolBlock *b = &p->block[i];
        if (!b->free || b->bytes < bytes) continue;
        if (b->bytes > bytes && p->n < POOL_MAX) {           /* split: the rest stays free behind it */
            for (int j = p->n; j > i + 1; j--) p->block[j] = p->block[j - 1];
            p->block[i + 1] = (PoolBlock){b->at + bytes, b->bytes - bytes, true};
            b->bytes = bytes;
            p->n++;
        }
        b->free = false;
        return p->arena->base + b->at;
    }
    BUG_ON(p->n == POOL_MAX, "pool: more than %d blocks", POOL_MAX);
    if (p->n && p->block[p->n - 1].free) {                   /* grow the free block at the end */
        PoolBlock *b = &p->block[p->n - 1];
        if (!has_room(p->arena, bytes - b->bytes)) return NULL;
        arena_take(p->arena, bytes - b->bytes);
        *b = (PoolBlock){b->at, bytes, false};
        return p->arena->base + b->at;
    }
    if (!has_room(p->arena, bytes)) return NULL;
    p->block[p->n++] = (PoolBlock){p->arena->used, bytes, false};
    size_t at = p->arena->used;
    arena_take(p->arena, bytes);
    return p->arena->base + at;
}

void pool_give(Pool *p, void *ptr) {
    if (!ptr) return;
    size_t at = (size_t)((char *)ptr - p->arena->base);
    for (int i = 0; i < p->n; i++) {
        if (p->block[i].at != at || p->block[i].free) continue;
        p->block[i].free = true;
        for (int k = i > 0 ? i - 1 : 0; k + 1 < p->n && k <= i;) {   /* merge with free neighbours */
            if (!p->block[k].free || !p->block[k + 1].free) { k++; continue; }
            p->block[k].bytes += p->block[k + 1].bytes;
            for (int j = k + 1; j + 1 < p->n; j++) p->block[j] = p->block[j + 1];
            p->n--;
            i--;
        }
        return;
    }
    BUG_ON(1, "pool: a block was given back that is not out");
}
