// The next token of each row, from float32 logits, and the step to the next position.
#include "common.cuh"

// MARK: Random numbers (SplitMix64's finalizer over seed, stream, counter)

__device__ __forceinline__ u64 mix(u64 value) {
    u64 z = value + 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// Uniform in [0, 1) as a multiple of 2^-24, times 2^64.
__device__ __forceinline__ u64 uniform(u64 seed, u64 stream, u64 counter) {
    return (mix(mix(mix(seed) ^ stream) ^ counter) >> 40) << 40;
}

// MARK: Greedy

// The largest logit, the lowest id among equals. NaN counts as the smallest.
__device__ int argmax(const float *logits, int count, float *largest) {
    float best = -NIBBLE_INFINITY;
    int place = count;
    for (int v = threadIdx.x; v < count; v += blockDim.x) {
        const float x = logits[v];
        if (x > best || (place == count && x == best)) {
            best = x;
            place = v;
        }
    }
    const float top = blockMax(best);
    __shared__ int winner;
    if (threadIdx.x == 0) winner = count;
    __syncthreads();
    if (best == top && place < count) atomicMin(&winner, place);
    __syncthreads();
    *largest = top;
    return winner < count ? winner : 0;
}

// MARK: Sampling

// Floats in their order as unsigned numbers.
__device__ __forceinline__ u32 orderKey(float x) {
    const u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// exp(score - largest) in units of 2^-40: integer sums do not depend on their order.
__device__ __forceinline__ u64 weightOf(float score, float largest) {
    const float w = expf(score - largest);
    return w > 0.f ? (u64)((double)w * 1099511627776.0) : 0;
}

struct Row {
    const float *logits;
    int count;
    float temperature;
    float largest;   // score

    __device__ __forceinline__ float score(int v) const {
        const float x = logits[v];
        return x == x ? x / temperature : -NIBBLE_INFINITY;
    }
};

// The smallest key such that what lies above it sums to less than `wanted`: a radix descent, eight bits a pass. With unit
// weights it is the key of the wanted-th largest score (top-k, ties stay); with exp weights the last one of top-p.
template <bool isWeighted> __device__ u32 thresholdKey(const Row &row, u32 lowest, u64 wanted) {
    __shared__ u64 bins[256];
    __shared__ u32 prefix;
    __shared__ u64 above;
    if (threadIdx.x == 0) {
        prefix = 0;
        above = 0;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        const u32 mask = shift == 24 ? 0 : ~0u << (shift + 8);
        const u32 wantedPrefix = prefix;
        for (int v = threadIdx.x; v < row.count; v += blockDim.x) {
            const float s = row.score(v);
            const u32 key = orderKey(s);
            if (key < lowest || (key & mask) != wantedPrefix) continue;
            const u64 weight = isWeighted ? weightOf(s, row.largest) : 1;
            if (weight) atomicAdd(&bins[(key >> shift) & 255], weight);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int bin = 255;
            int last = -1;  // the lowest bin with anything in it, for when rounding leaves too little
            u64 lastAbove = above;
            for (; bin >= 0; bin--) {
                if (bins[bin] == 0) continue;
                last = bin;
                lastAbove = above;
                if (above + bins[bin] >= wanted) break;
                above += bins[bin];
            }
            if (bin < 0) {
                bin = max(last, 0);
                above = lastAbove;
            }
            prefix |= (u32)bin << shift;
        }
        __syncthreads();
    }
    const u32 result = prefix;
    __syncthreads();
    return result;
}

// The sum over threads up to and including this one; the block has whole warps.
__device__ u64 runningSum(u64 x, u64 *total) {
    __shared__ u64 warpTotals[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int d = 1; d < 32; d <<= 1) {
        const u64 y = __shfl_up_sync(~0u, x, d);
        if (lane >= d) x += y;
    }
    __syncthreads();
    if (lane == 31) warpTotals[warp] = x;
    __syncthreads();
    u64 before = 0, all = 0;
    for (int w = 0; w < blockDim.x / 32; w++) {
        if (w < warp) before += warpTotals[w];
        all += warpTotals[w];
    }
    *total = all;
    return before + x;
}

// The token at which the running sum of weights, in id order, first exceeds a uniform part of their total.
__device__ int draw(const Row &row, u32 lowest, float minimumWeight, u64 random) {
    auto weight = [&](int v) -> u64 {
        const float s = row.score(v);
        if (orderKey(s) < lowest || expf(s - row.largest) < minimumWeight) return 0;
        return weightOf(s, row.largest);
    };
    const int perThread = (row.count + blockDim.x - 1) / blockDim.x;
    const int first = min((int)threadIdx.x * perThread, row.count);
    const int last = min(first + perThread, row.count);
    u64 mine = 0;
    for (int v = first; v < last; v++) mine += weight(v);

    __shared__ int token;
    if (threadIdx.x == 0) token = 0;
    u64 total;
    u64 running = runningSum(mine, &total) - mine;
    const u64 target = __umul64hi(random, total);
    if (running <= target && target < running + mine) {
        for (int v = first; v < last; v++) {
            running += weight(v);
            if (running > target) {
                token = v;
                break;
            }
        }
    }
    __syncthreads();
    return token;
}

// grid R, block 1024
extern "C" __global__ void select_tokens(const __grid_constant__ NibbleSelectArguments a) {
    const int r = blockIdx.x;
    const float *logits = a.logits + (long long)r * a.vocabulary;
    float largest;
    int token = argmax(logits, a.vocabulary, &largest);
    // Without a finite maximum there is no distribution to draw from.
    if (a.temperature > 0.f && isfinite(largest)) {
        const Row row{logits, a.vocabulary, a.temperature, largest / a.temperature};
        u32 lowest = 0;
        if (a.topK > 0 && a.topK < a.vocabulary) lowest = thresholdKey<false>(row, 0, (u64)a.topK);
        if (a.topP < 1.f) {
            u64 mine = 0;
            for (int v = threadIdx.x; v < a.vocabulary; v += blockDim.x) {
                const float s = row.score(v);
                if (orderKey(s) >= lowest) mine += weightOf(s, row.largest);
            }
            u64 total;
            runningSum(mine, &total);
            const u64 wanted = (u64)((double)total * (double)fmaxf(a.topP, 0.f));
            lowest = max(lowest, thresholdKey<true>(row, lowest, max(wanted, 1ull)));
        }
        const u64 random = uniform(a.seed, a.firstStream + (u64)r, (u64)a.counters[r]);
        token = draw(row, lowest, fminf(a.minP, 1.f), random);
    }
    if (threadIdx.x == 0) a.tokens[r] = token;
}

// One thread a row; block 128.
extern "C" __global__ void advance(const __grid_constant__ NibbleAdvanceArguments a) {
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= a.batch.rowCount) return;
    a.batch.tokens[r] = a.tokens[r];
    a.batch.positions[r] += 1;
    a.batch.lengths[r] += 1;
    a.counters[r] += 1;
}
