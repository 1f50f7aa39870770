// Attention of one query per row over a quantized cache, split over keys as in attention_decode.cu.
#include "attention_split.cuh"
#include "cache_codes.cuh"

// The four codes at bit `shift` of each byte of a word, as floats.
template <int BITS>
__device__ __forceinline__ float4 codesOf(u32 word, int shift) {
    constexpr u32 mask = (1u << BITS) - 1;
    word >>= shift;
    return make_float4((float)(word & mask), (float)(word >> 8 & mask), (float)(word >> 16 & mask), (float)(word >> 24 & mask));
}

// Scores of this lane's key with each of HB queries in shared memory.
template <int BITS, int HB>
__device__ __forceinline__ void scoreCodes(float (&scores)[HB], const CodeLayout &layout, const u8 *panel, int slot,
                                           const float *queries) {
    const int D = layout.size;
    const u8 *codes = panel + slot * layout.rowBytes();
    for (int g = 0; g < layout.groupCount(); ++g) {
        const int first = g * layout.group, bytes = layout.groupBytes(min(layout.group, D - first));
        const float2 s = layout.scale(panel, slot, g);
        for (int w = 0; w < bytes; w += 4) {
            const u32 word = *(const u32 *)(codes + w);
#pragma unroll
            for (int k = 0; k < 8 / BITS; ++k) {
                const float4 c = codesOf<BITS>(word, k * BITS);
                const float4 v = make_float4(fmaf(c.x, s.x, s.y), fmaf(c.y, s.x, s.y), fmaf(c.z, s.x, s.y), fmaf(c.w, s.x, s.y));
#pragma unroll
                for (int h = 0; h < HB; ++h) {
                    const float4 q = *(const float4 *)(queries + h * D + first + k * bytes + w);
                    scores[h] = fmaf(q.x, v.x, fmaf(q.y, v.y, fmaf(q.z, v.z, fmaf(q.w, v.w, scores[h]))));
                }
            }
        }
        codes += bytes;
    }
}

// Weighted sums of a cache block's values. Each lane reads one word of codes; neighbouring lanes read the words of one key.
template <int BITS, int HB>
__device__ __forceinline__ void sumCodes(const CodeLayout &layout, const u8 *panel, int count, const float (&weights)[HB][32],
                                         float *sums) {
    constexpr int per = 8 / BITS;
    const int D = layout.size, lane = threadIdx.x & 31, row = layout.rowBytes();
    for (int c0 = 0; c0 < row / 4; c0 += 32) {
        const int width = min(32, row / 4 - c0), keysPerLoad = 32 / width, sub = lane / width;
        const int byte = (c0 + lane % width) * 4, g = byte / layout.groupBytes(layout.group);
        const int first = g * layout.group, within = byte - g * layout.groupBytes(layout.group);
        const int bytes = layout.groupBytes(min(layout.group, D - first));
        float acc[HB][4 * per] = {}, minima[HB] = {};
#pragma unroll 4
        for (int key = sub; key < count; key += keysPerLoad) {
            if (sub >= keysPerLoad) break;
            const u32 word = *(const u32 *)(panel + key * row + byte);
            const float2 s = layout.scale(panel, key, g);
#pragma unroll
            for (int h = 0; h < HB; ++h) {
                const float weight = weights[h][key], scaled = weight * s.x;
                minima[h] = fmaf(weight, s.y, minima[h]);
#pragma unroll
                for (int k = 0; k < per; ++k) {
                    const float4 c = codesOf<BITS>(word, k * BITS);
                    acc[h][4 * k] = fmaf(scaled, c.x, acc[h][4 * k]);
                    acc[h][4 * k + 1] = fmaf(scaled, c.y, acc[h][4 * k + 1]);
                    acc[h][4 * k + 2] = fmaf(scaled, c.z, acc[h][4 * k + 2]);
                    acc[h][4 * k + 3] = fmaf(scaled, c.w, acc[h][4 * k + 3]);
                }
            }
        }
        for (int r = 0; r < keysPerLoad; ++r) {
            if (sub == r)
#pragma unroll
                for (int h = 0; h < HB; ++h)
#pragma unroll
                    for (int k = 0; k < per; ++k)
#pragma unroll
                        for (int b = 0; b < 4; ++b) {
                            float *sum = sums + h * D + first + k * bytes + within + b;
                            *sum = acc[h][4 * k + b] + minima[h] + (r > 0 ? *sum : 0.f);
                        }
            __syncwarp();
        }
    }
}

