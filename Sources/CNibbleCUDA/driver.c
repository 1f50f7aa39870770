// The table of libcuda's functions. Each line of NIBBLE_DRIVER_FUNCTIONS gives the name, the suffix of the ABI that is meant
// (the plain names are old ones with 32-bit sizes), and the parameters.
#include "include/nibble_cuda_driver.h"

#include "library.h"

#define NIBBLE_DRIVER_FUNCTIONS(X)                                                                                              \
    X(cuInit, "", (unsigned flags), (flags))                                                                                    \
    X(cuDriverGetVersion, "", (int *version), (version))                                                                        \
    X(cuDeviceGetCount, "", (int *count), (count))                                                                              \
    X(cuDeviceGet, "", (int *device, int ordinal), (device, ordinal))                                                           \
    X(cuDeviceGetName, "", (char *name, int length, int device), (name, length, device))                                        \
    X(cuDeviceTotalMem, "_v2", (size_t *bytes, int device), (bytes, device))                                                    \
    X(cuDeviceGetAttribute, "", (int *value, int attribute, int device), (value, attribute, device))                            \
    X(cuDeviceCanAccessPeer, "", (int *can, int device, int peer), (can, device, peer))                                         \
    X(cuDevicePrimaryCtxRetain, "", (NibbleContext * context, int device), (context, device))                                   \
    X(cuDevicePrimaryCtxRelease, "_v2", (int device), (device))                                                                 \
    X(cuCtxSetCurrent, "", (NibbleContext context), (context))                                                                  \
    X(cuCtxEnablePeerAccess, "", (NibbleContext peer, unsigned flags), (peer, flags))                                           \
    X(cuMemGetInfo, "_v2", (size_t *free, size_t *total), (free, total))                                                        \
    X(cuMemAlloc, "_v2", (NibbleDevicePointer * address, size_t bytes), (address, bytes))                                       \
    X(cuMemFree, "_v2", (NibbleDevicePointer address), (address))                                                               \
    X(cuMemHostAlloc, "", (void **address, size_t bytes, unsigned flags), (address, bytes, flags))                              \
    X(cuMemFreeHost, "", (void *address), (address))                                                                            \
    X(cuMemcpyHtoDAsync, "_v2", (NibbleDevicePointer to, const void *from, size_t bytes, NibbleStream stream),                  \
      (to, from, bytes, stream))                                                                                                \
    X(cuMemcpyDtoHAsync, "_v2", (void *to, NibbleDevicePointer from, size_t bytes, NibbleStream stream),                        \
      (to, from, bytes, stream))                                                                                                \
    X(cuMemcpyDtoDAsync, "_v2", (NibbleDevicePointer to, NibbleDevicePointer from, size_t bytes, NibbleStream stream),          \
      (to, from, bytes, stream))                                                                                                \
    X(cuMemcpyPeerAsync, "",                                                                                                    \
      (NibbleDevicePointer to, NibbleContext toContext, NibbleDevicePointer from, NibbleContext fromContext, size_t bytes,      \
       NibbleStream stream),                                                                                                    \
      (to, toContext, from, fromContext, bytes, stream))                                                                        \
    X(cuMemsetD8Async, "", (NibbleDevicePointer to, unsigned char value, size_t count, NibbleStream stream),                    \
      (to, value, count, stream))                                                                                               \
    X(cuStreamCreate, "", (NibbleStream * stream, unsigned flags), (stream, flags))                                             \
    X(cuStreamDestroy, "_v2", (NibbleStream stream), (stream))                                                                  \
    X(cuStreamSynchronize, "", (NibbleStream stream), (stream))                                                                 \
    X(cuStreamWaitEvent, "", (NibbleStream stream, NibbleEvent event, unsigned flags), (stream, event, flags))                  \
    X(cuEventCreate, "", (NibbleEvent * event, unsigned flags), (event, flags))                                                 \
    X(cuEventDestroy, "_v2", (NibbleEvent event), (event))                                                                      \
    X(cuEventRecord, "", (NibbleEvent event, NibbleStream stream), (event, stream))                                             \
    X(cuEventSynchronize, "", (NibbleEvent event), (event))                                                                     \
    X(cuEventElapsedTime, "", (float *milliseconds, NibbleEvent start, NibbleEvent end), (milliseconds, start, end))            \
    X(cuModuleUnload, "", (NibbleModule module), (module))                                                                      \
    X(cuModuleGetFunction, "", (NibbleFunction * function, NibbleModule module, const char *name), (function, module, name))    \
    X(cuFuncSetAttribute, "", (NibbleFunction function, int attribute, int value), (function, attribute, value))                \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, "", (int *blocks, NibbleFunction function, int threads, size_t sharedBytes), \
      (blocks, function, threads, sharedBytes))                                                                                 \
    X(cuStreamBeginCapture, "_v2", (NibbleStream stream, int mode), (stream, mode))                                             \
    X(cuStreamEndCapture, "", (NibbleStream stream, NibbleGraph * graph), (stream, graph))                                      \
    X(cuGraphLaunch, "", (NibbleGraphExec executable, NibbleStream stream), (executable, stream))                               \
    X(cuGraphExecDestroy, "", (NibbleGraphExec executable), (executable))                                                       \
    X(cuGraphDestroy, "", (NibbleGraph graph), (graph))

