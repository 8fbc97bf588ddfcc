/* slots: see slots.h. */
#include "kernels/model/slots.h"

Tensor slots_layer(const Slots *s, int32_t layer) { return tensor_rows(s->all, layer * slots_rows(s), slots_rows(s)); }

size_t slots_bytes(const Slots *s) { return 2 * staging_bytes((int64_t)s->layers * s->slots, sizeof(int32_t)); }

void slots_move(const Slots *s, Staging *room, int32_t at, const DecoderCopy *copies, int n) {
    int32_t moved = at ? s->layers * n : 0;                  /* before the first step there is no past */
    int32_t *from = staging_take(room, (size_t)moved, sizeof *from);
    int32_t *to = staging_take(room, (size_t)moved, sizeof *to);
    for (int32_t i = 0; i < moved; i++) {
        int32_t layer = i / n * (int32_t)slots_rows(s);
        from[i] = layer + slots_row(s, copies[i % n].from);
        to[i] = layer + slots_row(s, copies[i % n].to);
    }
    if (!moved) return;
    staging_upload(room);
    /* one run of memory each; no slot is both, so the order does not matter */
    room->b->copy_rows(s->all.data, s->all.ld, staging_device(room, to), s->all.data, s->all.ld,
                       staging_device(room, from), moved, at * s->all.cols, false);
}
