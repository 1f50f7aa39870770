// What every kernel shares: 16-bit floats without toolkit headers, typed loads and stores, reductions, pointwise functions.
#pragma once
#include "nibble_kernel_arguments.h"

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Storage types; arithmetic happens in float.
struct alignas(2) f16 { u16 bits; };
struct alignas(2) bf16 { u16 bits; };
typedef float f32;

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

#define NIBBLE_INFINITY __int_as_float(0x7f800000)

__device__ __forceinline__ float toFloat(float x) { return x; }

__device__ __forceinline__ float toFloat(f16 x) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
    return r;
}

__device__ __forceinline__ float toFloat(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <typename T> __device__ __forceinline__ T fromFloat(float x);

template <> __device__ __forceinline__ float fromFloat<float>(float x) { return x; }

template <> __device__ __forceinline__ f16 fromFloat<f16>(float x) {
    f16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
}

template <> __device__ __forceinline__ bf16 fromFloat<bf16>(float x) {
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
    if (type == NIBBLE_F32) ((float *)p)[i] = x;
    else if (type == NIBBLE_F16) ((f16 *)p)[i] = fromFloat<f16>(x);
    else ((bf16 *)p)[i] = fromFloat<bf16>(x);
}

__device__ __forceinline__ float activate(int activation, float x, float parameter) {
    switch (activation) {
        case NIBBLE_RELU: return fmaxf(x, 0.f);
        case NIBBLE_RELU_SQUARED: { float r = fmaxf(x, 0.f); return r * r; }
        case NIBBLE_GELU: return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
        case NIBBLE_GELU_TANH: return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
        case NIBBLE_QUICK_GELU: return x / (1.f + expf(-1.702f * x));
        case NIBBLE_SILU: return x / (1.f + expf(-x));
        case NIBBLE_SIGMOID: return 1.f / (1.f + expf(-x));
        case NIBBLE_TANH: return tanhf(x);
        case NIBBLE_SOFT_CAP: return parameter * tanhf(x / parameter);
        default: return x;
    }
}

// Stores one output of a linear layer; `product` has its bias already.
__device__ __forceinline__ void finish(const NibbleEpilogue &e, long long m, long long n, float product) {
    float y = activate(e.activation, product, e.activationParameter) * e.scale;
    if (e.rowScale) y = e.rowScale[m] == 0.f ? 0.f : y * e.rowScale[m];  // an unused row may have overflowed
    if (e.residual) y += loadAs(e.residual, m * e.residualStride + n, e.residualType);
    storeAs(e.output, m * e.outputStride + n, e.outputType, y);
}

__device__ __forceinline__ float warpSum(float x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
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
