// Reads one token for a product and normalizes and rounds it on the way, which saves a separate kernel.
#pragma once
#include "common.cuh"

// Count, mean and sum of squared deviations of numbers, merged pairwise (Chan, Golub, LeVeque 1979).
struct Moments {
    float count, mean, squares;

    __device__ __forceinline__ void add(const Moments &o) {
        const float total = count + o.count, share = total > 0.f ? __fdividef(o.count, total) : 0.f, d = o.mean - mean;
        mean = fmaf(d, share, mean);
        squares += o.squares + d * d * count * share;
        count = total;
    }
};

__device__ __forceinline__ Moments warpMoments(Moments x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1)
        x.add({__shfl_xor_sync(~0u, x.count, d), __shfl_xor_sync(~0u, x.mean, d), __shfl_xor_sync(~0u, x.squares, d)});
    return x;
}

// Over a block of up to 1024 threads; every thread gets the same result. May be called repeatedly.
__device__ __forceinline__ Moments blockMoments(Moments x) {
    __shared__ Moments partial[32];
    x = warpMoments(x);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = x;
    __syncthreads();
    const int lane = threadIdx.x & 31;
    x = warpMoments(lane < (blockDim.x + 31) / 32 ? partial[lane] : Moments{0.f, 0.f, 0.f});
    return {__shfl_sync(~0u, x.count, 0), __shfl_sync(~0u, x.mean, 0), __shfl_sync(~0u, x.squares, 0)};
}

__device__ __forceinline__ void prefetch(const void *p) { asm volatile("prefetch.global.L1 [%0];" ::"l"(p)); }

// Eight elements as they lie in memory; 16-bit ones fill half of it.
struct Run {
    uint4 low, high;
};

template <typename T>
struct Other16 {
    typedef f16 Type;
};
template <>
struct Other16<f16> {
    typedef bf16 Type;
};

// The token in runs of eight elements: of a 16-bit type T, or of float32 where a prologue brings them to T. K must be divisible
// by 8. Programs compiled with NIBBLE_MIXED expect the other 16-bit type in memory, and round to it what a prologue makes.
template <typename T>
struct RowInput {
    const void *input;
    const NibblePrologue &prologue;
    int K;
    float mean = 0.f, scale = 1.f;

    __device__ __forceinline__ RowInput(const void *row, const NibblePrologue &prologue, int K)
        : input(row), prologue(prologue), K(K) {}

    __device__ __forceinline__ bool isPrepared() const { return prologue.kind != NIBBLE_PROLOGUE_NONE; }
    __device__ __forceinline__ bool isNormalized() const {
        return prologue.kind == NIBBLE_PROLOGUE_RMS || prologue.kind == NIBBLE_PROLOGUE_LAYER;
    }

    // No kernel writes norm weights, so they may be fetched before the preceding kernel has completed.
    __device__ __forceinline__ void prefetchWeights() const {
        if (!isNormalized()) return;
        for (int i = threadIdx.x * 32; i < K; i += blockDim.x * 32) {
            if (prologue.weight) prefetch(prologue.weight + i);
            if (prologue.bias) prefetch(prologue.bias + i);
        }
    }

    // Called by all threads of a block, before anything else is read.
    __device__ __forceinline__ void measure() {
        if (!isNormalized()) return;
        Moments all = {0.f, 0.f, 0.f};
        float squares = 0.f;
        for (int i = threadIdx.x; i < K / 8; i += blockDim.x) {
            float x[8];
            unpackFloats(fetch(i), x);
            if (prologue.kind == NIBBLE_PROLOGUE_RMS) {
#pragma unroll
                for (int j = 0; j < 8; ++j) squares = fmaf(x[j], x[j], squares);
            } else {
                float sum = 0.f, deviations = 0.f;
#pragma unroll
                for (int j = 0; j < 8; ++j) sum += x[j];
#pragma unroll
                for (int j = 0; j < 8; ++j) deviations = fmaf(x[j] - sum * 0.125f, x[j] - sum * 0.125f, deviations);
                all.add({8.f, sum * 0.125f, deviations});
            }
        }
        if (prologue.kind == NIBBLE_PROLOGUE_RMS) {
            squares = blockSum(squares);
        } else {
            all = blockMoments(all);
            mean = all.mean;
            squares = all.squares;
        }
        scale = 1.f / sqrtf(squares / (float)K + prologue.epsilon);
    }

#ifdef NIBBLE_MIXED
    typedef typename Other16<T>::Type Stored;

    // As if a kernel had stored x, and the product converted it to T.
    static __device__ __forceinline__ float rounded(float x) { return toFloat(fromFloat<T>(toFloat(fromFloat<Stored>(x)))); }
#else
    typedef T Stored;

    static __device__ __forceinline__ float rounded(float x) { return toFloat(fromFloat<T>(x)); }
#endif

    static __device__ __forceinline__ void unpackFloats(const Run &run, float (&x)[8]) {
        const u32 words[8] = {run.low.x, run.low.y, run.low.z, run.low.w, run.high.x, run.high.y, run.high.z, run.high.w};
#pragma unroll
        for (int j = 0; j < 8; ++j) x[j] = __uint_as_float(words[j]);
    }

    // Run i; zeros past the end.
    __device__ __forceinline__ Run fetch(int i) const {
        Run run = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
        if (8 * i >= K) return run;
        if (isPrepared()) return {((const uint4 *)input)[2 * i], ((const uint4 *)input)[2 * i + 1]};
        run.low = ((const uint4 *)input)[i];
        return run;
    }

    // Elements 8 i ..< 8 i + 8, rounded to T.
    __device__ __forceinline__ void finish(const Run &run, int i, float (&x)[8]) const {
        if (!isPrepared() || 8 * i >= K) {
            unpack(run.low, x, Stored());
#ifdef NIBBLE_MIXED
#pragma unroll
            for (int j = 0; j < 8; ++j) x[j] = rounded(x[j]);
#endif
            return;
        }
        unpackFloats(run, x);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            x[j] = (x[j] - mean) * scale;
            if (prologue.weight) x[j] *= prologue.weight[8 * i + j];
            if (prologue.bias) x[j] += prologue.bias[8 * i + j];
            x[j] = rounded(x[j]);
        }
    }

    // Calls body(i, x) for all runs i < count, by all threads of a block; lanes of a warp take neighbours and stay together.
    template <typename F>
    __device__ __forceinline__ void forEachRun(int count, F body) const {
        constexpr int ahead = 3;
        for (int base = threadIdx.x & ~31; base < count; base += ahead * blockDim.x) {
            Run raw[ahead];
            const int lane = threadIdx.x & 31;
#pragma unroll
            for (int u = 0; u < ahead; ++u) raw[u] = fetch(base + u * blockDim.x + lane);
#pragma unroll
            for (int u = 0; u < ahead; ++u) {
                const int i = base + u * blockDim.x + lane;
                if (i - lane >= count) break;
                float x[8];
                finish(raw[u], i, x);
                body(i, x);
            }
        }
    }
};
