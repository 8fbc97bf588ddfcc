/* cudnn_deviceless: asks the real cuDNN 9, on a machine without a GPU, whether it builds the attention plans of
 * kernels/cuda/cudnn.c for an H100. Nothing is executed: the device is described in JSON, heuristics run, kernels are
 * compiled.
 *
 *     cudnn_deviceless          a libcuda.so.1 that can be loaded must be on the library path; exit code 0: every plan
 * was built
 *
 * Includes cudnn.c itself: the graphs it builds are the ones asked about. */
#include <stdio.h>

#include "kernels/cuda/cudnn.c"

static const char h100[] =
    "{\"cudnnVersion\":91900,\"schemaVersion\":1,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
    "\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,"
    "\"totalGlobalMem\":85000000000,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,\"l2CacheSize\":52428800,\"cudaDeviceId\":0,"
    "\"deviceVer\":900,\"driverVer\":13000,\"deviceName\":\"NVIDIA H100 80GB HBM3\"}";

static const struct {
    const char *what;
    Shape s;
} asked[] = {
    {"cross, full size: 128 images, 32 queries, 257 keys, K and V in one matrix of 12 x 768",
     {128, 12, 32, 257, 64, 768, 9216, 9216, 768, 32, 257, 4096}},
    {"queries among themselves: q, k, v in one matrix of 3 x 768",
     {128, 12, 32, 32, 64, 2304, 2304, 2304, 768, 32, 32, 4096}},
    {"ViT-L: 257 rows, 16 heads of 64", {32, 16, 257, 257, 64, 3072, 3072, 3072, 1024, 257, 257, 8224}},
    {"ViT-g: 257 rows, 16 heads of 88", {32, 16, 257, 257, 88, 4224, 4224, 4224, 1408, 257, 257, 8224}},
};

int main(void) {
    int bad = 0;
    if (load() != OK) {
        printf("%s\n", err_message());
        return 1;
    }
    cudnnBackendDescriptor_t device = NULL;
    if (dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device) != CUDNN_STATUS_SUCCESS ||
        !set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(h100), h100) ||
        !finished(true, device)) {
        printf("cuDNN %zu does not take the description of a device\n", dnn.cudnnGetVersion());
        return 1;
    }
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        Plan p;
        bool ok = build(&p, &asked[i].s, NULL, device);
        char why[512] = "";
        if (!ok) dnn.cudnnGetLastErrorString(why, sizeof why);
        printf("%s  %s: %s%lld bytes of workspace\n", ok ? "ok  " : "FAIL", asked[i].what, why, (long long)p.workspace);
        forget(&p);
        bad |= !ok;
    }
    return bad;
}
