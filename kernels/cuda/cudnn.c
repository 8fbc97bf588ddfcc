/* cudnn: attention forward by cuDNN's fused scaled-dot-product operation, as an alternative to ours where a plan is
 * regular. The only file that includes cudnn.h; the library is loaded when it is asked for (attention: cudnn), absent
 * is a sentence.
 *
 * What it can take: bf16, no dropout (its random bits are not ours), items without a second range, all with one number
 * of rows and of keys, in even steps through q and through k: the cross-attention of a wave whose images have the same
 * users, the queries of ITC, a ViT. A plan of several users an image is as many operations as users (the k-th user of
 * every group is a batch). For anything else the call says no and our kernel runs: so a run with `attention: cudnn` is
 * always complete. o and lse are written as ours are, so the backward is ours either way.
 *
 * A graph of one operation (CUDNN_BACKEND_OPERATION_SDPA_FWD) is built once for each shape and kept: q (B,H,Sq,D) with
 * the strides of our rows, statistics straight into lse. tests/bench/cudnn_deviceless.c asks the real cuDNN on a
 * machine without a GPU whether it builds these plans for an H100. */
#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define CUDNN_LIST(X)                                                                                                  \
    X(cudnnCreate) X(cudnnSetStream) X(cudnnGetVersion) X(cudnnGetErrorString)                         \
    X(cudnnGetLastErrorString) X(cudnnBackendCreateDescriptor) X(cudnnBackendDestroyDescriptor)                        \
    X(cudnnBackendSetAttribute) X(cudnnBackendGetAttribute) X(cudnnBackendFinalize) X(cudnnBackendExecute)

static struct {
#define X(f) __typeof__(f) *f;
    CUDNN_LIST(X)
#undef X
} dnn;

/* One operation: strides in elements; B items of Sq rows and Sk keys, of a plan of `rows` rows. */
typedef struct {
    int64_t B, H, Sq, Sk, D, ldq, ldk, ldv, ldo, step_q, step_k, rows;
} Shape;

enum { PARTS = 16, UID_Q = 1, UID_K, UID_V, UID_O, UID_STATS, UID_SCALE, UIDS = UID_SCALE };
typedef struct {
    Shape shape;
    bool built; /* false: cuDNN refused this shape, ours takes it */
    cudnnBackendDescriptor_t part[PARTS], plan;
    int parts;
    int64_t workspace;
} Plan;

enum { PLANS = 64 };
static struct {
    void *library;
    cudnnHandle_t handle;
    bool on;
    Plan plan[PLANS];
    int plans;
} my;

static Status load(void) {
    if (my.library) return OK;
#define X(f) {#f, &dnn.f},
    static const CudaSymbol symbols[] = {CUDNN_LIST(X)};
#undef X
    const char *why = NULL;
    my.library = cuda_library("libcudnn.so.9", symbols, (int)(sizeof symbols / sizeof *symbols), &why);
    return my.library ? OK : err_set(ERR_MISSING, "attention: cudnn needs cuDNN 9: %s", why);
}

/* ---- building a graph: the first failure ends it --------------------------------------------------------------- */

static bool set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t n, const void *value) {
    return d && dnn.cudnnBackendSetAttribute(d, name, type, n, value) == CUDNN_STATUS_SUCCESS;
}
static bool set_part(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
    return value && set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* A new descriptor, which the plan owns; NULL when there is none. */
static cudnnBackendDescriptor_t part(Plan *p, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = NULL;
    /* six tensors, operation, graph, and heuristic, configuration and plan of two modes */
    BUG_ON(p->parts == PARTS, "cudnn: more than %d descriptors", PARTS);
    if (dnn.cudnnBackendCreateDescriptor(type, &d) != CUDNN_STATUS_SUCCESS) return NULL;
    p->part[p->parts++] = d;
    return d;
}
static cudnnBackendDescriptor_t finished(bool ok, cudnnBackendDescriptor_t d) {
    return ok && dnn.cudnnBackendFinalize(d) == CUDNN_STATUS_SUCCESS ? d : NULL;
}

static cudnnBackendDescriptor_t tensor(Plan *p, int64_t uid, cudnnDataType_t type, const int64_t dims[4],
                                       const int64_t strides[4], bool by_value) {
    cudnnBackendDescriptor_t d = part(p, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    /* statistics go where lse lies, at any row */
    int64_t align = type == CUDNN_DATA_FLOAT ? 4 : 16;
    bool ok = set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid) &&
              set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type) &&
              set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims) &&
              set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides) &&
              set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align) &&
              (!by_value || set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value));
    return finished(ok, d);
}

