// The first half of adapters' low-rank sums: weight * scale * (A . x). Products add B to it when they store their outputs.
#include "row_input.cuh"

// The layer that holds rank `rank` of all layers; `rank` becomes its number there.
__device__ __forceinline__ const NibbleShrinkLayer &layerOfRank(const NibbleShrinkArguments &a, int &rank) {
    int p = 0;
    for (; p < a.layerCount - 1 && rank >= a.layers[p].ranks; ++p) rank -= a.layers[p].ranks;
    return a.layers[p];
}

// Eight elements as they lie in memory, read ahead of a predecessor: A is a weight.
__device__ __forceinline__ Run fetchRun(const void *p, long long i, int type) {
    Run run = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
    run.low = loadStreaming((const char *)p + i * (type == NIBBLE_F32 ? 4 : 2));
    if (type == NIBBLE_F32) run.high = loadStreaming((const float *)p + i + 4);
    return run;
}

__device__ __forceinline__ void unpackRun(const Run &run, int type, float (&x)[8]) {
    if (type == NIBBLE_F16) return unpack(run.low, x, f16());
    if (type == NIBBLE_BF16) return unpack(run.low, x, bf16());
    float4 low = *(const float4 *)&run.low, high = *(const float4 *)&run.high;
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w, x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

// One token: a block takes one rank. Its row of A is on the way before the input is known.
template <typename T>
__device__ __forceinline__ void shrinkSingleBody(const NibbleShrinkArguments &a) {
    constexpr int Depth = 6;
    releaseDependents();
    int rank = blockIdx.x;
    const NibbleShrinkLayer &layer = layerOfRank(a, rank);
    const int runs = a.inFeatures / 8;
    float factor = adapterWeight(a.weights, a.weightStride, a.slots, 0, layer.adapters[rank]) * layer.scales[rank];
    RowInput<T> row(a.input, a.prologue, a.inFeatures);
    Run ahead[Depth];
    if (factor != 0.f) {
        row.prefetchWeights();
#pragma unroll
        for (int d = 0; d < Depth; ++d) {
            const int i = threadIdx.x + d * NIBBLE_SHRINK_THREADS;
            if (i < runs) ahead[d] = fetchRun(layer.a, (long long)rank * a.inFeatures + 8 * i, layer.type);
        }
    }
    waitForPredecessors();
    if (a.activeRows && a.activeRows[0] == 0.f) factor = 0.f;
    float sum = 0.f;
    if (factor != 0.f) {
        row.measure();
        for (int base = 0; base < runs; base += Depth * NIBBLE_SHRINK_THREADS) {
#pragma unroll
            for (int d = 0; d < Depth; ++d) {
                const int i = base + threadIdx.x + d * NIBBLE_SHRINK_THREADS;
                if (i >= runs) continue;
                if (base > 0) ahead[d] = fetchRun(layer.a, (long long)rank * a.inFeatures + 8 * i, layer.type);
                float x[8], w[8];
                row.finish(row.fetch(i), i, x);
                unpackRun(ahead[d], layer.type, w);
#pragma unroll
                for (int j = 0; j < 8; ++j) sum = fmaf(w[j], x[j], sum);
            }
        }
        sum = blockSum(sum);
    }
    // A token that does not use the adapter must not see its overflows.
    if (threadIdx.x == 0) layer.sums[rank] = factor == 0.f ? 0.f : factor * sum;
}

// A block takes eight ranks of one adapter for a few tokens; its threads divide K.
template <typename T>
__device__ __forceinline__ void shrinkBody(const NibbleShrinkArguments &a) {
    constexpr int Tokens = NIBBLE_SHRINK_TOKENS, Ranks = NIBBLE_RANK_UNIT, Warps = NIBBLE_SHRINK_THREADS / 32;
    __shared__ float partial[Warps][Tokens * Ranks];
    beginKernel();
    int first = blockIdx.x * Ranks;
    const NibbleShrinkLayer &layer = layerOfRank(a, first);
    const int K = a.inFeatures, m0 = blockIdx.y * Tokens, adapter = layer.adapters[first];
    const int xType = sizeof(T) == 4 ? NIBBLE_F32 : IsHalf<T>::value ? NIBBLE_F16 : NIBBLE_BF16;
    float weights[Tokens];
    bool isUsed = false;
#pragma unroll
    for (int m = 0; m < Tokens; ++m) {
        const bool isActive = m0 + m < a.tokens && !(a.activeRows && a.activeRows[m0 + m] == 0.f);
        weights[m] = isActive ? adapterWeight(a.weights, a.weightStride, a.slots, m0 + m, adapter) : 0.f;
        isUsed = isUsed || weights[m] != 0.f;
    }
    float sums[Tokens][Ranks] = {};
    if (isUsed) {
        const bool isVector = K % 8 == 0 && isAligned(a.input, 0, xType) && isAligned(layer.a, 0, layer.type);
        const int vectors = isVector ? K / 8 : 0;
        for (int i = threadIdx.x; i < vectors; i += NIBBLE_SHRINK_THREADS) {
            float x[Tokens][8];
#pragma unroll
            for (int m = 0; m < Tokens; ++m) loadEight(a.input, (long long)min(m0 + m, a.tokens - 1) * K + 8 * i, xType, x[m]);
#pragma unroll
            for (int r = 0; r < Ranks; ++r) {
                float w[8];
                loadEight(layer.a, (long long)(first + r) * K + 8 * i, layer.type, w);
#pragma unroll
                for (int m = 0; m < Tokens; ++m)
#pragma unroll
                    for (int j = 0; j < 8; ++j) sums[m][r] = fmaf(w[j], x[m][j], sums[m][r]);
            }
        }
        for (int k = 8 * vectors + threadIdx.x; k < K; k += NIBBLE_SHRINK_THREADS) {
#pragma unroll
            for (int r = 0; r < Ranks; ++r) {
                const float w = loadAs(layer.a, (long long)(first + r) * K + k, layer.type);
#pragma unroll
                for (int m = 0; m < Tokens; ++m)
                    sums[m][r] = fmaf(w, loadAs(a.input, (long long)min(m0 + m, a.tokens - 1) * K + k, xType), sums[m][r]);
            }
        }
#pragma unroll
        for (int m = 0; m < Tokens; ++m)
#pragma unroll
            for (int r = 0; r < Ranks; ++r) {
                const float sum = warpSum(sums[m][r]);
                if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5][m * Ranks + r] = sum;
            }
    }
    __syncthreads();
    const int m = threadIdx.x / Ranks, r = threadIdx.x % Ranks;
    if (m >= Tokens || m0 + m >= a.tokens) return;
    // weights[m] with a constant index stays in a register.
    float factor = 0.f;
#pragma unroll
    for (int i = 0; i < Tokens; ++i)
        if (i == m) factor = weights[i];
    float sum = 0.f;
    if (factor != 0.f)
        for (int w = 0; w < Warps; ++w) sum += partial[w][threadIdx.x];
    // A token that does not use the adapter must not see its overflows.
    layer.sums[(long long)(m0 + m) * a.sumsStride + first + r] = factor == 0.f ? 0.f : factor * layer.scales[first + r] * sum;
}

#define SHRINK(T)                                                       \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SHRINK_THREADS) \
        shrink_##T(const __grid_constant__ NibbleShrinkArguments a) {   \
        shrinkBody<T>(a);                                               \
    }
#define SHRINK_SINGLE(T)                                                     \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SHRINK_THREADS)      \
        shrink_single_##T(const __grid_constant__ NibbleShrinkArguments a) { \
        shrinkSingleBody<T>(a);                                              \
    }
#define INSTANCE_f32(T) SHRINK(T)
#define INSTANCE_f16(T) SHRINK(T) SHRINK_SINGLE(T)
#define INSTANCE_bf16(T) SHRINK(T) SHRINK_SINGLE(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