#define NIBBLE_MEMBER(name, suffix, parameters, arguments) int(*name) parameters;

// CUlaunchConfig and CUlaunchAttribute.
typedef struct {
    int id;
    char padding[4];
    union {
        char bytes[64];
        int programmaticStreamSerialization;
        unsigned cluster[3];
    } value;
} LaunchAttribute;

typedef struct {
    unsigned gridX, gridY, gridZ, blockX, blockY, blockZ, sharedBytes;
    NibbleStream stream;
    LaunchAttribute *attributes;
    unsigned attributeCount;
} LaunchConfiguration;

static struct {
    NIBBLE_DRIVER_FUNCTIONS(NIBBLE_MEMBER)
    int (*cuGetErrorName)(int, const char **);
    int (*cuGetErrorString)(int, const char **);
    int (*cuModuleLoadDataEx)(NibbleModule *, const void *, unsigned, int *, void **);
    int (*cuLaunchKernel)(NibbleFunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, NibbleStream,
                          void **, void **);
    // Since CUDA 11.8; may be missing.
    int (*cuLaunchKernelEx)(const LaunchConfiguration *, NibbleFunction, void **, void **);
    int (*cuOccupancyMaxActiveClusters)(int *, NibbleFunction, const LaunchConfiguration *);
    int (*cuGraphInstantiateWithFlags)(NibbleGraphExec *, NibbleGraph, unsigned long long);
    // Since CUDA 12; may be missing.
    int (*cuTensorMapEncodeTiled)(void *map, int type, uint32_t rank, void *address, const uint64_t *size,
                                  const uint64_t *strides, const uint32_t *box, const uint32_t *elementStrides, int interleave,
                                  int swizzle, int promotion, int fill);
} driver;

#define NIBBLE_WRAPPER(name, suffix, parameters, arguments) \
    int nibble_##name parameters { return driver.name ? driver.name arguments : NIBBLE_CUDA_MISSING; }
NIBBLE_DRIVER_FUNCTIONS(NIBBLE_WRAPPER)

// MARK: Filling the table

typedef int (*GetProcAddress)(const char *symbol, void **function, int version, uint64_t flags, int *status);

// The interface level whose signatures are declared here.
enum { interfaceVersion = 11040 };

static void *lookUp(void *library, GetProcAddress getProcAddress, const char *name, const char *suffix) {
    void *function = NULL;
    if (getProcAddress) {
        int status = 0;
        if (getProcAddress(name, &function, interfaceVersion, 0, &status) == 0 && function) return function;
    }
    char symbol[96];
    snprintf(symbol, sizeof symbol, "%s%s", name, suffix);
    return dlsym(library, symbol);
}