/* Rows of heads side by side: (items, heads, rows, D). */
static cudnnBackendDescriptor_t rows_tensor(Plan *p, int64_t uid, const Shape *s, int64_t rows, int64_t step,
                                            int64_t ld) {
    return tensor(p, uid, CUDNN_DATA_BFLOAT16, (int64_t[]){s->B, s->H, rows, s->D}, (int64_t[]){step * ld, s->D, ld, 1},
                  false);
}

static cudnnBackendDescriptor_t operation(Plan *p, const Shape *s) {
    cudnnBackendDescriptor_t op = part(p, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    const int64_t one[4] = {1, 1, 1, 1};
    bool ok =
        set_part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, rows_tensor(p, UID_Q, s, s->Sq, s->step_q, s->ldq)) &&
        set_part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, rows_tensor(p, UID_K, s, s->Sk, s->step_k, s->ldk)) &&
        set_part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, rows_tensor(p, UID_V, s, s->Sk, s->step_k, s->ldv)) &&
        set_part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, rows_tensor(p, UID_O, s, s->Sq, s->step_q, s->ldo)) &&
        set_part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC,
                 tensor(p, UID_STATS, CUDNN_DATA_FLOAT, (int64_t[]){s->B, s->H, s->Sq, 1},
                        (int64_t[]){s->step_q, s->rows, 1, 1}, false)) &&
        set_part(op, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, tensor(p, UID_SCALE, CUDNN_DATA_FLOAT, one, one, true));
    return finished(ok, op);
}

/* A plan for s, for the GPU of `handle` or, without one, for the device that `device` describes. */
static bool build(Plan *p, const Shape *s, cudnnHandle_t handle, cudnnBackendDescriptor_t device) {
    *p = (Plan){.shape = *s};
    cudnnBackendDescriptor_t op = operation(p, s), graph = part(p, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    bool ok = set_part(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, op) &&
              (!handle || set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle));
    graph = finished(ok, graph);
    /* the fast engines first; the fallback ones take more shapes */
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    for (int i = 0; graph && i < 2; i++) {
        cudnnBackendDescriptor_t h = part(p, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR),
                                 config = part(p, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        cudnnBackendDescriptor_t plan = part(p, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        int64_t n = 0;
        h = finished(set_part(h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph) &&
                         set(h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &modes[i]) &&
                         (!device || set_part(h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device)),
                     h);
        if (!h || !config ||
            dnn.cudnnBackendGetAttribute(h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                         &config) != CUDNN_STATUS_SUCCESS ||
            n < 1)
            continue;
        p->plan =
            finished(set_part(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config) &&
                         (!handle || set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle)) &&
                         (!device || set_part(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device)),
                     plan);
        if (!p->plan ||
            dnn.cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n,
                                         &p->workspace) != CUDNN_STATUS_SUCCESS ||
            p->workspace > WS_COMPUTE)
            continue;
        p->built = true;
        break;
    }
    return p->built;
}

static void forget(Plan *p) {
    /* in reverse: a plan refers to what was made before it */
    for (int i = p->parts; i-- > 0;) dnn.cudnnBackendDestroyDescriptor(p->part[i]);
    *p = (Plan){0};
}

/* Batches of many sizes start over; between two calls alone, since one holds several plans at once. */
static void make_room(int32_t n) {
    if (my.plans + n <= PLANS) return;
    while (my.plans) forget(&my.plan[--my.plans]);
}

static Plan *plan_for(const Shape *s) {
    for (int i = 0; i < my.plans; i++)
        if (!memcmp(&my.plan[i].shape, s, sizeof *s)) return &my.plan[i];
    Plan *p = &my.plan[my.plans++];
    /* kept when it was refused, too: a shape is asked about once */
    build(p, s, my.handle, NULL);
    return p;
}

/* ---- use ------------------------------------------------------------------------------------------------------- */

