/* cuda: what the files of this folder share on the host. Private to it.
 *
 * .cu files hold kernels and their launchers (C linkage); the C files beside them talk to libraries: gemm.c to
 * cuBLASLt, cudnn.c to cuDNN, comm.c to NCCL, device.c and graph.c to the runtime. The three libraries are loaded when
 * first needed (cuda_library), so a program built with CUDA runs `device=cpu` where they are absent; only the small
 * libcudart is linked.
 *
 * One GPU a process. Everything is enqueued on four streams: compute (all kernels, in call order), copy (prefetch),
 * comm (collectives) and update (AdamW beside compute), ordered by events; no call here waits for the GPU but alloc,
 * release, download and sync. */
#pragma once
#include <cuda_runtime_api.h>
#include <pthread.h>

#include "kernels/backend.h"

/* Workspace, from set_workspace: [0, WS_COMPUTE) belongs to whatever op runs on the compute stream (partial sums,
 * cuBLASLt's scratch: no op keeps anything there for the next one; gemm gives cuBLASLt WS_GEMM of it), the rest to the
 * communication stream. */
enum { WS_COMPUTE = 64 << 20, WS_COMM = 16 << 20, WS_GEMM = 32 << 20, WS_BIAS = 1 << 20 };

typedef struct {
    int device, sms, cc; /* cc: 90 for compute capability 9.0 */
    size_t shared_max;   /* shared memory a block may ask for */
    cudaStream_t compute, copy, comm, update;
    int taken;           /* SMs that AdamW may hold beside what is enqueued now: no grid that must be resident whole */
    bool recording, unrecorded; /* graph.c: compute records; and something in it failed, which then does not stick */
    pthread_t recorder;         /* the thread that records: what fails in others sticks as ever */
    char *workspace;
    char name[128];
} Cuda;
extern Cuda cuda;

/* What went wrong first sticks until the process ends; status() tells it. */
void cuda_fail(Status st, const char *fmt, ...) ERR_PRINTF(2, 3);
bool cuda_failed(void);
bool cuda_ok(cudaError_t e, const char *what); /* false, and sticks, when e is an error */
bool cuda_follow(cudaStream_t later, cudaStream_t first, cudaEvent_t by,
                 const char *what);            /* `later` continues after what `first` holds now */
void cuda_launched(const char *kernel);        /* after every launch: remembers the name, catches a refused launch */
void *cuda_workspace(size_t bytes,
                     const char *op); /* compute scratch; NULL, and sticks, when it is larger than WS_COMPUTE */
Status cuda_error(void);              /* OK, or what sticks */
Status cuda_comm_status(void);        /* comm.c: an error that NCCL found by itself */
cudaError_t cuda_streams_open(void);  /* the four, and the events between them */
/* AdamW number `beside`, which takes that many SMs, goes to this stream (0: compute); updated: it has been launched. */
cudaStream_t cuda_update(int beside, int sms);
void cuda_updated(int beside);
void cuda_updates_wait(void); /* compute sees all of them */
const char *cuda_about(void);

/* A shared library and its functions: names and places of n function pointers. Returns NULL and sets `why` (borrowed)
 * to a sentence when the library or one of the functions is missing. */
typedef struct {
    const char *name;
    void *where;
} CudaSymbol;
void *cuda_library(const char *soname, const CudaSymbol *symbols, int n, const char **why);

/* ---- launchers: backend.def says which are made once an element type ---- */
#define LAUNCHER_TYPED(name, params) void cuda_f32_##name params; void cuda_bf16_##name params;
#define LAUNCHER_SHARED(name, params) void cuda_##name params;
#define LAUNCHER_CPU(name, params)

#ifdef __cplusplus
extern "C" {
#endif
#define MEMORY(type, name, params) type cuda_##name params;
#define OP(kind, name, params, args) LAUNCHER_##kind(name, params)
#include "kernels/backend.def"
void cuda_cast_on(cudaStream_t s, void *dst, DType dt, const void *src, DType st, int64_t n);

/* dst[k][c] += sum over p < parts of partial[(k parts + p) stride + c], c < C, for up to three k; a NULL dst is left
 * out. In order of p: the second half of every sum over rows. */
void cuda_add_partials(float *const dst[3], const float *partial, int parts, int64_t stride, int64_t C);
/* product.cu: any Gemm, slowly: what cuBLASLt refuses. */
void cuda_product(const Gemm *g, DType elem);
/* product_act.cu: a product with an activation in one kernel. takes: whether it can on this GPU; fills: whether it is
 * worth it where nobody has timed it; false from the last: nothing was done. */
bool cuda_product_act_takes(const Gemm *g);
bool cuda_product_act_fills(const Gemm *g);
bool cuda_product_act(const Gemm *g);
/* product_group.cu: products in one launch, up to CUDA_GROUP that are all taken. takes, fills and the last as above. */
enum { CUDA_GROUP = 8 };
bool cuda_product_group_takes(const Gemm *g);
bool cuda_product_group_fills(const Gemm *g, int n);
bool cuda_product_group(const Gemm *g, int n);
/* cudnn.c, asked by attention.cu: true when cuDNN has the whole plan in hand. */
bool cuda_attention_by_cudnn(const Attn *a);
cudaError_t cuda_probe(void); /* whether this build has code for the current GPU */
#ifdef __cplusplus
}
#endif

/* cudnn.c: attention forward by cuDNN from now on, for the plans it can take; a sentence when there is no cuDNN. */
Status cuda_attention_cudnn(bool on);

/* gemm.c: as Backend.choose_products. */
Status cuda_f32_choose_products(const Gemm *g, int n, const char *kept, char **text);
Status cuda_bf16_choose_products(const Gemm *g, int n, const char *kept, char **text);

Status cuda_comm_open(const void *id, int rank, int ranks);
Status cuda_comm_id(void *id, size_t bytes);
void cuda_all_reduce(float *x, int64_t n, bool bf16_wire);
void cuda_reduce_parts(float *x, int64_t at, int64_t n, int64_t part, bool bf16_wire);
void cuda_all_reduce_wait(void);
void cuda_all_gather(void *dst, const void *src, size_t bytes_a_rank);
void cuda_comm_close(bool abort);
