/* join: gradients summed over ranks, layer by layer beside the walk back where the device can, else at its end.
 *
 *     join_begin     before a walk back
 *     join_place     (a PassedFn, ctx the Join) the walk back over a Q-Former has come by a place: the gradients of
 *                    that layer are finished, and all behind it
 *     join_end       when all are; waits, or lets compute wait
 *
 * Means were taken over the global batch already. Sharded parameters: the optimizer wants no more than its part. */
#pragma once
#include "kernels/model/params.h"

typedef struct {
    const Params *p;
    bool half, measuring;               /* bf16 on the wire; nothing is sent */
    int64_t lo, hi;                     /* gradients [lo, hi) are being summed already; 0, 0: none */
} Join;

void join_begin(Join *j, const Params *p, bool half, bool measuring);
bool join_beside(const Join *j);        /* whether they are summed beside the walk back */
void join_place(void *join, int place);
Status join_end(Join *j);
