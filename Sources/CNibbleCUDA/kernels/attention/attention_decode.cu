// Attention of one query per row where attention_step.cu has no kernel: float32, heads of more than 256 elements, relative
// biases, bfloat16 before compute capability 8.0. Keys are split over blocks and the results combined (split-KV, as in
// FlashDecoding).
//
// A block takes NIBBLE_SPLIT_LENGTH keys for up to NIBBLE_SPLIT_HEADS query heads of one key/value head; each of its eight
// warps takes one cache block. Splits begin at fixed keys, so a row's result does not depend on other rows. The splits are
// combined by the block that finishes last, or by a kernel of its own.
#include "attention_split.cuh"

// Sums 8 values over groups of L lanes; lane c of a group gets the sum of value (bit 0 of c) * 4 + (bit 1) * 2 + (bit 2).
template <int L>
__device__ __forceinline__ float sumTransposed(float (&v)[8], int lane) {
#pragma unroll
    for (int step = 1, kept = 4; step < 8; step <<= 1, kept >>= 1) {
        const bool upper = lane & step;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i >= kept) break;
            const float sent = upper ? v[i] : v[i + kept], mine = upper ? v[i + kept] : v[i];
            v[i] = mine + __shfl_xor_sync(~0u, sent, step);
        }
    }
    float sum = v[0];
#pragma unroll
    for (int step = 8; step < L; step <<= 1) sum += __shfl_xor_sync(~0u, sum, step);
    return sum;
}

// Prefetches `bytes` bytes into the L2 cache.
__device__ __forceinline__ void prefetch(const void *start, int bytes, int lane) {
    for (int i = lane * 128; i < bytes; i += 4096) asm volatile("prefetch.global.L2 [%0];" ::"l"((const u8 *)start + i));
}

// L lanes share a key (16 bytes each), HB query heads share the keys.
template <typename T, int L, int HB>
__device__ __forceinline__ void splitBody(const NibbleAttentionArguments &a, SplitShared<HB> &shared, float *sharedSums, int g,
                                          int firstHead) {
    constexpr int E = 16 / sizeof(T), keysPerLoad = 32 / L;
    const int t = blockIdx.x, split = blockIdx.z, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int sub = lane / L, c = lane % L, D = a.keySize, group = a.heads / a.keyValueHeads;
    const bool isActive = c * E < D;
    const int row = a.batch.rows[t], position = a.batch.positions[t], length = a.batch.lengths[row];
    const int base = split * NIBBLE_SPLIT_LENGTH + warp * 32;
    const int headCount = min(HB, group - firstHead);
    const ScoreRule any(a, g * group + firstHead);
    const bool isVisible = base < any.last(position, length) && base + 32 > any.first(position);
    float sums[HB][E] = {};
    if (isVisible) {
        float query[HB][E];
#pragma unroll
        for (int h = 0; h < HB; ++h) {
            const T *q = (const T *)a.queries + queryOffset(a, t, g * group + firstHead + min(h, headCount - 1));
#pragma unroll
            for (int e = 0; e < E; ++e) query[h][e] = isActive ? toFloat(q[c * E + e]) : 0.f;
        }
        const long long cacheBlock = cacheOffset(a, row, base, g, D), offset = cacheBlock + sub * D + (isActive ? c * E : 0);
        const T *keys = (const T *)a.keys + offset, *values = (const T *)a.values + offset;
        if (HB == 1) prefetch((const T *)a.values + cacheBlock, 32 * D * (int)sizeof(T), lane);
#pragma unroll(HB == 1 ? L / 8 : 1)
        for (int u = 0; u < L / 8; ++u) {
            uint4 raw[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) raw[i] = loadWritten(keys + (u * 8 + i) * keysPerLoad * D);
            float products[HB][8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float k[E];
                unpack(raw[i], k, T());
#pragma unroll
                for (int h = 0; h < HB; ++h) {
                    float sum = 0.f;
#pragma unroll
                    for (int e = 0; e < E; ++e) sum = fmaf(query[h][e], k[e], sum);
                    products[h][i] = sum;
                }
            }
            const int index = (c & 1) * 4 + (c & 2) + ((c >> 2) & 1);
#pragma unroll
            for (int h = 0; h < HB; ++h) {
                const float sum = sumTransposed<L>(products[h], lane);
                if (c < 8) shared.scores[warp][h][(u * 8 + index) * keysPerLoad + sub] = sum;
            }
        }
        __syncwarp();
#pragma unroll 1
        for (int h = 0; h < headCount; ++h) {
            const ScoreRule rule(a, g * group + firstHead + h);
            shared.weigh(warp, h, lane, rule(shared.scores[warp][h][lane], position, base + lane, length));
        }
        __syncwarp();
        const int visibleKeys = min(32, length - base);  // values past a row's end may be anything, also NaN
#pragma unroll(HB == 1 ? L / 8 : 1)
        for (int u = 0; u < L / 8; ++u) {
            uint4 raw[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int key = (u * 8 + i) * keysPerLoad;
                raw[i] = key + sub < visibleKeys ? loadWritten(values + key * D) : make_uint4(0, 0, 0, 0);
            }
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float v[E];
                unpack(raw[i], v, T());
#pragma unroll
                for (int h = 0; h < HB; ++h) {
                    const float w = shared.scores[warp][h][(u * 8 + i) * keysPerLoad + sub];
#pragma unroll
                    for (int e = 0; e < E; ++e) sums[h][e] = fmaf(w, v[e], sums[h][e]);
                }
            }
        }
#pragma unroll
        for (int h = 0; h < HB; ++h)
#pragma unroll
            for (int e = 0; e < E; ++e)
#pragma unroll
                for (int step = L; step < 32; step <<= 1) sums[h][e] += __shfl_xor_sync(~0u, sums[h][e], step);
    }
