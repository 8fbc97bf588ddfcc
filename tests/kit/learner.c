/* learner: see learner.h. */
#include "tests/kit/learner.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

Status learner_update(Trainer *t, const AdamSpec *a, double lr, int64_t number, const ParamTensor **bad) {
    Status st = optim_norm(t->params, t->scratch, a->clip, t->norm);
    if (st == OK) st = optim_update(t->params, t->scratch, a, lr, number);
    t->b->fetch_wait();
    optim_end(t->params, isfinite(*t->norm), bad);
    return st == OK ? t->b->status() : st;
}

/* A piece at a time: a store can be larger than the host's memory. */
Status learner_checksum(const Lm *m, uint64_t *sum) {
    enum { PIECE = 1 << 20 };
    size_t bytes = (size_t)m->params.total * (size_t)dtype_size(m->b->elem);
    unsigned char *part = mem_new(PIECE, 1);
    if (!part) return ERR_MEMORY;
    *sum = HASH_START;
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        m->b->download(part, (const char *)m->params.copy + at, n);
        *sum = hash_bytes(*sum, part, n);
    }
    free(part);
    return m->b->status();
}
