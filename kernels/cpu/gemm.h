/* gemm: what its files share. Private to them. */
#pragma once
#include "kernels/cpu/cpu.h"

/* A product of few rows with a large B, when it is one; false: it is not. */
bool FN(gemm_thin)(const Gemm *g);
bool FN(reads_held)(const Gemm *g);     /* Backend's */
