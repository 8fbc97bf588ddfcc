/* arena: memory by lifetime. A pointer's lifetime is the arena it came from: the run's (parameters, optimizer state),
 * the step's (activations, gradients of activations), the op's (scratch; mark and reset inside one op).
 *
 * A measuring arena has no memory: it hands out addresses that must not be used and only counts. One step on a
 * measuring arena and the null backend tells exactly what a real step will need. An arena that runs full turns into a
 * measuring one (`full` is set, the caller ends the step with a sentence): nothing is ever written past its end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/backend.h"

typedef struct {
    const char *name;
    char *base;
    size_t size, used, peak;            /* bytes */
    bool measuring, full;
} Arena;

Status arena_open(Arena *a, const char *name, const Backend *b, size_t bytes);
void arena_measure(Arena *a, const char *name);             /* an arena that only counts */
void arena_close(Arena *a, const Backend *b);
void *arena_push(Arena *a, size_t count, size_t size);      /* aligned to 256 */
static inline size_t arena_mark(const Arena *a) { return a->used; }
static inline void arena_reset(Arena *a, size_t mark) { a->used = mark; }

/* A pool hands out blocks of an arena region and takes them back in any order: first fit, neighbours merge. Gradients
 * of activations live in one; at most POOL_MAX blocks at a time, which a step's depth bounds. pool_take gives NULL when
 * the arena has no room behind the blocks: holes depend on sizes in no monotonic way, so a smaller batch than the one
 * that was measured may want a little more. */
enum { POOL_MAX = 256 };
typedef struct { size_t at, bytes; bool free; } PoolBlock;
typedef struct { Arena *arena; size_t start; int n; PoolBlock block[POOL_MAX]; } Pool;

void pool_open(Pool *p, Arena *a);                          /* the region begins at the arena's present end */
void *pool_take(Pool *p, size_t count, size_t size);
void pool_give(Pool *p, void *ptr);                         /* NULL is fine */
