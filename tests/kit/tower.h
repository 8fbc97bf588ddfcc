/* tower: what an image encoder of a file or folder makes of one image, on the CPU in f32. */
#pragma once
#include <stdbool.h>

/* Rows (*P, E) after `blocks` blocks, -1: all, of planar pixels (3, S, S); freed by the caller. */
float *tower_rows(const char *path, const float *pixels, int S, int blocks, bool normed, int heads, int *P);

/* Texts for weights_text (kit/weights.h), width 8, patch 2, 2 heads, one block. */
extern const char tower_dinov3[], tower_aimv2[];            /* transformers' names */
extern const char tower_eva02[];                            /* timm's, q, k and v apart */
