/* doctor: `qformer doctor` prints one page: build, processor, memory, disk, devices, measured speed, and
 * what to do about what it found. It changes nothing; what cannot be asked is said to be unknown. */
#include "kernels/base/version.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "configs/commands.h"
#include "kernels/backend.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "kernels/peak.h"

/* ---- asking the machine ------------------------------------------------------------------------------------------ */

/* The value of the first line of `path` that starts with `key`, up to n bytes; false when there is none. An empty key
 * takes the first line. */
static bool read_field(const char *path, const char *key, char *value, size_t n) {
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (f && !found && getline(&line, &room, f) > 0) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *v = line + strlen(key);
        v += strspn(v, " \t:");                              /* each file of /proc parts them otherwise */
        snprintf(value, n, "%.*s", (int)strcspn(v, "\n"), v);
        found = true;
    }
    free(line);
    if (f) fclose(f);
    return found;
}

static bool has_flag(const char *flags, const char *name) {
    size_t n = strlen(name);
    for (const char *p = strstr(flags, name); p; p = strstr(p + 1, name))
        /* whole words: avx2 stands inside of avx2_vnni */
        if ((p == flags || p[-1] == ' ') && (p[n] == ' ' || !p[n])) return true;
    return false;
}

static int cores_allowed(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    /* batch systems give fewer than the machine has */
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static void print_cpu(void) {
    static const char *const names[] = { "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16" };
    char model[256] = "unknown", *flags = mem_new(1, 8192), quota[64];
    long long us, period;
    read_field("/proc/cpuinfo", "model name", model, sizeof model);
    printf("processor    %s\n             %d cores for this process of %ld", model, cores_allowed(),
           sysconf(_SC_NPROCESSORS_ONLN));
    if (read_field("/sys/fs/cgroup/cpu.max", "", quota, sizeof quota) && sscanf(quota, "%lld %lld", &us, &period) == 2)
        printf(", of which %.1f may be busy at a time (cgroup)", (double)us / (double)period);
    fputs("\n            ", stdout);
    if (flags && read_field("/proc/cpuinfo", "flags", flags, 8192))
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            printf(" %s%s", has_flag(flags, names[i]) ? "" : "no ", names[i]);
    else fputs(" instruction sets unknown", stdout);
    const char *policy = getenv("OMP_WAIT_POLICY"), *spins = getenv("GOMP_SPINCOUNT");
    printf("\n             a thread that waits sleeps %s%s\n",
           spins ? "after this many spins: " : "as OMP_WAIT_POLICY says: ",
           spins ? spins : policy ? policy : "not set");
    free(flags);
}

static void print_memory(void) {
    char total[64], left[64], limit[64];
    long long bytes;
    if (!read_field("/proc/meminfo", "MemTotal", total, sizeof total) ||
        !read_field("/proc/meminfo", "MemAvailable", left, sizeof left)) {
        puts("memory       unknown");
        return;
    }
    printf("memory       %.1f GiB, %.1f GiB free", (double)atoll(total) / (1 << 20), (double)atoll(left) / (1 << 20));
    /* "max", where there is no limit, is no number */
    if (read_field("/sys/fs/cgroup/memory.max", "", limit, sizeof limit) && (bytes = atoll(limit)) > 0)
        printf("; this process may take %.1f GiB (cgroup)", (double)bytes / (1 << 30));
    putchar('\n');
}

/* Of the folder `out`, or of what exists above it. */
static void print_disk(const char *out) {
    struct statvfs v;
    char *path = mem_strdup(out[0] ? out : ".");
    /* a run makes its folder: the disk is that of the one above */
    while (path && access(path, F_OK) != 0 && strrchr(path, '/') > path) *strrchr(path, '/') = 0;
    const char *where = path && access(path, F_OK) == 0 ? path : ".";
    if (statvfs(where, &v) == 0)
        printf("disk         %.1f GiB free in %s%s\n", (double)v.f_bavail * (double)v.f_frsize / (1 << 30), where,
               access(where, W_OK) == 0 ? "" : " (which this user may not write to)");
    else printf("disk         %s: %s\n", where, strerror(errno));
    free(path);
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

enum { SIDE = 1024 };                    /* of the squares that are multiplied */

/* Floating-point operations a second, 0 when it cannot be measured. */
static double gemm_speed(DType type) {
    const Backend *b = backend_cpu(type);
    void *scratch = mem_new(b->workspace, 1);
    double speed = 0;
    b->set_workspace(scratch, b->workspace);
    if (scratch) speed = peak_of_product(b, SIDE, SIDE, SIDE);
    b->set_workspace(NULL, 0);
    free(scratch);
    return b->status() == OK ? speed : 0;
}

static void print_speed(void) {
    double single = gemm_speed(DT_F32), half = gemm_speed(DT_BF16);
    printf("measured     %.0f GFLOP/s in f32, %.0f in bf16 (%d x %d products, best of a few)\n", single / 1e9,
           half / 1e9, SIDE, SIDE);
    printf("             precision=auto takes %s on this CPU%s\n", cpu_has_bf16() ? "bf16" : "f32",
           (half > 1.2 * single) == cpu_has_bf16() ? "" : ", although the other was faster just now");
}

static void print_gpu(void) {
    const Backend *b = NULL;
    if (backend_cuda(&b, DT_BF16, 0)) {
        printf("GPU          none: %s\n", err_message());
        err_clear();
        return;
    }
    printf("GPU          %s\n", b->about());
    backend_close(b);
}

static void print_advice(void) {
    bool any = false;
    for (int i = 0; i < build_part_count; i++) {
        /* CBLAS is not missed where there is oneDNN */
        if (build_parts[i].in || (i == 1 && build_parts[0].in)) continue;
        printf("%s %s: install %s, then 'make clean all'\n", any ? "            " : "could have  ", build_parts[i].what,
               build_parts[i].package);
        any = true;
    }
}

Status cmd_doctor(const Options *o) {
    version_print(stdout);
    printf("MPI          %s\n\n", dist_version());
    print_cpu();
    print_memory();
    print_disk(o->run.out);
    print_gpu();
    if (!o->run.dry_run) print_speed();                      /* a second of all cores */
    print_advice();
    return OK;
}
