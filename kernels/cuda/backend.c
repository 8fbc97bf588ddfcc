/* backend: the two structs of functions, and how a GPU is opened. What a struct lists stands in the other files, which
 * need nothing of this one. */
#include <stdio.h>

#include "kernels/cuda/cuda.h"

/* ---- the structs ----------------------------------------------------------------------------------------------- */

Status cuda_status(void) {
    Status st = cuda_error();
    return st == OK ? cuda_comm_status() : st;
}

#define COMMON                                                                                                         \
    .name = "cuda", .unified = false, .about = cuda_about, .workspace = (size_t)WS_COMPUTE + WS_COMM,                  \
    .comm_open = cuda_comm_open, .comm_id = cuda_comm_id, .all_reduce = cuda_all_reduce,                               \
    .reduce_parts = cuda_reduce_parts, .all_reduce_wait = cuda_all_reduce_wait, .all_gather = cuda_all_gather,         \
    .comm_close = cuda_comm_close, .use_cudnn = cuda_attention_cudnn

/* A row that has no kernel here says so when it is called, and the run ends with that sentence. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define MISSING_TYPED(name, params)
#define MISSING_SHARED(name, params)
#define MISSING_CPU(name, params) \
    static void cuda_missing_##name params { cuda_fail(ERR_MISSING, "%s has no CUDA kernel: take device=cpu", #name); }
#define OP(kind, name, params, args) MISSING_##kind(name, params)
#include "kernels/backend.def"

#define SLOT_TYPED(type, name) .name = cuda_##type##_##name,
#define SLOT_SHARED(type, name) .name = cuda_##name,
#define SLOT_CPU(type, name) .name = cuda_missing_##name,

#define MEMORY(type, name, params) .name = cuda_##name,
#define OP(kind, name, params, args) SLOT_##kind(f32, name)
static const Backend backend_cuda_f32 = {.elem = DT_F32, COMMON, .choose_products = cuda_f32_choose_products,
#include "kernels/backend.def"
};

#define MEMORY(type, name, params) .name = cuda_##name,
#define OP(kind, name, params, args) SLOT_##kind(bf16, name)
static const Backend backend_cuda_bf16 = {.elem = DT_BF16, COMMON, .choose_products = cuda_bf16_choose_products,
#include "kernels/backend.def"
};

/* ---- opening --------------------------------------------------------------------------------------------------- */

static Status choose(int local_rank) {
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    int driver = 0;
    if (e == cudaErrorInsufficientDriver && (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0))
        return err_set(ERR_DEVICE, "no NVIDIA driver is installed here; device=cpu works without");
    if (e == cudaErrorInsufficientDriver)
        return err_set(ERR_DEVICE,
                       "the NVIDIA driver serves CUDA %d.%d, this program was built with %d.%d: update the driver",
                       driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && n == 0))
        return err_set(ERR_DEVICE, "no GPU is visible here (nvidia-smi lists them, CUDA_VISIBLE_DEVICES may hide "
                                   "them); device=cpu works without");
    if (e != cudaSuccess)
        return err_set(ERR_DEVICE, "the NVIDIA driver does not answer: %s (%s)", cudaGetErrorString(e),
                       cudaGetErrorName(e));
    /* two processes on one GPU would take each other's memory */
    if (local_rank >= n && n > 1)
        return err_set(
            ERR_DEVICE,
            "process %d of this machine has no GPU of its own: %d are visible; start as many processes as GPUs",
            local_rank, n);
    cuda.device = local_rank % n; /* one visible GPU: the launcher chose it for us */
    return OK;
}

static Status open_device(int local_rank) {
    Status st = choose(local_rank);
    if (st != OK) return st;
    struct cudaDeviceProp prop;
    cudaError_t e = cudaGetDeviceProperties(&prop, cuda.device);
    if (e == cudaSuccess) e = cudaSetDevice(cuda.device);
    if (e != cudaSuccess)
        return err_set(ERR_DEVICE, "GPU %d cannot be used: %s (%s)", cuda.device, cudaGetErrorString(e),
                       cudaGetErrorName(e));
    snprintf(cuda.name, sizeof cuda.name, "%.100s", prop.name);
    cuda.sms = prop.multiProcessorCount;
    cuda.cc = prop.major * 10 + prop.minor;
    cuda.shared_max = prop.sharedMemPerBlockOptin;
    /* asked here: else the first launch would fail, in the middle of something */
    if (cuda.cc < 80 || (e = cuda_probe()) == cudaErrorNoKernelImageForDevice)
        return err_set(ERR_DEVICE, "GPU %d (%s) has compute capability %d.%d; 8.0 (A100) or newer is needed",
                       cuda.device, cuda.name, prop.major, prop.minor);
    if (e == cudaErrorUnsupportedPtxVersion)
        return err_set(
            ERR_DEVICE,
            "GPU %d (%s) is newer than this program, and the driver is too old to translate for it: update the driver",
            cuda.device, cuda.name);
    if (e == cudaSuccess) e = cuda_streams_open();
    if (e != cudaSuccess)
        return err_set(ERR_DEVICE, "GPU %d (%s) cannot be used: %s (%s)", cuda.device, cuda.name, cudaGetErrorString(e),
                       cudaGetErrorName(e));
    return OK;
}

Status backend_cuda(const Backend **b, DType elem, int local_rank) {
    *b = NULL;
    BUG_ON(elem != DT_F32 && elem != DT_BF16, "cuda: no backend of %s", dtype_name(elem));
    if (!cuda.compute) {
        Status st = open_device(local_rank);
        if (st != OK) {
            cudaGetLastError(); /* answered, not remembered: device=auto goes on with the CPU */
            return st;
        }
    }
    *b = elem == DT_F32 ? &backend_cuda_f32 : &backend_cuda_bf16;
    return OK;
}
