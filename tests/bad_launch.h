/* bad_launch: a kernel that fails on the GPU, at will. FAULT=sum_rows:14 makes the 14th launch of a kernel of that name
 * in this process write to an address that nobody has: the error is the GPU's own (or the emulator's).
 *
 * A program that includes this stands in front of the runtime's launch; the real one is the next of that name. */
#pragma once
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned x, y, z; } Dim3;               /* the runtime's dim3 */
typedef int Launch(const void *kernel, Dim3 grid, Dim3 block, void **args, size_t shared, void *stream);
Launch cudaLaunchKernel, __cudaLaunchKernel;             /* which of them `<<< >>>` calls depends on the toolkit */

static bool chosen(const void *kernel) {
    static char name[64];
    static int left = -1;
    static int (*name_of)(const char **, const void *);
    const char *symbol = NULL, *fault = getenv("FAULT");
    if (left < 0 && fault && sscanf(fault, "%63[^:]:%d", name, &left) == 2)
        *(void **)&name_of = dlsym(RTLD_DEFAULT, "cudaFuncGetName");
    if (!name_of || left <= 0 || name_of(&symbol, kernel) != 0 || !strstr(symbol, name)) return false;
    return --left == 0;
}

/* The first argument is a pointer, or a struct that begins with one: it is another one for the time of the call. */
static int launch(const char *by, const void *kernel, Dim3 grid, Dim3 block, void **args, size_t shared, void *stream) {
    static const uint64_t nowhere = 4096;
    Launch *real = NULL;
    *(void **)&real = dlsym(RTLD_NEXT, by);
    if (!real) abort();
    if (!chosen(kernel)) return real(kernel, grid, block, args, shared, stream);
    uint64_t kept;
    memcpy(&kept, args[0], sizeof kept);
    memcpy(args[0], &nowhere, sizeof nowhere);
    int e = real(kernel, grid, block, args, shared, stream);
    memcpy(args[0], &kept, sizeof kept);
    return e;
}

int cudaLaunchKernel(const void *kernel, Dim3 grid, Dim3 block, void **args, size_t shared, void *stream) {
    return launch("cudaLaunchKernel", kernel, grid, block, args, shared, stream);
}
int __cudaLaunchKernel(const void *kernel, Dim3 grid, Dim3 block, void **args, size_t shared, void *stream) {
    return launch("__cudaLaunchKernel", kernel, grid, block, args, shared, stream);
}
