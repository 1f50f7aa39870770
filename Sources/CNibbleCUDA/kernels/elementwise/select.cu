// Selects the next token of each row from float32 logits, and advances rows to the next position.
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
        return x == x ? x : -NIBBLE_INFINITY;
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

// MARK: Sets of tokens

// Applies the repetition penalty and removes forbidden tokens, among the tokens of the words first ..< last.
__device__ void mask(const NibbleSelectArguments &a, int r, float *logits, int first, int last) {
    u32 *seen = a.seen ? a.seen + (long long)r * ((a.vocabulary + 31) / 32) : nullptr;
    if (seen && a.latest && threadIdx.x == 0) {
        const u32 token = (u32)a.latest[r];
        const int word = (int)(token / 32);
        if (token < (u32)a.vocabulary && word >= first && word < last) seen[word] |= 1u << (token % 32);
    }
    __syncthreads();
    for (int w = first + threadIdx.x; w < last; w += blockDim.x) {
        for (u32 set = seen ? seen[w] : 0; set; set &= set - 1) {
            float *x = logits + 32 * w + __ffs(set) - 1;
            *x = *x < 0.f ? *x * a.penalty : *x / a.penalty;
        }
        for (u32 set = a.forbidden ? a.forbidden[w] : 0; set; set &= set - 1) logits[32 * w + __ffs(set) - 1] = -NIBBLE_INFINITY;
    }
    __syncthreads();
}

// Masks a part of a row and finds its largest logit. grid (NIBBLE_SELECT_PARTS, R), block 256.
extern "C" __global__ void __launch_bounds__(256) select_largest(const __grid_constant__ NibbleSelectArguments a) {
    beginKernel();
    const int r = blockIdx.y, words = (a.vocabulary + 31) / 32;
    const int perPart = (words + NIBBLE_SELECT_PARTS - 1) / NIBBLE_SELECT_PARTS;
    const int first = min((int)blockIdx.x * perPart, words), last = min(first + perPart, words);
    float *logits = a.logits + (long long)r * a.vocabulary;
    if (a.seen || a.forbidden) mask(a, r, logits, first, last);
    const NibbleLargest best = argmax(logits, 32 * first, min(32 * last, a.vocabulary));
    if (threadIdx.x == 0) a.largest[r * NIBBLE_SELECT_PARTS + blockIdx.x] = best;
}

// From the largest logits of the parts; draws where a temperature is given. grid R, block 1024
extern "C" __global__ void select_tokens(const __grid_constant__ NibbleSelectArguments a) {
    beginKernel();
    const int r = blockIdx.x;
    const float *logits = a.logits + (long long)r * a.vocabulary;
    static_assert(NIBBLE_SELECT_PARTS == 32, "a lane for each part");
    const NibbleLargest best = largestOfWarp(a.largest[r * NIBBLE_SELECT_PARTS + (threadIdx.x & 31)]);
    const float largest = best.value;
    int token = largest > -NIBBLE_INFINITY ? best.token : -1;
    if (a.temperature > 0.f && token >= 0) {
        const LogitsRow row{logits, a.vocabulary, a.temperature, largest / a.temperature};
        Candidates c{0, 0, fminf(a.minP, 1.f)};
        if (a.topK > 0 && a.topK < a.vocabulary) c.lowest = threshold<false>(row, 0, (u64)a.topK).key;
        if (a.topP < 1.f) keepNucleus(row, a.topP, c);
        token = draw(row, c, uniform(a.seed, a.firstStream + (u64)r, (u64)(u32)a.counters[r]));
    }
    if (threadIdx.x == 0) a.tokens[r] = token;
}

// One thread a row; block 128.
extern "C" __global__ void advance(const __grid_constant__ NibbleAdvanceArguments a) {
    beginKernel();
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= a.batch.rowCount) return;
    a.batch.tokens[r] = a.tokens[r];
    a.batch.positions[r] += 1;
    a.batch.lengths[r] += 1;
    a.counters[r] += 1;
}
