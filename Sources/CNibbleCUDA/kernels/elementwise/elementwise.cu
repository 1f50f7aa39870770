// Operations on single elements and whole rows. Types are runtime codes, since these kernels are bound by memory.
#include "common.cuh"

#define ELEMENT (blockIdx.x * (long long)blockDim.x + threadIdx.x)

// output[t, f] = gated(a[t, f], a[t, width + f]); grid (T, width / block rounded up)
extern "C" __global__ void gate(const __grid_constant__ NibbleElementwiseArguments a) {
    beginKernel();
    const int f = blockIdx.y * blockDim.x + threadIdx.x;
    if (f >= a.width) return;
    const long long first = blockIdx.x * 2LL * a.width + f;
    const float x = loadAs(a.a, first, a.aType), up = loadAs(a.a, first + a.width, a.aType);
    storeAs(a.output, blockIdx.x * a.width + f, a.outputType, gated(a.activation, x, up, a.activationParameter, a.scale));
}

// The same for widths that are multiples of 8, eight elements a thread; grid (T, width / (8 * block) rounded up)
extern "C" __global__ void gate_eight(const __grid_constant__ NibbleElementwiseArguments a) {
    beginKernel();
    const int f = 8 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (f >= a.width) return;
    const long long first = blockIdx.x * 2LL * a.width + f;
    float x[8], up[8];
    loadEight(a.a, first, a.aType, x);
    loadEight(a.a, first + a.width, a.aType, up);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = gated(a.activation, x[i], up[i], a.activationParameter, a.scale);
    storeEight(a.output, blockIdx.x * a.width + f, a.outputType, x);
}

// output[t, i] = a[t, i] * b[t, firstColumn + i]; grid (T, width / block rounded up)
extern "C" __global__ void multiply(const __grid_constant__ NibbleElementwiseArguments a) {
    beginKernel();
    const int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= a.width) return;
    const long long at = blockIdx.x * a.width + i;
    const float factor = loadAs(a.b, blockIdx.x * a.otherWidth + a.firstColumn + i, a.bType);
    storeAs(a.output, at, a.outputType, loadAs(a.a, at, a.aType) * factor);
}

// output = a + b * scale
extern "C" __global__ void add(const __grid_constant__ NibbleElementwiseArguments a) {
    beginKernel();
    const long long i = ELEMENT;
    if (i < a.count) storeAs(a.output, i, a.outputType, loadAs(a.a, i, a.aType) + loadAs(a.b, i, a.bType) * a.scale);
}

extern "C" __global__ void convert(const __grid_constant__ NibbleElementwiseArguments a) {
    const long long i = ELEMENT;
    if (i < a.count) storeAs(a.output, i, a.outputType, loadAs(a.a, i, a.aType));
}

// output[i] = a[indices[i]], rows of `width`; zeros for an index outside; grid (n, width / 256 rounded up)
extern "C" __global__ void gather(const __grid_constant__ NibbleElementwiseArguments a) {
    beginKernel();
    const long long e = blockIdx.y * (long long)blockDim.x + threadIdx.x;
    if (e >= a.width) return;
    const long long row = a.indices[blockIdx.x];
    const bool isInside = row >= 0 && row < a.sourceRows;
    storeAs(a.output, blockIdx.x * a.width + e, a.outputType, isInside ? loadAs(a.a, row * a.width + e, a.aType) : 0.f);
}

// Products of a layer through its epilogue; eight outputs a thread, grid (M, columns / (8 * block) rounded up).
extern "C" __global__ void finish_linear(const __grid_constant__ NibbleFinishArguments a) {
    beginKernel();
    const int n = 8 * (blockIdx.y * blockDim.x + threadIdx.x), count = min(a.columns - n, 8);
    if (count <= 0) return;
    const long long at = blockIdx.x * a.productStride + n;
    float x[8] = {};
    if (count == 8 && isAligned(a.products, at, NIBBLE_F32)) {
        loadEight(a.products, at, NIBBLE_F32, x);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < count) x[i] = a.products[at + i];
    }
    if (a.bias)
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < count) x[i] += a.bias[n + i];
    finishEight(a.epilogue, blockIdx.x, a.firstColumn + n, x, count);
}

// Whole cache blocks; grid (n, 16), block 256. Sizes are multiples of 16 bytes.
extern "C" __global__ void copy_blocks(const __grid_constant__ NibbleCopyBlocksArguments a) {
    const long long from = a.pairs[2 * blockIdx.x], to = a.pairs[2 * blockIdx.x + 1];
    if (from < 0 || to < 0 || from == to) return;
    const long long step = (long long)gridDim.y * blockDim.x;
    const long long start = blockIdx.y * (long long)blockDim.x + threadIdx.x;
    auto copy = [&](void *base, long long bytes) {
        const uint4 *source = (const uint4 *)((char *)base + from * bytes);
        uint4 *target = (uint4 *)((char *)base + to * bytes);
        for (long long i = start; i < bytes / 16; i += step) target[i] = source[i];
    };
    copy(a.keys, a.keyBytes);
    copy(a.values, a.valueBytes);
}
