/* peak: how fast a backend multiplies, measured: what "share of peak" is a share of. */
#pragma once
#include "kernels/backend.h"

/* FLOP/s of (m,k) x (n,k)^T in the backend's type, the best of a few after one that pays for set-up; 0 when there is no
 * memory. Operands are random: on zeros a GPU draws less power and clocks higher (13 % on an H100). Uses the kernels'
 * scratch: after set_workspace. */
double peak_of_product(const Backend *b, int64_t m, int64_t n, int64_t k);

double peak_rate(const Backend *b);                 /* of a product so large that a launch does not count */
