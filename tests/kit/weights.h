/* weights: small files of weights, from a text or from drawn numbers.
 *
 * A line "name=key,key:8,3,2,2" is a tensor made of the keys' numbers one behind the other, each of that shape. Numbers
 * follow from the key alone, so that one model can be written under several spellings; gains of norms ("...g") are
 * around 1, "one" is 1. */
#pragma once
#include "data/format/safetensors.h"

typedef struct { uint32_t s; } Lcg;
double lcg_draw(Lcg *r);                                    /* in -1..1 */

enum { WEIGHTS_MOST = 160 };
typedef struct { StTensor t[WEIGHTS_MOST]; size_t n; } Weights;

float *weights_add(Weights *w, const char *name, int ndim, const int64_t *shape);
void weights_save(Weights *w, const char *path);            /* and empties it */
void weights_fill(float *x, int64_t n, const char *key, size_t len);
void weights_text(const char *path, const char *text);
