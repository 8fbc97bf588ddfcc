/* tape_inner: what the tape's own files share. */
#pragma once
#include "kernels/tape.h"

/* Room for one more behind the n of *(T **)list, which has *cap and doubles: a step's lists are as long as the last
 * step's, so they keep their room. Without memory the tape stops executing (and records nothing more). */
bool tape_room(Tape *t, void *list, int n, int *cap, size_t size);
Grad *tape_grad_made(Tape *t, int64_t rows, int64_t cols, DType dt);     /* of no list yet */
bool tape_grad_born(Tape *t, Grad *g);       /* its life begins here: the walk frees it when it comes by */