Status cuda_attention_cudnn(bool on) {
    my.on = false;
    if (!on) return OK;
    Status st = load();
    if (st != OK) return st;
    cudnnStatus_t s = my.handle ? CUDNN_STATUS_SUCCESS : dnn.cudnnCreate(&my.handle);
    if (s == CUDNN_STATUS_SUCCESS) s = dnn.cudnnSetStream(my.handle, cuda.compute);
    if (s != CUDNN_STATUS_SUCCESS)
        return err_set(ERR_DEVICE, "cuDNN %zu does not start on GPU %d: %s", dnn.cudnnGetVersion(), cuda.device,
                       dnn.cudnnGetErrorString(s));
    my.on = true;
    return OK;
}

/* Whether items k, k + users, .. (the k-th of every group) go in even steps; s gets their shape. */
static bool regular(const Attn *a, int32_t users, int32_t k, Shape *s) {
    const AttnPlan *p = a->plan;
    const AttnItem *first = &p->host_items[k], *second = p->ngroups > 1 ? first + users : first;
    *s = (Shape){.B = p->ngroups, .H = a->H, .Sq = first->nq, .Sk = first->na, .D = a->D, .ldq = a->ldq, .ldk = a->ldk,
                 .ldv = a->ldv, .ldo = a->ldo,
                 .step_q = p->ngroups > 1 ? second->q0 - first->q0 : first->nq,
                 .step_k = p->ngroups > 1 ? second->a0 - first->a0 : first->na,
                 .rows = p->nrows};
    for (int32_t g = 0; g < p->ngroups; g++) {
        const AttnItem *it = &p->host_items[k + g * users];
        if (p->host_groups[g].nitems != users || p->host_groups[g].item0 != g * users || it->nb || !it->na ||
            it->nq != s->Sq || it->na != s->Sk || it->q0 != first->q0 + g * s->step_q ||
            it->a0 != first->a0 + g * s->step_k)
            return false;
    }
    return s->step_q >= s->Sq && s->step_k >= s->Sk && s->D % 8 == 0 && s->D <= 128;
}

static bool run(const Attn *a, const Plan *p, int64_t q0, int64_t a0) {
    cudnnBackendDescriptor_t v = NULL;
    float scale = a->scale;
    void *where[UIDS] = {(bf16 *)(uintptr_t)a->q + q0 * a->ldq, (bf16 *)(uintptr_t)a->k + a0 * a->ldk,
                         (bf16 *)(uintptr_t)a->v + a0 * a->ldv, (bf16 *)a->o + q0 * a->ldo, a->lse + q0, &scale};
    const int64_t uid[UIDS] = {UID_Q, UID_K, UID_V, UID_O, UID_STATS, UID_SCALE};
    void *space = cuda_workspace((size_t)p->workspace, "attention by cuDNN");
    bool ok = dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &v) == CUDNN_STATUS_SUCCESS &&
              set(v, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, UIDS, uid) &&
              set(v, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, UIDS, where) &&
              set(v, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &space) && finished(true, v) &&
              dnn.cudnnBackendExecute(my.handle, p->plan, v) == CUDNN_STATUS_SUCCESS;
    if (!ok) {
        char why[256] = "";
        dnn.cudnnGetLastErrorString(why, sizeof why);
        cuda_fail(ERR_DEVICE, "cuDNN: attention of %lld items, %lld rows, %lld keys: %s", (long long)p->shape.B,
                  (long long)p->shape.Sq, (long long)p->shape.Sk, why);
    }
    if (v) dnn.cudnnBackendDestroyDescriptor(v);            /* a pack a call: it holds this call's addresses */
    cuda_launched("attention (cuDNN)");
    return true;
}

bool cuda_attention_by_cudnn(const Attn *a) {
    const AttnPlan *p = a->plan;
    /* single rows look into caches, whose lengths must not become part of a recorded pass (attention_row.cu) */
    if (!my.on || a->drop.p > 0 || p->max_nq == 1 || !p->ngroups || p->nitems % p->ngroups) return false;
    int32_t users = p->nitems / p->ngroups;
    Plan *plans[8];
    Shape s;
    if (users > 8) return false;
    make_room(users);
    for (int32_t k = 0; k < users; k++) { /* all or none */
        if (!regular(a, users, k, &s)) return false;
        Plan *known = plan_for(&s);
        if (!known->built) return false;
        plans[k] = known;
    }
    for (int32_t k = 0; k < users; k++) run(a, plans[k], p->host_items[k].q0, p->host_items[k].a0);
    return true;
}
