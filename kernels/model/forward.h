/* forward: what a model works with that only goes forward: its memory, measured first, a tape and lists for the device.
 *
 * Whoever lets a model work holds one (encoders, text head, visual rows, decoder, attention maps) and gives two
 * functions:
 *
 *     take(self)     what lives as long as `self`, from `fixed`: caches, room for features, the lists (staging_open)
 *     largest(self)  the largest passes there will be, on a tape that exists
 *
 * Opening calls both on the null backend, where they only count, and take once more on the memory that was counted. So
 * self's pointers are those of the last call, and nothing a pass needs can be missing later. */
#pragma once
#include "kernels/model/staging.h"
#include "kernels/tape.h"

typedef struct {
    const Backend *b;
    Arena fixed, mem;                   /* as long as it is open; a pass's activations */
    Tape tape;
    Staging room;
    void *passes;                       /* what Backend.repeat keeps */
} Forward;

typedef Status ForwardFn(void *self);

/* `name` is for messages ("encoder's"). `f` is part of `self`. Closed by forward_close, also when this fails. */
Status forward_open(Forward *f, const Backend *b, const char *name, ForwardFn *take, ForwardFn *largest, void *self);
void forward_close(Forward *f);                             /* accepts one that is zero */
void forward_begin(Forward *f);                             /* a pass: neither tensors nor lists of the one before */

/* Backend.repeat of a pass or of the rest of one. The key is all that its launches depend on. The tensors that it takes
 * are nobody's afterwards. */
void forward_repeat(Forward *f, uint64_t key, EnqueueFn *enqueue, void *ctx);