#pragma unroll
    for (int h = 0; h < HB; ++h) {
        if (sub == 0 && isActive)
#pragma unroll
            for (int e = 0; e < E; ++e) sharedSums[(warp * HB + h) * D + c * E + e] = sums[h][e];
        if (!isVisible && lane == 0) {
            shared.maxima[warp][h] = -NIBBLE_INFINITY;
            shared.denominators[warp][h] = 0.f;
        }
    }
    __syncthreads();
    mergeWarps<T, HB>(a, shared, sharedSums, g, firstHead, headCount);
}

// grid.y counts key/value heads times tiles of query heads.
// The same where a lane has W times 16 bytes of a key. Apart, because its loops cost the short heads time.
template <typename T, int L, int HB, int W>
__device__ __forceinline__ void wideSplitBody(const NibbleAttentionArguments &a, SplitShared<HB> &shared, float *sharedSums,
                                              int g, int firstHead) {
    constexpr int E = 16 / sizeof(T), keysPerLoad = 32 / L, R = W == 1 ? 8 : 4;  // R keys are held at once
    const int t = blockIdx.x, split = blockIdx.z, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int sub = lane / L, c = lane % L, D = a.keySize, group = a.heads / a.keyValueHeads;
    bool isActive[W];
    int column[W];  // of the lane's elements
#pragma unroll
    for (int w = 0; w < W; ++w) {
        column[w] = (w * L + c) * E;
        isActive[w] = column[w] < D;
        if (!isActive[w]) column[w] = 0;
    }
    const int row = a.batch.rows[t], position = a.batch.positions[t], length = a.batch.lengths[row];
    const int base = split * NIBBLE_SPLIT_LENGTH + warp * 32;
    const int headCount = min(HB, group - firstHead);
    const ScoreRule any(a, g * group + firstHead);
    const bool isVisible = base < any.last(position, length) && base + 32 > any.first(position);
    float sums[HB][W][E] = {};
    if (isVisible) {
        float query[HB][W][E];
#pragma unroll
        for (int h = 0; h < HB; ++h) {
            const T *q = (const T *)a.queries + queryOffset(a, t, g * group + firstHead + min(h, headCount - 1));
#pragma unroll
            for (int w = 0; w < W; ++w)
#pragma unroll
                for (int e = 0; e < E; ++e) query[h][w][e] = isActive[w] ? toFloat(q[column[w] + e]) : 0.f;
        }
        const long long cacheBlock = cacheOffset(a, row, base, g, D), offset = cacheBlock + sub * D;
        const T *keys = (const T *)a.keys + offset, *values = (const T *)a.values + offset;
        if (HB == 1) prefetch((const T *)a.values + cacheBlock, 32 * D * (int)sizeof(T), lane);
#pragma unroll(HB == 1 && W == 1 ? L / 8 : 1)
        for (int u = 0; u < L / 8; ++u) {
            float products[HB][8] = {};
#pragma unroll
            for (int w = 0; w < W; ++w)
#pragma unroll
                for (int r = 0; r < 8; r += R) {
                    uint4 raw[R];
#pragma unroll
                    for (int i = 0; i < R; ++i) raw[i] = loadWritten(keys + (u * 8 + r + i) * keysPerLoad * D + column[w]);
#pragma unroll
                    for (int i = 0; i < R; ++i) {
                        float k[E];
                        unpack(raw[i], k, T());
#pragma unroll
                        for (int h = 0; h < HB; ++h)
#pragma unroll
                            for (int e = 0; e < E; ++e) products[h][r + i] = fmaf(query[h][w][e], k[e], products[h][r + i]);
                    }
                }
            const int index = (c & 1) * 4 + (c & 2) + ((c >> 2) & 1);
#pragma unroll
            for (int h = 0; h < HB; ++h) {
                const float sum = sumTransposed<L>(products[h], lane);
                if (c < 8) shared.scores[warp][h][(u * 8 + index) * keysPerLoad + sub] = sum;
            }
        }
        __syncwarp();
#pragma unroll 1
        for (int h = 0; h < headCount; ++h) {
            const ScoreRule rule(a, g * group + firstHead + h);
            shared.weigh(warp, h, lane, rule(shared.scores[warp][h][lane], position, base + lane, length));
        }
        __syncwarp();
        const int visibleKeys = min(32, length - base);  // values past a row's end may be anything, also NaN
#pragma unroll(HB == 1 && W == 1 ? L / 8 : 1)
        for (int u = 0; u < L / 8; ++u)
#pragma unroll
            for (int w = 0; w < W; ++w)
#pragma unroll
                for (int r = 0; r < 8; r += R) {
                    uint4 raw[R];
#pragma unroll
                    for (int i = 0; i < R; ++i) {
                        const int key = (u * 8 + r + i) * keysPerLoad;
                        raw[i] = key + sub < visibleKeys ? loadWritten(values + key * D + column[w]) : make_uint4(0, 0, 0, 0);
                    }
#pragma unroll
                    for (int i = 0; i < R; ++i) {
                        float v[E];
                        unpack(raw[i], v, T());
#pragma unroll
                        for (int h = 0; h < HB; ++h) {
                            const float weight = shared.scores[warp][h][(u * 8 + r + i) * keysPerLoad + sub];
#pragma unroll
                            for (int e = 0; e < E; ++e) sums[h][w][e] = fmaf(weight, v[e], sums[h][w][e]);
                        }
                    }
                }
#pragma unroll
        for (int h = 0; h < HB; ++h)
#pragma unroll
            for (int w = 0; w < W; ++w)
#pragma unroll
                for (int e = 0; e < E; ++e)
#pragma unroll
                    for (int step = L; step < 32; step <<= 1) sums[h][w][e] += __shfl_xor_sync(~0u, sums[h][w][e], step);
    }
#pragma unroll
    for (int h = 0; h < HB; ++h) {
#pragma unroll
        for (int w = 0; w < W; ++w)
            if (sub == 0 && isActive[w])
#pragma unroll
                for (int e = 0; e < E; ++e) sharedSums[(warp * HB + h) * D + column[w] + e] = sums[h][w][e];
        if (!isVisible && lane == 0) {
            shared.maxima[warp][h] = -NIBBLE_INFINITY;
            shared.denominators[warp][h] = 0.f;
        }
    }
    __syncthreads();
    mergeWarps<T, HB>(a, shared, sharedSums, g, firstHead, headCount);
}

