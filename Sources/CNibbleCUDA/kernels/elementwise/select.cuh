// Choosing a token of one row of float32 logits.
#pragma once
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

// The larger of two results; the lower token among equals.
__device__ __forceinline__ NibbleLargest larger(NibbleLargest a, NibbleLargest b) {
    return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

__device__ __forceinline__ NibbleLargest largestOfWarp(NibbleLargest x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x = larger(x, {__shfl_xor_sync(~0u, x.value, d), __shfl_xor_sync(~0u, x.token, d)});
    return x;
}

#define NO_TOKEN 0x7fffffff

// The largest of the logits first ..< last, by a block; NO_TOKEN if there are none. NaN counts as larger than all, with token -1.
__device__ NibbleLargest argmax(const float *logits, int first, int last) {
    NibbleLargest best = {-NIBBLE_INFINITY, NO_TOKEN};
    // Tokens ascend within a thread, so the first of equals stays.
    auto visit = [&](float x, int v) {
        if (x != x) {
            best = {NIBBLE_INFINITY, -1};
        } else if (x > best.value || (x == best.value && best.token == NO_TOKEN)) {
            best = {x, v};
        }
    };
    if (((unsigned long long)(logits + first) & 15) == 0) {
        const int whole = first + (last - first) / 4 * 4;
#pragma unroll 4
        for (int v = first + 4 * threadIdx.x; v < whole; v += 4 * blockDim.x) {
            const float4 x = *(const float4 *)(logits + v);
            visit(x.x, v);
            visit(x.y, v + 1);
            visit(x.z, v + 2);
            visit(x.w, v + 3);
        }
        for (int v = whole + threadIdx.x; v < last; v += blockDim.x) visit(logits[v], v);
    } else {
        for (int v = first + threadIdx.x; v < last; v += blockDim.x) visit(logits[v], v);
    }
    __shared__ NibbleLargest warps[32];
    best = largestOfWarp(best);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) warps[threadIdx.x >> 5] = best;
    __syncthreads();
    const int lane = threadIdx.x & 31;
    return largestOfWarp(lane < (blockDim.x + 31) / 32 ? warps[lane] : NibbleLargest{-NIBBLE_INFINITY, NO_TOKEN});
}

// MARK: Sampling

