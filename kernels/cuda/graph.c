/* graph: passes that recur, as CUDA graphs. A token of a language model is some 300 small launches, for each of which
 * the host takes 2.6 us, 7 for a product (estimates); as a graph they are one call of 6.
 *
 * The caller's key says when a pass is the same. The first time it is enqueued as ever: kernels are loaded, libraries
 * are asked, what they answer is kept. The second time the stream records it, and from then on its graph is launched.
 * So what comes once costs no more than before. The same kernels run with the same arguments: the same bits.
 *
 * A step of training is none. Rows are packed, so that sizes hardly ever come again: 1 step in 1,000 of 32 pairs, 4 of
 * 16 (lengths of captions drawn as COCO's). Lists filled up to whole 64s would make 90 in 100 recur, of 103 kinds, for
 * rows that nobody wants; and would win nothing, since the host is not what a step waits for: its 3.8 ms lie beside 15
 * of the device at 32 pairs and some 10 at 16.
 *
 * While the stream records, nothing fails for good: a pass that cannot be recorded (it waits, or takes memory) is
 * enqueued without, then and ever after, and what fails in that is told. A graph holds addresses. Those of the
 * workspace may change, and graphs are then made anew; all others live as long as what the caller calls `kept`, or
 * longer. PASSES are kept, and the one that was longest out of use makes room. What the driver takes for a graph is its
 * own memory, counted nowhere here.
 *
 * CUDA_LAUNCH_BLOCKING=1: no graphs, since an error is to name its kernel. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/cuda/cuda.h"

enum { PASSES = 64 };

typedef struct {
    uint64_t key, used;                 /* used: when, by the clock of its owner; 0: never */
    bool plain;                         /* cannot be recorded */
    const char *workspace;              /* as the graph has it */
    cudaGraphExec_t graph;
} Pass;

typedef struct { Pass pass[PASSES]; uint64_t clock; } Passes;

static bool is_watched(void) {
    const char *v = getenv("CUDA_LAUNCH_BLOCKING");
    return v && *v && strcmp(v, "0") != 0;
}

static void drop(Pass *p) {
    if (p->graph) cuda_ok(cudaGraphExecDestroy(p->graph), "a graph");
    p->graph = NULL;
}

/* That of the key, or a new one in the place of the oldest. */
static Pass *find(Passes *k, uint64_t key) {
    Pass *oldest = k->pass;
    for (Pass *p = k->pass; p < k->pass + PASSES; p++) {
        if (p->used && p->key == key) return p;
        if (p->used < oldest->used) oldest = p;
    }
    drop(oldest);
    *oldest = (Pass){.key = key};
    return oldest;
}

static void record(Pass *p, EnqueueFn *enqueue, void *ctx) {
    cudaGraph_t g = NULL;
    /* what other threads do meanwhile (memory for batches to come) is none of this stream's business */
    cudaError_t e = cudaStreamBeginCapture(cuda.compute, cudaStreamCaptureModeThreadLocal);
    if (e == cudaSuccess) {
        cuda.recorder = pthread_self(), cuda.recording = true, cuda.unrecorded = false;
        enqueue(ctx);
        cuda.recording = false;
        e = cudaStreamEndCapture(cuda.compute, &g);
        if (e == cudaSuccess && !cuda.unrecorded) e = cudaGraphInstantiateWithFlags(&p->graph, g, 0);
    }
    if (g) cudaGraphDestroy(g);
    if (e != cudaSuccess) p->graph = NULL;
    p->plain = !p->graph;
    p->workspace = cuda.workspace;
    if (!p->plain) return;
    cudaGetLastError();                 /* answered, not remembered: the pass is enqueued without */
    status_detail("GPU %d: a pass that recurs cannot become a graph (%s) and is enqueued launch by launch", cuda.device,
                  e == cudaSuccess ? "it waits, or takes memory" : cudaGetErrorString(e));
}

void cuda_repeat(void **kept, uint64_t key, EnqueueFn *enqueue, void *ctx) {
    Passes *k = *kept;
    cuda_updates_wait();                /* a graph asks for no parameter, which would wait for it */
    /* a pass in a pass belongs to the outer one */
    bool keep = !cuda.recording && !cuda_failed() && !is_watched();
    if (keep && !k) *kept = k = mem_new(1, sizeof *k);
    if (!keep || !k) {
        enqueue(ctx);
        return;
    }
    Pass *p = find(k, key);
    if (p->graph && p->workspace != cuda.workspace) drop(p);
    if (p->used && !p->graph && !p->plain) record(p, enqueue, ctx);
    p->used = ++k->clock;
    if (!p->graph) enqueue(ctx);
    else if (cuda_ok(cudaGraphLaunch(p->graph, cuda.compute), "a recorded pass")) cuda_launched("a recorded pass");
}

void cuda_forget(void **kept) {
    Passes *k = *kept;
    for (int i = 0; k && i < PASSES; i++) drop(&k->pass[i]);
    free(k);
    *kept = NULL;
}
