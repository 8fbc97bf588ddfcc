/* gold_plain: an image encoder written down plainly in double, every result rounded to bf16: what one gets from the
 * usual modules in bf16. Its distance from the float64 reference is the yardstick of ours in bf16. */
#pragma once
#include "kernels/model/vit.h"

/* pixels (images, 3, height, width), normalised. Result (images P, E), from malloc; NULL: no memory. round false: no
 * rounding at all. */
double *gold_plain(const Vit *v, const float *pixels, int images, int blocks, bool normed, bool round);
