// Shared by all kernels: 16-bit floats without toolkit headers, typed loads and stores, reductions, pointwise functions.
#pragma once
#include "nibble_kernel_arguments.h"

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Storage types. Arithmetic uses float.
struct alignas(2) f16 {
    u16 bits;
};
struct alignas(2) bf16 {
    u16 bits;
};
typedef float f32;

template <typename T>
struct IsHalf {
    static constexpr bool value = false;
};
template <>
struct IsHalf<f16> {
    static constexpr bool value = true;
};

// Expands X(f32) X(f16) X(bf16), or only those asked for with -DNIBBLE_ONLY_BF16 and so on.
#if defined(NIBBLE_ONLY_F32)
#define NIBBLE_FOR_TYPES(X) X(f32)
#elif defined(NIBBLE_ONLY_F16)
#define NIBBLE_FOR_TYPES(X) X(f16)
#elif defined(NIBBLE_ONLY_BF16)
#define NIBBLE_FOR_TYPES(X) X(bf16)
#else
#define NIBBLE_FOR_TYPES(X) X(f32) X(f16) X(bf16)
#endif

// -DNIBBLE_KERNEL=NAME limits a program to the kernel NAME: the bodies of those that ask IS_WANTED(name) are left out otherwise.
#ifdef NIBBLE_KERNEL
#define NIBBLE_NAME(NAME) #NAME
#define NIBBLE_NAME_OF(MACRO) NIBBLE_NAME(MACRO)
constexpr bool isKernel(const char *name, const char *wanted) {
    while (*name && *name == *wanted) ++name, ++wanted;
    return *name == *wanted;
}
#define IS_WANTED(NAME) isKernel(#NAME, NIBBLE_NAME_OF(NIBBLE_KERNEL))
#else
#define IS_WANTED(NAME) true
#endif

#define NIBBLE_INFINITY __int_as_float(0x7f800000)

__device__ __forceinline__ float toFloat(float x) { return x; }

__device__ __forceinline__ float toFloat(f16 x) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
    return r;
}

