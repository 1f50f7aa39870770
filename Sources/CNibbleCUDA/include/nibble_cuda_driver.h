// libcuda.so.1: the functions Nibble calls, under their own names with the prefix nibble_.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Not a status of CUDA: the function was not found.
#define NIBBLE_CUDA_MISSING (-1)

typedef unsigned long long NibbleDevicePointer;
typedef struct NibbleContextObject *NibbleContext;
typedef struct NibbleStreamObject *NibbleStream;
typedef struct NibbleEventObject *NibbleEvent;
typedef struct NibbleModuleObject *NibbleModule;
typedef struct NibbleFunctionObject *NibbleFunction;
typedef struct NibbleGraphObject *NibbleGraph;
typedef struct NibbleGraphExecObject *NibbleGraphExec;

// Statuses the host tells apart.
enum {
    NIBBLE_CUDA_SUCCESS = 0,
    NIBBLE_CUDA_OUT_OF_MEMORY = 2,
    NIBBLE_CUDA_NO_DEVICE = 100,
    NIBBLE_CUDA_NOT_READY = 600,
    NIBBLE_CUDA_PEER_ALREADY_ENABLED = 704,
};

// CUdevice_attribute
enum {
    NIBBLE_ATTRIBUTE_MAX_SHARED_PER_BLOCK = 8,
    NIBBLE_ATTRIBUTE_MULTIPROCESSORS = 16,
    NIBBLE_ATTRIBUTE_INTEGRATED = 18,
    NIBBLE_ATTRIBUTE_L2_BYTES = 38,
    NIBBLE_ATTRIBUTE_MAJOR = 75,
    NIBBLE_ATTRIBUTE_MINOR = 76,
    NIBBLE_ATTRIBUTE_MAX_SHARED_OPTIN = 97,
};

enum {
    NIBBLE_FUNCTION_MAX_DYNAMIC_SHARED = 8,
    NIBBLE_FUNCTION_SHARED_CARVEOUT = 9,  // percent of what a multiprocessor can set aside
    NIBBLE_STREAM_NON_BLOCKING = 1,
    NIBBLE_EVENT_DISABLE_TIMING = 2,
    NIBBLE_CAPTURE_RELAXED = 2,
};

// Opens the library at `path` (a path or a soname) and fills the table. Returns 0, or -1 with the reason in `error`.
// May be called again after a failure; once it has succeeded it does nothing.
int nibble_cuda_open(const char *path, char *error, size_t errorSize);

int nibble_cuInit(unsigned flags);
int nibble_cuDriverGetVersion(int *version);
// Never null.
const char *nibble_cuErrorName(int status);
const char *nibble_cuErrorText(int status);

int nibble_cuDeviceGetCount(int *count);
int nibble_cuDeviceGet(int *device, int ordinal);
int nibble_cuDeviceGetName(char *name, int length, int device);
int nibble_cuDeviceTotalMem(size_t *bytes, int device);
int nibble_cuDeviceGetAttribute(int *value, int attribute, int device);
int nibble_cuDeviceCanAccessPeer(int *can, int device, int peer);
int nibble_cuDevicePrimaryCtxRetain(NibbleContext *context, int device);
int nibble_cuDevicePrimaryCtxRelease(int device);
int nibble_cuCtxSetCurrent(NibbleContext context);
int nibble_cuCtxEnablePeerAccess(NibbleContext peer, unsigned flags);

int nibble_cuMemGetInfo(size_t *free, size_t *total);
int nibble_cuMemAlloc(NibbleDevicePointer *address, size_t bytes);
int nibble_cuMemFree(NibbleDevicePointer address);
int nibble_cuMemHostAlloc(void **address, size_t bytes, unsigned flags);
int nibble_cuMemFreeHost(void *address);
int nibble_cuMemcpyHtoDAsync(NibbleDevicePointer to, const void *from, size_t bytes, NibbleStream stream);
int nibble_cuMemcpyDtoHAsync(void *to, NibbleDevicePointer from, size_t bytes, NibbleStream stream);
int nibble_cuMemcpyDtoDAsync(NibbleDevicePointer to, NibbleDevicePointer from, size_t bytes, NibbleStream stream);
int nibble_cuMemcpyPeerAsync(NibbleDevicePointer to, NibbleContext toContext, NibbleDevicePointer from, NibbleContext fromContext,
                             size_t bytes, NibbleStream stream);
int nibble_cuMemsetD8Async(NibbleDevicePointer to, unsigned char value, size_t count, NibbleStream stream);

int nibble_cuStreamCreate(NibbleStream *stream, unsigned flags);
int nibble_cuStreamDestroy(NibbleStream stream);
int nibble_cuStreamSynchronize(NibbleStream stream);
int nibble_cuStreamWaitEvent(NibbleStream stream, NibbleEvent event, unsigned flags);
int nibble_cuEventCreate(NibbleEvent *event, unsigned flags);
int nibble_cuEventDestroy(NibbleEvent event);
int nibble_cuEventRecord(NibbleEvent event, NibbleStream stream);
int nibble_cuEventSynchronize(NibbleEvent event);
int nibble_cuEventElapsedTime(float *milliseconds, NibbleEvent start, NibbleEvent end);

// `log` receives the loader's messages (may be empty).
int nibble_cuModuleLoad(NibbleModule *module, const void *image, char *log, size_t logSize);
int nibble_cuModuleUnload(NibbleModule module);
int nibble_cuModuleGetFunction(NibbleFunction *function, NibbleModule module, const char *name);
int nibble_cuFuncSetAttribute(NibbleFunction function, int attribute, int value);
// Blocks of `threads` threads and `sharedBytes` of dynamic shared memory that one multiprocessor holds at a time.
int nibble_cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, NibbleFunction function, int threads, size_t sharedBytes);

typedef struct {
    unsigned gridX, gridY, gridZ;
    unsigned blockX;
    unsigned sharedBytes;
    // May begin before the kernel enqueued before it has ended; it waits itself for what it reads (programmatic dependent
    // launch, compute capability 9.0). Ignored where the driver cannot.
    int overlaps;
    // Blocks of a cluster along x (compute capability 9.0), or 0.
    unsigned cluster;
} NibbleLaunch;

// Launches a kernel that takes one struct by value; `arguments` points at it and is copied before the call returns.
int nibble_cuLaunch(NibbleFunction function, NibbleLaunch launch, NibbleStream stream, const void *arguments);

// Clusters of the launch that the card holds at a time; NIBBLE_CUDA_MISSING before CUDA 11.8.
int nibble_cuOccupancyMaxActiveClusters(int *clusters, NibbleFunction function, NibbleLaunch launch);

// Fills `map` (16 words): boxes of boxRows rows of 128 bytes, swizzled, of a matrix whose rows lie `stride` bytes apart. Elements
// have one or two bytes; outside of the matrix they are 0. NIBBLE_CUDA_MISSING before CUDA 12.
int nibble_tensorMap(unsigned long long *map, NibbleDevicePointer address, long long rows, long long columns, long long stride,
                     int boxRows, int elementBytes);

int nibble_cuStreamBeginCapture(NibbleStream stream, int mode);
int nibble_cuStreamEndCapture(NibbleStream stream, NibbleGraph *graph);
int nibble_cuGraphInstantiate(NibbleGraphExec *executable, NibbleGraph graph);
int nibble_cuGraphLaunch(NibbleGraphExec executable, NibbleStream stream);
int nibble_cuGraphExecDestroy(NibbleGraphExec executable);
int nibble_cuGraphDestroy(NibbleGraph graph);
