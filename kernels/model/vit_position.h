/* vit_position: where a patch lies, in every way that image encoders are told: learned tables resized to another grid,
 * sines and cosines that are added, angles that keys and queries are turned by.
 *
 * Called by the loader of an encoder, once; the numbers are made in double and rounded once. Rules and check values:
 * torch.nn.functional.interpolate and the rotary code of DINOv3, EVA-02 and the Perception Encoder as public behaviour.
 * Grids are (h, w), row by row from the top left. */
#pragma once
#include <stdint.h>

#include "kernels/base/err.h"

/* How a family resizes its learned table: kernel, whether antialiased, whether corners are aligned (taps.h). */
typedef enum {
    VIT_RESIZE_NONE,            /* it has one size */
    VIT_RESIZE_CUBIC,           /* CLIP, SigLIP, EVA-g, InternViT, DINOv2 in transformers */
    VIT_RESIZE_CUBIC_CORNERS,   /* CLIP in LAVIS */
    VIT_RESIZE_CUBIC_ANTIALIAS, /* DINOv2 with registers, OpenCLIP, timm */
    VIT_RESIZE_LINEAR,          /* Perception Encoder, Meta's code */
    VIT_RESIZE_LINEAR_ANTIALIAS /* SigLIP 2 NaFlex */
} VitResize;

/* dst (h*w, E) from src (n*n, E). ERR_MEMORY; with VIT_RESIZE_NONE also ERR_USAGE when the grids differ. */
Status vit_position_resize(float *dst, int h, int w, const float *src, int n, int E, VitResize rule);

/* dst (h*w, E), E a multiple of 4: sin(x f), cos(x f), sin(y f), cos(y f), each E/4 long,
 * f_j = 10000^(-j/(E/4)) (AIMv2 native). */
void vit_position_sincos(float *dst, int h, int w, int E);

typedef enum { VIT_ROTARY_NONE, VIT_ROTARY_DINOV3, VIT_ROTARY_EVA02, VIT_ROTARY_PE } VitRotary;

/* Coordinate of place k on an axis of n: DINOv3 2 (k + 0.5)/n - 1; EVA-02 k reference/n; PE (k + first) * (reference ?
 * reference/n : 1). Angle j < D/4: coordinate * frequency[j]. */
typedef struct {
    VitRotary kind;
    int reference, first;
    const double *frequency;   /* (D/4); see vit_position_frequencies */
} VitRotarySpec;

/* Of theta^(-4j/D), times 2 pi for DINOv3. */
void vit_position_frequencies(double *frequency, VitRotary kind, double theta, int D);

/* cos, sin (h*w, D/2): the angles of y, then those of x; for PE those of x first. */
void vit_position_rotary(float *cosine, float *sine, const VitRotarySpec *r, int h, int w, int D);