__device__ __forceinline__ float toFloat(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <typename T>
__device__ __forceinline__ T fromFloat(float x);

template <>
__device__ __forceinline__ float fromFloat<float>(float x) {
    return x;
}

template <>
__device__ __forceinline__ f16 fromFloat<f16>(float x) {
    f16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
}

template <>
__device__ __forceinline__ bf16 fromFloat<bf16>(float x) {
    bf16 r;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
#else
    u32 bits = __float_as_uint(x);
    r.bits = (x != x) ? (u16)((bits >> 16) | 0x40) : (u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
#endif
    return r;
}

// Element i of a buffer whose type is known at run time.
__device__ __forceinline__ float loadAs(const void *p, long long i, int type) {
    if (type == NIBBLE_F32) return ((const float *)p)[i];
    if (type == NIBBLE_F16) return toFloat(((const f16 *)p)[i]);
    return toFloat(((const bf16 *)p)[i]);
}

__device__ __forceinline__ void storeAs(void *p, long long i, int type, float x) {
    if (type == NIBBLE_F32)
        ((float *)p)[i] = x;
    else if (type == NIBBLE_F16)
        ((f16 *)p)[i] = fromFloat<f16>(x);
    else
        ((bf16 *)p)[i] = fromFloat<bf16>(x);
}

__device__ __forceinline__ float activate(int activation, float x, float parameter) {
    switch (activation) {
        case NIBBLE_RELU:
            return fmaxf(x, 0.f);
        case NIBBLE_RELU_SQUARED: {
            float r = fmaxf(x, 0.f);
            return r * r;
        }
        case NIBBLE_GELU:
            return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
        case NIBBLE_GELU_TANH:
            return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
        case NIBBLE_QUICK_GELU:
            return x / (1.f + expf(-1.702f * x));
        case NIBBLE_SILU:
            return x / (1.f + expf(-x));
        case NIBBLE_SIGMOID:
            return 1.f / (1.f + expf(-x));
        case NIBBLE_TANH:
            return tanhf(x);
        case NIBBLE_SOFT_CAP:
            return parameter * tanhf(x / parameter);
        default:
            return x;
    }
}

// The two halves of a gated layer. `alpha` is that of the clamped GLU.
__device__ __forceinline__ float gated(int activation, float gate, float up, float parameter, float alpha) {
    if (activation != NIBBLE_CLAMPED_GLU) return activate(activation, gate, parameter) * up;
    gate = fminf(gate, parameter);
    up = fminf(fmaxf(up, -parameter), parameter);
    return (up + 1.f) * gate / (1.f + expf(-alpha * gate));
}

__device__ __forceinline__ float residualAt(const NibbleEpilogue &e, long long m, long long n) {
    return e.residual ? loadAs(e.residual, m * e.residualStride + n, e.residualType) : 0.f;
}

// Stores one output of a linear layer; `product` has its bias already.
__device__ __forceinline__ void finish(const NibbleEpilogue &e, long long m, long long n, float product, float residual) {
    float y = activate(e.activation, product, e.activationParameter) * e.scale;
    if (e.rowScale) y = e.rowScale[m] == 0.f ? 0.f : y * e.rowScale[m];  // an unused row may have overflowed
    if (e.residual) y += residual;
    storeAs(e.output, m * e.outputStride + n, e.outputType, y);
}

__device__ __forceinline__ void finish(const NibbleEpilogue &e, long long m, long long n, float product) {
    finish(e, m, n, product, residualAt(e, m, n));
}

// What token m takes of an adapter.
__device__ __forceinline__ float adapterWeight(const float *weights, int weightStride, const int *slots, long long m,
                                               int adapter) {
    const int slot = slots ? slots[m] : 0;
    return slot < 0 ? 0.f : weights[(long long)slot * weightStride + adapter];
}

// What adapters add to output n of a layer for token m. Programs are compiled with and without NIBBLE_ADAPTERS: what adapters
// need costs the registers of products that have none.
struct Delta {
#ifdef NIBBLE_ADAPTERS
    float factor = 1.f, sum = 0.f;
    bool exists;
#endif

    __device__ __forceinline__ Delta(const NibbleLowRank &l, long long m, long long n) {
#ifdef NIBBLE_ADAPTERS
        exists = l.deltas;
        if (!exists) return;
        const long long at = m * l.stride + n;
        sum = l.deltas[at];
        if (l.factors) factor = l.factors[at];
#endif
    }

    // `product` has its bias.
    __device__ __forceinline__ float addedTo(float product) const {
#ifdef NIBBLE_ADAPTERS
        if (exists) return fmaf(product, factor, sum);
#endif
        return product;
    }
};

// Stores output n of a layer for token m; `product` has its bias already.
__device__ __forceinline__ void finishOutput(const NibbleEpilogue &e, const NibbleLinearLayer &part, long long m, long long n,
                                             float product, float residual) {
    finish(e, m, part.firstColumn + n, Delta(part.lowRank, m, n).addedTo(product), residual);
}

__device__ __forceinline__ void finishOutput(const NibbleEpilogue &e, const NibbleLinearLayer &part, long long m, long long n,
                                             float product) {
    finishOutput(e, part, m, n, product, residualAt(e, m, part.firstColumn + n));
}

__device__ __forceinline__ float warpSum(float x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
}

__device__ __forceinline__ int warpSum(int x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_add_sync(~0u, x);
#else
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
#endif
}

__device__ __forceinline__ float warpMax(float x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    return x;
}

// Over a block of up to 1024 threads; every thread gets the result. May be called repeatedly.
__device__ __forceinline__ float blockSum(float x) {
    __shared__ float partial[32];
    x = warpSum(x);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = x;
    __syncthreads();
    float y = (threadIdx.x & 31) < (blockDim.x + 31) / 32 ? partial[threadIdx.x & 31] : 0.f;
    return warpSum(y);
}

__device__ __forceinline__ float blockMax(float x) {
    __shared__ float partial[32];
    x = warpMax(x);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = x;
    __syncthreads();
    float y = (threadIdx.x & 31) < (blockDim.x + 31) / 32 ? partial[threadIdx.x & 31] : -NIBBLE_INFINITY;
    return warpMax(y);
}

// 16 bytes of a weight: read once, so kept out of the first-level cache, and through the read-only path. Only for memory that
// no kernel of a forward pass writes: a kernel that overlaps the one before it is alive while that one still writes.
__device__ __forceinline__ uint4 loadStreaming(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

// 16 bytes that an earlier kernel may have written, such as keys and values; kept out of the first-level cache.
__device__ __forceinline__ uint4 loadWritten(const void *p) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// The elements in 16 bytes of storage.
template <typename T>
struct Chunk {
    static constexpr int size = 16 / sizeof(T);
};

__device__ __forceinline__ void unpack(const uint4 &v, float (&x)[4], f32) {
    x[0] = __uint_as_float(v.x);
    x[1] = __uint_as_float(v.y);
    x[2] = __uint_as_float(v.z);
    x[3] = __uint_as_float(v.w);
}

__device__ __forceinline__ void unpack(const uint4 &v, float (&x)[8], f16) {
    const u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = toFloat(f16{(u16)w[i]});
        x[2 * i + 1] = toFloat(f16{(u16)(w[i] >> 16)});
    }
}

__device__ __forceinline__ void unpack(const uint4 &v, float (&x)[8], bf16) {
    const u32 w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = __uint_as_float(w[i] << 16);
        x[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}

// Two floats as one word of two 16-bit floats, the first in the low half.
template <typename T>
__device__ __forceinline__ u32 packPair(float a, float b) {
    return (u32)fromFloat<T>(a).bits | ((u32)fromFloat<T>(b).bits << 16);
}

// Whether eight elements of a buffer begin at a multiple of 16 bytes.
__device__ __forceinline__ bool isAligned(const void *p, long long i, int type) {
    return (((unsigned long long)p + i * (type == NIBBLE_F32 ? 4 : 2)) & 15) == 0;
}

// Eight neighbouring elements of a buffer whose type is known at run time, by accesses of 16 bytes: i must suit them.
__device__ __forceinline__ void loadEight(const void *p, long long i, int type, float (&x)[8]) {
    if (type == NIBBLE_F32) {
        const float4 v = *(const float4 *)((const float *)p + i), w = *(const float4 *)((const float *)p + i + 4);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w, x[4] = w.x, x[5] = w.y, x[6] = w.z, x[7] = w.w;
    } else if (type == NIBBLE_F16) {
        unpack(*(const uint4 *)((const f16 *)p + i), x, f16());
    } else {
        unpack(*(const uint4 *)((const bf16 *)p + i), x, bf16());
    }
}

template <typename T>
__device__ __forceinline__ uint4 packEight(const float (&x)[8]) {
    return make_uint4(packPair<T>(x[0], x[1]), packPair<T>(x[2], x[3]), packPair<T>(x[4], x[5]), packPair<T>(x[6], x[7]));
}

__device__ __forceinline__ void storeEight(void *p, long long i, int type, const float (&x)[8]) {
    if (type == NIBBLE_F32) {
        *(float4 *)((float *)p + i) = make_float4(x[0], x[1], x[2], x[3]);
        *(float4 *)((float *)p + i + 4) = make_float4(x[4], x[5], x[6], x[7]);
    } else if (type == NIBBLE_F16) {
        *(uint4 *)((f16 *)p + i) = packEight<f16>(x);
    } else {
        *(uint4 *)((bf16 *)p + i) = packEight<bf16>(x);
    }
}

// `finish` for the first `count` of the outputs n ..< n + 8.
__device__ __forceinline__ void finishEight(const NibbleEpilogue &e, long long m, long long n, const float (&products)[8],
                                            int count) {
    const long long at = m * e.outputStride + n, residualAt = m * e.residualStride + n;
    if (count < 8 || !isAligned(e.output, at, e.outputType) ||
        (e.residual && !isAligned(e.residual, residualAt, e.residualType))) {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < count) finish(e, m, n + i, products[i]);
        return;
    }
    float y[8], residual[8];
    if (e.residual) loadEight(e.residual, residualAt, e.residualType, residual);
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = activate(e.activation, products[i], e.activationParameter) * e.scale;
    if (e.rowScale) {
        const float rowScale = e.rowScale[m];
#pragma unroll
        for (int i = 0; i < 8; ++i) y[i] = rowScale == 0.f ? 0.f : y[i] * rowScale;  // an unused row may have overflowed
    }
    if (e.residual)
#pragma unroll
        for (int i = 0; i < 8; ++i) y[i] += residual[i];
    storeEight(e.output, at, e.outputType, y);
}

// Waits until the preceding kernels have completed and their writes are visible. Does nothing without programmatic dependent
// launch, or before compute capability 9.0.
__device__ __forceinline__ void waitForPredecessors() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel start (programmatic dependent launch). Before it waits, that kernel may only read memory that no kernel
// writes, such as weights.
__device__ __forceinline__ void releaseDependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Whether no token of the call wants the outputs: those of an expert that no token chose. Called by whole warps, first of all.
__device__ __forceinline__ bool isUnused(const NibbleLinearArguments &a) {
    if (!a.activeRows) return false;
    waitForPredecessors();
    bool isUsed = false;
    for (int m = threadIdx.x & 31; m < a.tokens; m += 32) isUsed = isUsed || a.activeRows[m] != 0.f;
    return !__any_sync(~0u, isUsed);
}

// The layer of a group that contains tile `tile` of `rowsPerTile` outputs; `tile` becomes the index within that layer.
__device__ __forceinline__ int layerOfTile(const NibbleLinearArguments &a, int &tile, int rowsPerTile) {
    int p = 0;
    for (; p < a.layerCount - 1; ++p) {
        int tiles = (a.parts[p].outFeatures + rowsPerTile - 1) / rowsPerTile;
        if (tile < tiles) break;
        tile -= tiles;
    }
    return p;
}

// Sums over the warp; lane 2 m + r returns the sum of sums[m][r].
template <typename A, int MM>
__device__ __forceinline__ A sumOfLane(const A (&sums)[MM][2]) {
    A mine = 0;
#pragma unroll
    for (int m = 0; m < MM; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const A sum = warpSum(sums[m][r]);
            if ((threadIdx.x & 31) == 2 * m + r) mine = sum;
        }
    return mine;
}

// The first call of a kernel that does nothing ahead of its predecessors.
__device__ __forceinline__ void beginKernel() {
    releaseDependents();
    waitForPredecessors();
}
