/* dims: the sizes of a model, under the letters of DESIGN.md. */
#pragma once
#include <stdint.h>

typedef struct {
    int32_t L, C, H, F;                 /* layers, hidden, heads, feed-forward */
    int32_t Q, E, P, Z;                 /* queries, image width, image tokens, projection */
    int32_t V, N, X;                    /* vocabulary with [DEC], positions, cross-attention where layer % X == 0 */
    int32_t W;                          /* stage 2: width of the language model's word vectors; else 0 */
    /* scales that an image's features may have: 1 (0 counts as 1), or P: one a token */
    int32_t S;
    int32_t T;                          /* word pieces a caption keeps, [CLS] and [SEP] included */
    int32_t pad, cls, sep, dec;         /* ids */
    float eps, eps_vision;              /* of the norms inside, and of ln_vision; 0: as published, below */
    int32_t act;                        /* ActKind of the feed-forward nets; 0 is the published one */
} Dims;

static inline float dims_eps(const Dims *d) { return d->eps > 0 ? d->eps : 1e-12f; }
static inline float dims_eps_vision(const Dims *d) { return d->eps_vision > 0 ? d->eps_vision : 1e-5f; }

static inline int dims_scales(const Dims *d) { return d->S > 1 ? d->S : 1; }
static inline int dims_cross_layers(const Dims *d) { return (d->L + d->X - 1) / d->X; }
static inline int dims_is_cross(const Dims *d, int layer) { return layer % d->X == 0; }
