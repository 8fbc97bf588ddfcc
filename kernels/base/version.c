/* version: see version.h. */
#include "kernels/base/version.h"

#ifndef QFORMER_VERSION
#define QFORMER_VERSION "unknown"
#endif

#ifdef HAVE_DNNL
enum { WITH_DNNL = 1 };
#else
enum { WITH_DNNL = 0 };
#endif
#ifdef HAVE_CBLAS
enum { WITH_CBLAS = 1 };
#else
enum { WITH_CBLAS = 0 };
#endif
#ifdef HAVE_WEBP
enum { WITH_WEBP = 1 };
#else
enum { WITH_WEBP = 0 };
#endif
#ifdef HAVE_MPI
enum { WITH_MPI = 1 };
#else
enum { WITH_MPI = 0 };
#endif
#ifdef HAVE_CUDA
enum { WITH_CUDA = 1 };
#else
enum { WITH_CUDA = 0 };
#endif

/* The parts a build can be without, and what to install for each. */
const BuildPart build_parts[] = {
    { "oneDNN", WITH_DNNL, "fast matrix products on the CPU", "libdnnl-dev" },
    { "CBLAS", WITH_CBLAS, "matrix products where there is no oneDNN", "libopenblas-dev" },
    { "WebP", WITH_WEBP, "WebP pictures", "libwebp-dev" },
    { "MPI", WITH_MPI, "several processes", "libopenmpi-dev openmpi-bin" },
    { "CUDA", WITH_CUDA, "GPUs", "the CUDA toolkit (nvcc)" },
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