template <typename T, int BITS, int HB>
__device__ __forceinline__ void codesBody(const NibbleAttentionArguments &a, SplitShared<HB> &shared, float *sharedSums, int g,
                                          int firstHead) {
    const int t = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, D = a.keySize, group = a.heads / a.keyValueHeads;
    const int row = a.batch.rows[t], position = a.batch.positions[t], length = a.batch.lengths[row];
    const int base = blockIdx.z * NIBBLE_SPLIT_LENGTH + warp * 32, headCount = min(HB, group - firstHead);
    const CodeLayout layout{D, a.cacheGroup, BITS};
    const ScoreRule any(a, g * group + firstHead);
    const bool isVisible = base < any.last(position, length) && base + 32 > any.first(position);
    float *sums = sharedSums + warp * HB * D;  // first the queries, then the sums
    if (isVisible) {
        const long long panel = panelIndex(a, row, base, g) * layout.panelBytes();
        for (int i = lane; i < HB * D; i += 32)
            sums[i] =
                toFloat(((const T *)a.queries)[queryOffset(a, t, g * group + firstHead + min(i / D, headCount - 1)) + i % D]);
        __syncwarp();
        float scores[HB] = {};
        scoreCodes<BITS, HB>(scores, layout, (const u8 *)a.keys + panel, lane, sums);
#pragma unroll
        for (int h = 0; h < HB; ++h) {
            const ScoreRule rule(a, g * group + firstHead + min(h, headCount - 1));
            shared.weigh(warp, h, lane, rule(scores[h], position, base + lane, length));
        }
        __syncwarp();
        sumCodes<BITS, HB>(layout, (const u8 *)a.values + panel, min(32, length - base), shared.scores[warp], sums);
    } else {
        for (int i = lane; i < HB * D; i += 32) sums[i] = 0.f;
        if (lane < HB) {
            shared.maxima[warp][lane] = -NIBBLE_INFINITY;
            shared.denominators[warp][lane] = 0.f;
        }
    }
    __syncthreads();
    mergeWarps<T, HB>(a, shared, sharedSums, g, firstHead, headCount);
}

template <typename T, int HB>
__device__ __forceinline__ void codesOfBits(const NibbleAttentionArguments &a, SplitShared<HB> &shared, float *sums, int g,
                                            int firstHead) {
    if (a.cacheBits == 8)
        codesBody<T, 8, HB>(a, shared, sums, g, firstHead);
    else if (a.cacheBits == 4)
        codesBody<T, 4, HB>(a, shared, sums, g, firstHead);
    else
        codesBody<T, 2, HB>(a, shared, sums, g, firstHead);
}

// grid.y counts key/value heads times tiles of query heads.
template <typename T>
__device__ __forceinline__ void attendSplitCodesBody(const NibbleAttentionArguments &a) {
    extern __shared__ __align__(16) float sums[];
    __shared__ SplitShared<NIBBLE_SPLIT_HEADS> several;
    releaseDependents();
    waitForPredecessors();
    const int group = a.heads / a.keyValueHeads, tiles = (group + NIBBLE_SPLIT_HEADS - 1) / NIBBLE_SPLIT_HEADS;
    const int g = blockIdx.y / tiles, firstHead = blockIdx.y % tiles * NIBBLE_SPLIT_HEADS,
              length = a.batch.lengths[a.batch.rows[blockIdx.x]];
    if (blockIdx.z > 0 && blockIdx.z * NIBBLE_SPLIT_LENGTH >= length) return;
    if (group == 1)
        codesOfBits<T, 1>(a, *(SplitShared<1> *)&several, sums, g, firstHead);
    else
        codesOfBits<T, NIBBLE_SPLIT_HEADS>(a, several, sums, g, firstHead);
    if (a.splits > 1 && a.arrivals)
        combineIfLast<T>(a, blockIdx.x, g * group + firstHead, min(NIBBLE_SPLIT_HEADS, group - firstHead), length);
}

#define INSTANCE(T)                                                                  \
    extern "C" __global__ void __launch_bounds__(NIBBLE_SPLIT_THREADS)               \
        attend_split_codes_##T(const __grid_constant__ NibbleAttentionArguments a) { \
        attendSplitCodesBody<T>(a);                                                  \
    }
NIBBLE_FOR_TYPES(INSTANCE)