int nibble_cuda_open(const char *path, char *error, size_t errorSize) {
    static void *library;
    if (library) return 0;
    void *handle = nibble_library_open(path, error, errorSize);
    if (!handle) return -1;
    GetProcAddress getProcAddress = (GetProcAddress)dlsym(handle, "cuGetProcAddress_v2");
    const char *missing = NULL;

#define NIBBLE_LOOK_UP(name, suffix, parameters, arguments)                 \
    *(void **)&driver.name = lookUp(handle, getProcAddress, #name, suffix); \
    if (!driver.name && !missing) missing = #name;
    NIBBLE_DRIVER_FUNCTIONS(NIBBLE_LOOK_UP)
    NIBBLE_LOOK_UP(cuGetErrorName, "", , )
    NIBBLE_LOOK_UP(cuGetErrorString, "", , )
    NIBBLE_LOOK_UP(cuModuleLoadDataEx, "", , )
    NIBBLE_LOOK_UP(cuLaunchKernel, "", , )
    NIBBLE_LOOK_UP(cuGraphInstantiateWithFlags, "", , )

    *(void **)&driver.cuLaunchKernelEx = dlsym(handle, "cuLaunchKernelEx");
    *(void **)&driver.cuOccupancyMaxActiveClusters = dlsym(handle, "cuOccupancyMaxActiveClusters");
    *(void **)&driver.cuTensorMapEncodeTiled = dlsym(handle, "cuTensorMapEncodeTiled");

    if (missing) {
        snprintf(error, errorSize, "%s has no function %s: the driver is older than CUDA 11.4", path, missing);
        dlclose(handle);
        __builtin_memset(&driver, 0, sizeof driver);
        return -1;
    }
    library = handle;
    return 0;
}

// MARK: Calls that are more than a forward

const char *nibble_cuErrorName(int status) {
    const char *text = NULL;
    if (status == NIBBLE_CUDA_MISSING) return "NIBBLE_CUDA_MISSING";
    if (driver.cuGetErrorName) driver.cuGetErrorName(status, &text);
    return text ? text : "unknown status";
}

const char *nibble_cuErrorText(int status) {
    const char *text = NULL;
    if (status == NIBBLE_CUDA_MISSING) return "the CUDA driver is not loaded";
    if (driver.cuGetErrorString) driver.cuGetErrorString(status, &text);
    return text ? text : "no description";
}

int nibble_cuModuleLoad(NibbleModule *module, const void *image, char *log, size_t logSize) {
    enum { infoLog = 3, infoLogSize = 4, errorLog = 5, errorLogSize = 6 };
    if (logSize) log[0] = 0;
    if (!driver.cuModuleLoadDataEx) return NIBBLE_CUDA_MISSING;
    int options[] = {errorLog, errorLogSize};
    void *values[] = {log, (void *)(uintptr_t)logSize};
    return driver.cuModuleLoadDataEx(module, image, 2, options, values);
}

// Fills two attributes at most.
static LaunchConfiguration configure(NibbleLaunch launch, NibbleStream stream, LaunchAttribute *attributes) {
    enum { clusterDimension = 4, programmaticStreamSerialization = 6 };
    unsigned count = 0;
    if (launch.overlaps) {
        attributes[count] = (LaunchAttribute){.id = programmaticStreamSerialization};
        attributes[count++].value.programmaticStreamSerialization = 1;
    }
    if (launch.cluster) {
        attributes[count] = (LaunchAttribute){.id = clusterDimension};
        attributes[count].value.cluster[0] = launch.cluster;
        attributes[count].value.cluster[1] = attributes[count].value.cluster[2] = 1;
        ++count;
    }
    return (LaunchConfiguration){launch.gridX,       launch.gridY, launch.gridZ, launch.blockX, 1, 1,
                                 launch.sharedBytes, stream,       attributes,   count};
}

int nibble_cuLaunch(NibbleFunction function, NibbleLaunch launch, NibbleStream stream, const void *arguments) {
    if (!driver.cuLaunchKernel) return NIBBLE_CUDA_MISSING;
    void *parameters[] = {(void *)arguments};
    if ((launch.overlaps || launch.cluster) && driver.cuLaunchKernelEx) {
        LaunchAttribute attributes[2];
        LaunchConfiguration configuration = configure(launch, stream, attributes);
        return driver.cuLaunchKernelEx(&configuration, function, parameters, NULL);
    }
    if (launch.cluster) return NIBBLE_CUDA_MISSING;
    return driver.cuLaunchKernel(function, launch.gridX, launch.gridY, launch.gridZ, launch.blockX, 1, 1, launch.sharedBytes,
                                 stream, parameters, NULL);
}

int nibble_cuOccupancyMaxActiveClusters(int *clusters, NibbleFunction function, NibbleLaunch launch) {
    if (!driver.cuOccupancyMaxActiveClusters) return NIBBLE_CUDA_MISSING;
    LaunchAttribute attributes[2];
    LaunchConfiguration configuration = configure(launch, NULL, attributes);
    return driver.cuOccupancyMaxActiveClusters(clusters, function, &configuration);
}

int nibble_tensorMap(unsigned long long *map, NibbleDevicePointer address, long long rows, long long columns, long long stride,
                     int boxRows, int elementBytes) {
    enum { bytes = 0, halfWords = 1, swizzled128 = 3, promoted128 = 2 };
    if (!driver.cuTensorMapEncodeTiled) return NIBBLE_CUDA_MISSING;
    _Alignas(64) unsigned long long aligned[16];
    const uint64_t size[] = {(uint64_t)columns, (uint64_t)rows}, strides[] = {(uint64_t)stride};
    const uint32_t box[] = {128 / (unsigned)elementBytes, (uint32_t)boxRows}, elementStrides[] = {1, 1};
    int status = driver.cuTensorMapEncodeTiled(aligned, elementBytes == 1 ? bytes : halfWords, 2, (void *)(uintptr_t)address,
                                               size, strides, box, elementStrides, 0, swizzled128, promoted128, 0);
    __builtin_memcpy(map, aligned, sizeof aligned);
    return status;
}

int nibble_cuGraphInstantiate(NibbleGraphExec *executable, NibbleGraph graph) {
    if (!driver.cuGraphInstantiateWithFlags) return NIBBLE_CUDA_MISSING;
    return driver.cuGraphInstantiateWithFlags(executable, graph, 0);
}
