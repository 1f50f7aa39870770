// Shared by the split-KV kernels: combines the warps of a block, and the splits of a row.
#pragma once
#include "attention.cuh"

#define WARPS (NIBBLE_SPLIT_THREADS / 32)

// Results that the warps of a block exchange.
template <int HB>
struct SplitShared {
    float scores[WARPS][HB][32];
    float maxima[WARPS][HB];
    float denominators[WARPS][HB];

    // The softmax of a warp's 32 keys for head h, whose scores the lanes hold: leaves weights, maximum and denominator.
    __device__ __forceinline__ void weigh(int warp, int h, int lane, float score) {
        const float maximum = warpMax(score), weight = maximum == -NIBBLE_INFINITY ? 0.f : expf(score - maximum),
                    denominator = warpSum(weight);
        scores[warp][h][lane] = weight;
        if (lane == 0) {
            maxima[warp][h] = maximum;
            denominators[warp][h] = denominator;
        }
    }
};

// Combines a token's splits for one head; by `threads` threads from `thread` on, whole warps.
template <typename T>
__device__ __forceinline__ void combineSplits(const NibbleAttentionArguments &a, int t, int h, int length, int thread,
                                              int threads) {
    const int D = a.valueSize, lane = threadIdx.x & 31;
    const int splits = min(a.splits, (length + NIBBLE_SPLIT_LENGTH - 1) / NIBBLE_SPLIT_LENGTH);
    const long long place = (long long)t * a.heads + h;
    const float *partials = a.partials + place * a.splits * (D + 2);
    for (int d0 = 0; d0 < D; d0 += threads) {
        const int d = d0 + thread;
        float largest = -NIBBLE_INFINITY, total = 0.f, sum = 0.f;
        for (int first = 0; first < splits; first += 32) {  // every warp for itself: a lane a split's maximum and denominator
            const int s = first + lane, count = min(splits - first, 32);
            const float maximum = s < splits ? loadFresh(partials + (long long)s * (D + 2) + D) : -NIBBLE_INFINITY;
            const float denominator = s < splits ? loadFresh(partials + (long long)s * (D + 2) + D + 1) : 0.f;
            const float larger = fmaxf(largest, warpMax(maximum));
            if (larger == -NIBBLE_INFINITY) continue;
            const float correction = expf(largest - larger), factor = expf(maximum - larger);
            largest = larger;
            total = total * correction + warpSum(factor * denominator);
            sum *= correction;
#pragma unroll 8
            for (int i = 0; i < count; ++i) {
                const float partial = d < D ? loadFresh(partials + (long long)(first + i) * (D + 2) + d) : 0.f;
                sum = fmaf(__shfl_sync(~0u, factor, i), partial, sum);
            }
        }
        if (d < D) ((T *)a.output)[place * D + d] = fromFloat<T>(dividedOrZero(sum, total));
    }
}

// The last block to arrive combines the splits of its heads. The result does not depend on which block that is.
template <typename T>
__device__ __forceinline__ void combineIfLast(const NibbleAttentionArguments &a, int t, int firstHead, int heads, int length) {
    __shared__ int isLast;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        int *arrivals = a.arrivals + (long long)t * gridDim.y + blockIdx.y;
        const int expected = max(1, min(a.splits, (length + NIBBLE_SPLIT_LENGTH - 1) / NIBBLE_SPLIT_LENGTH));
        isLast = atomicAdd(arrivals, 1) == expected - 1;
        if (isLast) *arrivals = 0;
    }
    __syncthreads();
    if (!isLast) return;
    __threadfence();
    // Each half of the block combines one head at a time.
    for (int h = threadIdx.x / 128; h < heads; h += NIBBLE_SPLIT_THREADS / 128)
        combineSplits<T>(a, t, firstHead + h, length, threadIdx.x % 128, 128);
}

// Joins the warps' sums [warp, HB, D] into the output, or into the split's partial result.
template <typename T, int HB>
__device__ __forceinline__ void mergeWarps(const NibbleAttentionArguments &a, const SplitShared<HB> &shared,
                                           const float *sharedSums, int g, int firstHead, int headCount) {
    const int t = blockIdx.x, split = blockIdx.z, D = a.keySize, group = a.heads / a.keyValueHeads;
    for (int i = threadIdx.x; i < headCount * D; i += NIBBLE_SPLIT_THREADS) {
        const int h = i / D, d = i % D, head = g * group + firstHead + h;
        const float sink = split == 0 ? sinkOf(a, head) : -NIBBLE_INFINITY;  // a score without a value
        float largest = sink, sum = 0.f, total = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) largest = fmaxf(largest, shared.maxima[w][h]);
        if (largest != -NIBBLE_INFINITY) {
            total = expf(sink - largest);
#pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                const float factor = expf(shared.maxima[w][h] - largest);
                sum = fmaf(factor, sharedSums[(w * HB + h) * D + d], sum);
                total = fmaf(factor, shared.denominators[w][h], total);
            }
        }
        const long long place = (long long)t * a.heads + head;
        if (a.splits == 1) {
            ((T *)a.output)[place * D + d] = fromFloat<T>(dividedOrZero(sum, total));
        } else {
            float *partial = a.partials + (place * a.splits + split) * (D + 2);
            partial[d] = sum;
            if (d == 0) {
                partial[D] = largest;
                partial[D + 1] = total;
            }
        }
    }
}
