/* forward: see forward.h. */
#include "kernels/model/forward.h"

void forward_begin(Forward *f) {
    tape_reset(&f->tape, false);
    staging_reset(&f->room);
}

typedef struct { Forward *f; size_t mark; EnqueueFn *enqueue; void *ctx; } Repeated;

/* A pass that is recorded is gone through a second time: its tensors must come to lie where they were. */
static void enqueue_at(void *ctx) {
    const Repeated *r = ctx;
    arena_reset(&r->f->mem, r->mark);
    r->enqueue(r->ctx);
}

void forward_repeat(Forward *f, uint64_t key, EnqueueFn *enqueue, void *ctx) {
    f->tape.b->repeat(&f->passes, key, enqueue_at, &(Repeated){f, arena_mark(&f->mem), enqueue, ctx});
}

static void drop(Forward *f) {
    if (f->b) f->b->forget(&f->passes);
    tape_close(&f->tape);
    staging_close(&f->room);
}

/* In place, not on a copy: what `take` stores in self is then always of the same Forward. */
static Status measure(Forward *f, const char *name, ForwardFn *take, ForwardFn *largest, void *self) {
    Backend null = backend_measuring(f->b);
    const Backend *own = f->b;
    f->b = &null;
    arena_measure(&f->fixed, name);
    arena_measure(&f->mem, name);
    Status st = tape_open(&f->tape, &null, &f->mem);
    if (st == OK) st = take(self);
    if (st == OK) st = largest(self);
    drop(f);
    f->b = own;
    return st;
}

Status forward_open(Forward *f, const Backend *b, const char *name, ForwardFn *take, ForwardFn *largest, void *self) {
    *f = (Forward){.b = b};
    Status st = measure(f, name, take, largest, self);
    size_t fixed = f->fixed.peak, mem = f->mem.peak;
    f->fixed = f->mem = (Arena){0};
    if (st == OK) st = arena_open(&f->fixed, name, b, fixed);
    if (st == OK) st = arena_open(&f->mem, name, b, mem);
    if (st == OK) st = tape_open(&f->tape, b, &f->mem);
    return st == OK ? take(self) : st;
}

void forward_close(Forward *f) {
    drop(f);
    if (f->b) {
        arena_close(&f->mem, f->b);
        arena_close(&f->fixed, f->b);
    }
    *f = (Forward){0};
}
