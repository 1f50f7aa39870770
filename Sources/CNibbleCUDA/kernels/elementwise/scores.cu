// Log probabilities of each row of float32 logits.
#include "select.cuh"

__device__ __forceinline__ float logProbability(float logit, float largest, double logOfSum) {
    if (logit == -NIBBLE_INFINITY) return logit;
    return logit == largest ? (float)-logOfSum : (float)((double)logit - (double)largest - logOfSum);
}

struct LikelyTokens {
    float logits[NIBBLE_MOST_SCORES];
    int ids[NIBBLE_MOST_SCORES];
};

// Collects the `wanted` largest logits of a row in any order, of equal ones those with the lowest ids; by a block. The row has no
// NaN and at least `wanted` logits.
__device__ void collectLikely(const LogitsRow &row, int wanted, LikelyTokens &likely) {
    __shared__ int filled;
    const Threshold lowest = threshold<false>(row, 0, (u64)wanted);
    const int above = (int)lowest.above, wantedTies = wanted - above;
    if (threadIdx.x == 0) filled = 0;
    __syncthreads();
    int ties = 0;
    for (int start = 0; start < row.count; start += blockDim.x) {
        const int v = start + threadIdx.x;
        const float logit = v < row.count ? row.logits[v] : -NIBBLE_INFINITY;
        const u32 key = v < row.count ? orderKey(row.score(v)) : 0;
        if (key > lowest.key) {
            const int i = atomicAdd(&filled, 1);
            likely.logits[i] = logit;
            likely.ids[i] = v;
        }
        const bool isTie = key == lowest.key;
        if (ties >= wantedTies || !__syncthreads_or(isTie)) continue;
        u64 found;
        const int i = ties + (int)runningSum(isTie, &found) - 1;
        if (isTie && i < wantedTies) {
            likely.logits[above + i] = logit;
            likely.ids[above + i] = v;
        }
        ties += (int)found;
    }
    __syncthreads();
}

// grid n, block 1024
extern "C" __global__ void __launch_bounds__(1024) scores(const __grid_constant__ NibbleScoresArguments a) {
    beginKernel();
    const int r = blockIdx.x, thread = threadIdx.x;
    const float *logits = a.logits + (long long)r * a.vocabulary;
    float *values = a.values + (long long)r * (2 + a.k);
    int *ids = a.ids + (long long)r * a.k;
    const NibbleLargest best = argmax(logits, 0, a.vocabulary);
    const float largest = best.value;
    if (largest > -NIBBLE_INFINITY && best.token < 0) {
        if (thread < 2 + a.k) values[thread] = __int_as_float(0x7fc00000);
        if (thread < a.k) ids[thread] = -1;
        return;
    }
    u64 mine = 0, total;
    for (int v = thread; v < a.vocabulary; v += blockDim.x) mine += weightOf(logits[v], largest);
    runningSum(mine, &total);
    const double logOfSum = log((double)total * 0x1p-40);
    if (thread == 0) {
        const int chosen = a.chosen[r];
        values[0] = largest - largest == 0.f ? (float)((double)largest + logOfSum) : largest;
        values[1] =
            (u32)chosen < (u32)a.vocabulary ? logProbability(logits[chosen], largest, logOfSum) : __int_as_float(0x7fc00000);
    }
    const int wanted = min(a.k, a.vocabulary);
    if (wanted <= 0) return;

    __shared__ LikelyTokens likely;
    collectLikely(LogitsRow{logits, a.vocabulary, 1.f, largest}, wanted, likely);
    if (thread < wanted) {
        const float logit = likely.logits[thread];
        const int id = likely.ids[thread];
        int rank = 0;
        for (int i = 0; i < wanted; i++) rank += likely.logits[i] > logit || (likely.logits[i] == logit && likely.ids[i] < id);
        values[2 + rank] = logProbability(logit, largest, logOfSum);
        ids[rank] = id;
    } else if (thread < a.k) {
        values[2 + thread] = -NIBBLE_INFINITY;
        ids[thread] = -1;
    }
}
