/* params_start: the values a model begins with (training.md 8). */
#include <math.h>
#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/model/params.h"

/* FNV-1a. */
static uint32_t name_key(const char *name) {
    uint32_t h = 0x811c9dc5u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x01000193u;
    return h;
}

/* Two standard normal numbers of element pair i (Box-Muller), or two uniform ones: a start value depends on its
 * tensor's name and its place there alone. */
static void draw(uint64_t seed, const char *name, int layer, int64_t i, bool normal, double out[2]) {
    Philox x = philox((uint32_t)i, (uint32_t)(i >> 32), name_key(name), SITE_INIT, rng_key0(seed),
                      (uint32_t)(layer + 1));
    /* + 0.5: never 0, whose logarithm is not a number */
    double u = ((double)x.v[0] + 0.5) / 4294967296.0, v = ((double)x.v[1] + 0.5) / 4294967296.0;
    if (normal) {
        double r = sqrt(-2.0 * log(u)), a = 6.283185307179586 * v;
        out[0] = r * cos(a), out[1] = r * sin(a);
    } else {
        out[0] = 2 * u - 1, out[1] = 2 * v - 1;
    }
}

static void start_values(const Params *p, const ParamTensor *t, uint64_t seed, float std, float *x) {
    const ParamTensor *of = params_copy_of(p, t);
    if (of) {
        start_values(p, of, seed, std, x);
        return;
    }
    const ParamRow *row = &p->table.row[t->row];
    if (row->start == START_COPY) row = &p->table.row[(int)row->arg];        /* of one that this model leaves out */
    bool normal = row->start == START_NORMAL, drawn = normal || row->start == START_LINEAR;
    double spread = normal ? (double)std : drawn ? 1.0 / sqrt((double)p->size.of[(int)row->arg]) : 0.0;
    float value = row->start == START_ONES ? 1.0f : row->start == START_VALUE ? (float)row->arg : 0.0f;
    /* Box-Muller makes them in pairs */
    for (int64_t i = 0; i < t->n; i += 2) {
        double r[2];
        /* by the table's name: another spelling in a file draws the same */
        if (drawn) draw(seed, row->name, t->layer, i, normal, r);
        for (int64_t j = i; j < t->n && j < i + 2; j++) x[j] = drawn ? (float)(r[j - i] * spread) : value;
    }
}

Status params_init(Params *p, uint64_t seed, float std) {
    int64_t most = 0;
    for (int i = 0; i < p->n; i++)
        if (p->tensor[i].n > most) most = p->tensor[i].n;
    float *x = mem_new((size_t)most, sizeof *x);
    Status st = x ? OK : ERR_MEMORY;
    for (int i = 0; st == OK && i < p->n; i++) {
        start_values(p, &p->tensor[i], seed, std, x);
        st = params_put(p, &p->tensor[i], 0, p->tensor[i].n, x, DT_F32);
    }
    free(x);
    if (st == OK && !p->frozen) params_refresh(p); /* the copies that are computed with are made anew */
    return st;
}