// Maps floats to unsigned integers of the same order.
__device__ __forceinline__ u32 orderKey(float x) {
    const u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float fromOrderKey(u32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// exp(score - largest), 1 where both are infinite.
__device__ __forceinline__ float relativeWeight(float score, float largest) {
    return score == largest ? 1.f : expf(score - largest);
}

// The same in units of 2^-40: integer sums do not depend on their order.
__device__ __forceinline__ u64 weightOf(float score, float largest) {
    return (u64)((double)relativeWeight(score, largest) * 1099511627776.0);
}

struct LogitsRow {
    const float *logits;
    int count;
    float temperature;
    float largest;  // score

    __device__ __forceinline__ float score(int v) const {
        const float x = logits[v] / temperature;
        return x == x ? x + 0.f : -NIBBLE_INFINITY;  // -0 has the key of 0
    }
};

struct Threshold {
    u32 key;
    u64 above;  // weight of what has a larger key
    u64 at;     // weight of what has this key
};

// The smallest key such that what lies above it weighs less than `wanted`: a radix descent, eight bits a pass. With unit
// weights it is the key of the wanted-th largest score.
template <bool isWeighted>
__device__ Threshold threshold(const LogitsRow &row, u32 lowest, u64 wanted) {
    __shared__ u64 bins[256];
    __shared__ Threshold found;
    if (threadIdx.x == 0) found = Threshold{0, 0, 0};
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        const u32 mask = shift == 24 ? 0 : ~0u << (shift + 8);
        const u32 prefix = found.key;
        for (int v = threadIdx.x; v < row.count; v += blockDim.x) {
            const float s = row.score(v);
            const u32 key = orderKey(s);
            if (key < lowest || (key & mask) != prefix) continue;
            const u64 weight = isWeighted ? weightOf(s, row.largest) : 1;
            if (weight) atomicAdd(&bins[(key >> shift) & 255], weight);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            // The bin in which the sum reaches `wanted`, or the lowest bin that is not empty.
            u64 above = found.above;
            int best = 0;
            for (int bin = 255; bin >= 0; bin--) {
                if (bins[bin] == 0) continue;
                best = bin;
                found.above = above;
                above += bins[bin];
                if (above >= wanted) break;
            }
            found.key |= (u32)best << shift;
            found.at = bins[best];
        }
        __syncthreads();
    }
    const Threshold result = found;
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

// The tokens that may be drawn.
struct Candidates {
    u32 lowest;           // key
    u64 tiesToSkip;       // of those with the lowest key, so many with the lowest ids
                          // are out
    float minimumWeight;  // relative to the largest
};

// The token at which the running sum of weights, in id order, first exceeds a uniform part of their total.
__device__ int draw(const LogitsRow &row, const Candidates &c, u64 random) {
    const int perThread = (row.count + blockDim.x - 1) / blockDim.x;
    const int first = min((int)threadIdx.x * perThread, row.count);
    const int last = min(first + perThread, row.count);
    u64 tiesBefore = 0;
    if (c.tiesToSkip) {
        u64 ties = 0, total;
        for (int v = first; v < last; v++) ties += orderKey(row.score(v)) == c.lowest;
        tiesBefore = runningSum(ties, &total) - ties;
    }
    auto weight = [&](int v, u64 &ties) -> u64 {
        const float s = row.score(v);
        const u32 key = orderKey(s);
        if (key < c.lowest || relativeWeight(s, row.largest) < c.minimumWeight) return 0;
        if (key == c.lowest && ties++ < c.tiesToSkip) return 0;
        return weightOf(s, row.largest);
    };
    u64 mine = 0, total, ties = tiesBefore;
    for (int v = first; v < last; v++) mine += weight(v, ties);

    __shared__ int token;
    if (threadIdx.x == 0) token = 0;
    u64 running = runningSum(mine, &total) - mine;
    const u64 target = __umul64hi(random, total);
    if (running <= target && target < running + mine) {
        ties = tiesBefore;
        for (int v = first; v < last; v++) {
            running += weight(v, ties);
            if (running > target) {
                token = v;
                break;
            }
        }
    }
    __syncthreads();
    return token;
}

// Top-p: removes the least likely tokens as long as their cumulative probability is at most 1 - p; among equals the lower id is
// removed first.
__device__ void keepNucleus(const LogitsRow &row, float topP, Candidates &c) {
    u64 mine = 0, total;
    for (int v = threadIdx.x; v < row.count; v += blockDim.x) {
        const float s = row.score(v);
        if (orderKey(s) >= c.lowest) mine += weightOf(s, row.largest);
    }
    runningSum(mine, &total);
    const u64 removable = (u64)((1.0 - (double)fmaxf(topP, 0.f)) * (double)total);
    const Threshold t = threshold<true>(row, c.lowest, total > removable ? total - removable : 1);
    c.lowest = t.key;
    const u64 weight = weightOf(fromOrderKey(t.key), row.largest);
    const u64 notBelow = removable + t.above + t.at;
    if (weight && notBelow > total) c.tiesToSkip = min((notBelow - total) / weight, t.at / weight - 1);
}

struct Sampling {
    float temperature, topP, minP;
    int topK;  // 0: all
    u64 seed, stream, counter;
};

// Draws a token of a row whose largest logit is finite; by a block.
__device__ __forceinline__ int draw(const float *logits, int count, float largest, const Sampling &s) {
    const LogitsRow row{logits, count, s.temperature, largest / s.temperature};
    Candidates c{0, 0, fminf(s.minP, 1.f)};
    if (s.topK > 0 && s.topK < count) c.lowest = threshold<false>(row, 0, (u64)s.topK).key;
    if (s.topP < 1.f) keepNucleus(row, s.topP, c);
    return draw(row, c, uniform(s.seed, s.stream, s.counter));
}
