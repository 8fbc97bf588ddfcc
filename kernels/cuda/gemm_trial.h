/* gemm_trial: memory in which products are timed: random numbers, as large as the largest of them needs. */
#pragma once
#include "kernels/cuda/cuda.h"

typedef struct { void *a, *b, *c, *h, *u, *bias; cudaEvent_t from, to; } GemmTrial;

/* The product of the rounded shape and what follows it, in the trial's memory. */
typedef struct { Gemm g; Act a; ActGrad d; } GemmWhole;

Status gemm_trial_open(GemmTrial *t, const Gemm *g, int n, DType elem);      /* room for each of n products */
void gemm_trial_close(GemmTrial *t);                                         /* also of one that is all zero */
void gemm_trial_place(GemmWhole *w, const Gemm *g, const GemmTrial *t);
/* n products of one call, rounded; each with a C and sums of its own. */
void gemm_trial_group(Gemm *to, const Gemm *g, int n, const GemmTrial *t);
