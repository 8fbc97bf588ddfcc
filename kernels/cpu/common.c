/* common: what the kernels share and no element type enters: scratch, the error that sticks, partial sums, dropout bits. */
#include "kernels/cpu/cpu.h"

#if !ELEM_BF16      /* once for both element types */

static Status first_failure = OK;
static const char *failed_what;

void cpu_fail(Status s, const char *what) {
    if (first_failure == OK) first_failure = s, failed_what = what;
}

Status cpu_status(void) {
    Status s = first_failure;
    if (s == OK) return OK;
    first_failure = OK;
    return err_set(s, "cpu backend: %s: %s", failed_what, s == ERR_MEMORY ? "out of memory for scratch" : "failed");
}

void *cpu_scratch(size_t bytes) {
    static _Thread_local void *memory;
    static _Thread_local size_t have;
    if (bytes <= have && memory) return memory;
    free(memory);
    have = (bytes + bytes / 4 + 4095) & ~(size_t)4095;
    if (posix_memalign(&memory, 64, have)) {
        memory = NULL;
        have = 0;
        cpu_fail(ERR_MEMORY, "scratch");
    }
    return memory;
}

void cpu_add_partials(float *out, const float *partial, int64_t blocks, int64_t stride, int64_t n) {
#pragma omp parallel for simd schedule(static) if (PARALLEL(blocks * n))
    for (int64_t c = 0; c < n; c++) {
        float s = 0.0f;
        for (int64_t b = 0; b < blocks; b++) s += partial[b * stride + c];
        out[c] += s;
    }
}

void cpu_dropout_bits(uint16_t *bits, const Dropout *d, RowKey row, uint32_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        Philox x = dropout_block(d, row, first + (uint32_t)i);
        for (uint32_t e = 0; e < 8; e++) bits[8 * i + e] = (uint16_t)dropout_bits(x, e);
    }
}

#endif
