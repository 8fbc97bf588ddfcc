/* version: see version.h. */
#include "kernels/base/version.h"

#ifndef QFORMER_VERSION
#define QFORMER_VERSION "unknown"
#endif

/* Defined as 1 where the build found it. */
#ifndef HAVE_DNNL
#define HAVE_DNNL 0
#endif
#ifndef HAVE_CBLAS
#define HAVE_CBLAS 0
#endif
#ifndef HAVE_WEBP
#define HAVE_WEBP 0
#endif
#ifndef HAVE_MPI
#define HAVE_MPI 0
#endif
#ifndef HAVE_CUDA
#define HAVE_CUDA 0
#endif

/* The parts a build can be without, and what to install for each. */
const BuildPart build_parts[] = {
    { "oneDNN", HAVE_DNNL, "fast matrix products on the CPU", "libdnnl-dev" },
    { "CBLAS", HAVE_CBLAS, "matrix products where there is no oneDNN", "libopenblas-dev" },
    { "WebP", HAVE_WEBP, "WebP pictures", "libwebp-dev" },
    { "MPI", HAVE_MPI, "several processes", "libopenmpi-dev openmpi-bin" },
    { "CUDA", HAVE_CUDA, "GPUs", "the CUDA toolkit (nvcc)" },
};

const int build_part_count = sizeof build_parts / sizeof build_parts[0];

const char *version_string(void) { return QFORMER_VERSION; }

void version_print(FILE *f) {
    fprintf(f, "qformer %s\ncompiled by %s\nwith HDF5, libyaml, jansson, utf8proc, libjpeg, libpng", QFORMER_VERSION,
#ifdef __clang__
            "clang " __clang_version__
#else
            "gcc " __VERSION__
#endif
    );
    for (int i = 0; i < build_part_count; i++)
        if (build_parts[i].in) fprintf(f, ", %s", build_parts[i].name);
    fputs("\nwithout", f);
    const char *comma = "";
    for (int i = 0; i < build_part_count; i++)
        if (!build_parts[i].in) { fprintf(f, "%s %s", comma, build_parts[i].name); comma = ","; }
    fputs(comma[0] ? "\n" : " nothing\n", f);
}
