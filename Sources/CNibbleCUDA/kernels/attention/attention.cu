// Attention for every case: any sizes up to 512, any cache type, any mask. A block takes one query of one head.
#include "attention.cuh"
#include "cache_codes.cuh"

// One head in one block of the cache: position i's element d.
struct DensePanel {
    const void *memory;
    long long offset;
    int size, type;

    __device__ __forceinline__ DensePanel(const NibbleAttentionArguments &a, const void *memory, int row, int key, int g,
                                          int size)
        : memory(memory), offset(cacheOffset(a, row, key, g, size)), size(size), type(a.cacheType) {}
    __device__ __forceinline__ float operator()(int i, int d) const {
        return loadAs(memory, offset + (long long)i * size + d, type);
    }
};

struct CodePanel {
    CodeLayout layout;
    const u8 *panel;

    __device__ __forceinline__ CodePanel(const NibbleAttentionArguments &a, const void *memory, int row, int key, int g, int size)
        : layout{size, a.cacheGroup, a.cacheBits}, panel((const u8 *)memory + panelIndex(a, row, key, g) * layout.panelBytes()) {}
    __device__ __forceinline__ float operator()(int i, int d) const { return layout.element(panel, i, d); }
};

template <typename T, typename Panel>
__device__ __forceinline__ void attendBody(const NibbleAttentionArguments &a) {
    __shared__ float query[512], weights[128];
    releaseDependents();
    waitForPredecessors();
    const int t = blockIdx.x, h = blockIdx.y, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int row = a.batch.rows[t], position = a.batch.positions[t], length = a.batch.lengths[row];
    const int g = h / (a.heads / a.keyValueHeads);
    const ScoreRule rule(a, h);
    for (int d = threadIdx.x; d < a.keySize; d += 128) query[d] = toFloat(((const T *)a.queries)[queryOffset(a, t, h) + d]);
    __syncthreads();
    // A sink is a score without a value: the softmax begins with it.
    float maximum = sinkOf(a, h), denominator = maximum > -NIBBLE_INFINITY ? 1.f : 0.f, sums[4] = {0.f, 0.f, 0.f, 0.f};
    const int last = rule.last(position, length);
    for (int base = rule.first(position) / 128 * 128; base < last; base += 128) {
        const int first = base + warp * 32;
        float score = -NIBBLE_INFINITY;
        // Cache blocks before the window may have been given to another row.
        if (first < last && first + 31 >= rule.first(position)) {
            const Panel keys(a, a.keys, row, first, g, a.keySize);
            for (int i = 0; i < 32 && first + i < last; ++i) {
                float product = 0.f;
                for (int d = lane; d < a.keySize; d += 32) product = fmaf(query[d], keys(i, d), product);
                product = warpSum(product);
                if (lane == i) score = rule(product, position, first + i, length);
            }
        }
        const float larger = fmaxf(maximum, blockMax(score));
        if (larger == -NIBBLE_INFINITY) continue;
        const float correction = expf(maximum - larger), weight = expf(score - larger);
        maximum = larger;
        weights[threadIdx.x] = weight;
        denominator = denominator * correction + blockSum(weight);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[i] *= correction;
        for (int j = 0; j < 128 && base + j < last; j += 32) {
            if (base + j + 31 < rule.first(position)) continue;
            const Panel values(a, a.values, row, base + j, g, a.valueSize);
            for (int i = 0; i < 32 && base + j + i < last; ++i)
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const int d = threadIdx.x + 128 * c;
                    if (d < a.valueSize) sums[c] = fmaf(weights[j + i], values(i, d), sums[c]);
                }
        }
        __syncthreads();
    }
    T *output = (T *)a.output + ((long long)t * a.heads + h) * a.valueSize;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
        const int d = threadIdx.x + 128 * c;
        if (d < a.valueSize) output[d] = fromFloat<T>(dividedOrZero(sums[c], denominator));
    }
}

#define INSTANCE(T)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(128) attend_##T(const __grid_constant__ NibbleAttentionArguments a) {       \
        attendBody<T, DensePanel>(a);                                                                                        \
    }                                                                                                                        \
    extern "C" __global__ void __launch_bounds__(128) attend_codes_##T(const __grid_constant__ NibbleAttentionArguments a) { \
        attendBody<T, CodePanel>(a);                                                                                         \
    }
NIBBLE_FOR_TYPES(INSTANCE)