// grid.y counts key/value heads times tiles of query heads.
template <typename T>
__device__ __forceinline__ void attendSplitBody(const NibbleAttentionArguments &a) {
    extern __shared__ float sums[];
    __shared__ SplitShared<1> one;
    __shared__ SplitShared<NIBBLE_SPLIT_WIDE_HEADS> few;
    __shared__ SplitShared<NIBBLE_SPLIT_HEADS> several;
    releaseDependents();
    waitForPredecessors();
    const int most = NIBBLE_SPLIT_HEADS_OF(a.keySize), group = a.heads / a.keyValueHeads, tiles = (group + most - 1) / most;
    const int g = blockIdx.y / tiles, firstHead = blockIdx.y % tiles * most;
    // The combination never reads splits past the end of the row. The first split runs even for rows without keys.
    if (blockIdx.z > 0 && blockIdx.z * NIBBLE_SPLIT_LENGTH >= a.batch.lengths[a.batch.rows[blockIdx.x]]) return;
    const int chunks = a.keySize * (int)sizeof(T) / 16;
    if (group == 1) {
        if (chunks <= 8)
            splitBody<T, 8, 1>(a, one, sums, g, firstHead);
        else if (chunks <= 16)
            splitBody<T, 16, 1>(a, one, sums, g, firstHead);
        else if (chunks <= 32)
            splitBody<T, 32, 1>(a, one, sums, g, firstHead);
        else
            wideSplitBody<T, 32, 1, 2>(a, one, sums, g, firstHead);
    } else {
        if (chunks <= 8)
            splitBody<T, 8, NIBBLE_SPLIT_HEADS>(a, several, sums, g, firstHead);
        else if (chunks <= 16)
            splitBody<T, 16, NIBBLE_SPLIT_HEADS>(a, several, sums, g, firstHead);
        else if (chunks <= 32)
            splitBody<T, 32, NIBBLE_SPLIT_HEADS>(a, several, sums, g, firstHead);
        else if (sizeof(T) == 4)
            wideSplitBody<T, 32, NIBBLE_SPLIT_HEADS, 2>(a, several, sums, g, firstHead);
        else
            wideSplitBody<T, 32, NIBBLE_SPLIT_WIDE_HEADS, 2>(a, few, sums, g, firstHead);
    }
    if (a.splits > 1 && a.arrivals)
        combineIfLast<T>(a, blockIdx.x, g * group + firstHead, min(most, group - firstHead),
                         a.batch.lengths[a.batch.rows[blockIdx.x]]);
}

template <typename T>
__device__ __forceinline__ void attendCombineBody(const NibbleAttentionArguments &a) {
    releaseDependents();
    waitForPredecessors();
    const int t = blockIdx.x;
    combineSplits<T>(a, t, blockIdx.y, a.batch.lengths[a.batch.rows[t]], threadIdx.x, 128);
}

#define INSTANCE(T)                                                                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SPLIT_THREADS)                                                         \
        attend_split_##T(const __grid_constant__ NibbleAttentionArguments a) {                                                 \
        attendSplitBody<T>(a);                                                                                                 \
    }                                                                                                                          \
    extern "C" __global__ void __launch_bounds__(128) attend_combine_##T(const __grid_constant__ NibbleAttentionArguments a) { \
        attendCombineBody<T>(a);                                                                                               \
    }
NIBBLE_FOR_TYPES(INSTANCE)
