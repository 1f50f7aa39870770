// Attention of one new token per row on tensor cores. Where it gets the projections of the token, it also rotates queries and
// key, and stores key and value in the cache.
//
// A block takes up to NIBBLE_STEP_HEADS query heads of one key/value head and one split of the keys. The split's tiles of 16
// keys are dealt to NIBBLE_STEP_GROUPS groups, each with a softmax of its own; a warp takes one group after another, so that
// the result does not depend on the number of warps. Keys and values go from the cache straight into the operands of products:
// the order of elements and keys within a product is free, so it is the order in which lanes read 16 bytes.
//   scores:  16 keys x heads.   Lane 4 g + t reads elements 32 s + 8 t ... + 7 of keys g and g + 8.
//   outputs: elements x heads.  Lane 4 g + t reads elements 64 h + 8 g ... + 7 of keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
// Keys of earlier tokens were written before the step, so the first tile is read before the preceding kernel has completed.
#include "attention_step.cuh"

// Scores of one head as powers of two; relative biases are not among them.
struct StepRule {
    float slope;

    __device__ __forceinline__ StepRule(const NibbleAttentionArguments &a, int head)
        : slope(a.bias == NIBBLE_BIAS_ALIBI ? a.biasTable[head] * LOG2_E : 0.f) {}

    __device__ __forceinline__ float operator()(const NibbleAttentionArguments &a, float product, int distance) const {
        if (a.softCap > 0.f) product = __fdividef(a.softCap * tanhOf(__fdividef(product * a.scale, a.softCap)), a.scale);
        return fmaf(product, a.scale * LOG2_E, slope * (float)distance);
    }
};

// Stores four sums divided by their denominator, or zeros where that is 0.
template <typename T>
__device__ __forceinline__ void storeQuotients(T *output, const float4 &sum, float denominator) {
    const float factor = denominator > 0.f ? __fdividef(1.f, denominator) : 0.f;
    *(uint2 *)output = make_uint2(packPair<T>(sum.x * factor, sum.y * factor), packPair<T>(sum.z * factor, sum.w * factor));
}

// What a block's warps leave of their groups.
struct StepShared {
    float maxima[STEP_GROUPS][STEP_HEADS], denominators[STEP_GROUPS][STEP_HEADS];
};

// A tile of keys and values, as a lane holds it.
template <typename T, int D, bool isPadded>
struct StepTile {
    uint4 keys[2][D / 32], values[D / 64][4];

    static __device__ __forceinline__ int valueKey(int t, int i) { return 2 * t + (i & 1) + 8 * (i >> 1); }

    // Keys first ..< last are read, others become zeros. `panel`: index of the tile's panel in the cache.
    __device__ __forceinline__ void load(const NibbleAttentionArguments &a, long long panel, int tileKey, int first, int last) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, size = isPadded ? a.keySize : D;
        const long long offset = (panel * NIBBLE_CACHE_BLOCK + tileKey % NIBBLE_CACHE_BLOCK) * size;
        const T *k = (const T *)a.keys + offset, *v = (const T *)a.values + offset;
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            const int key = g + 8 * n;
            const bool isMine = tileKey + key >= first && tileKey + key < last;
#pragma unroll
            for (int s = 0; s < D / 32; ++s)
                keys[n][s] = loadWrittenOrZero(k + key * size + 32 * s + 8 * t, isMine && 32 * s + 8 * t < size);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int key = valueKey(t, i);
            const bool isMine = tileKey + key >= first && tileKey + key < last;
#pragma unroll
            for (int h = 0; h < D / 64; ++h)
                values[h][i] = loadWrittenOrZero(v + key * size + 64 * h + 8 * g, isMine && 64 * h + 8 * g < size);
        }
    }

    // Puts the new token's key and value where they belong.
    __device__ __forceinline__ void insert(const StepHeads<T, D> &heads, int place) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
        for (int n = 0; n < 2; ++n)
            if (g + 8 * n == place)
#pragma unroll
                for (int s = 0; s < D / 32; ++s) keys[n][s] = heads.key(32 * s + 8 * t);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (valueKey(t, i) == place)
#pragma unroll
                for (int h = 0; h < D / 64; ++h) values[h][i] = heads.value(64 * h + 8 * g);
    }
};

// Transposes an 8 x 8 matrix of 16-bit elements that a warp holds; movmatrix would need PTX 7.8.
__device__ __forceinline__ u32 transposed(u32 x) {
    const int lane = threadIdx.x & 31, source = (lane & 3) * 8 + (lane >> 3);
    const u32 first = __shfl_sync(~0u, x, source), second = __shfl_sync(~0u, x, source + 4);
    return __byte_perm(first, second, lane & 4 ? 0x7632 : 0x5410);
}

// -infinity for keys that the query does not see.
__device__ __forceinline__ float scoreOf(const NibbleAttentionArguments &a, const StepSplits &splits, const StepRule &rule,
                                         float product, int position, int key) {
    return key >= splits.firstKey && key < splits.lastKey ? rule(a, product, key - position) : -NIBBLE_INFINITY;
}

// One group's softmax: heads 2 t and 2 t + 1 in lane 4 g + t, and of each the elements 64 h + 8 g ... + 7.
template <typename T, int D, bool isPadded>
struct StepGroup {
    float sums[D / 64][4][4];  // of elements 2 i and 2 i + 1: (2 i, head 2 t), (2 i, 2 t + 1), (2 i + 1, 2 t), (2 i + 1, 2 t + 1)
    float maxima[2], denominators[2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int h = 0; h < D / 64; ++h)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[h][i][j] = 0.f;
        maxima[0] = maxima[1] = -NIBBLE_INFINITY;
        denominators[0] = denominators[1] = 0.f;
    }

    __device__ __forceinline__ void multiplyValues(const StepTile<T, D, isPadded> &tile, u32 b0, u32 b1) {
#pragma unroll
        for (int h = 0; h < D / 64; ++h) {
            u32 words[4][4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const uint4 v = tile.values[h][i];
                words[i][0] = v.x, words[i][1] = v.y, words[i][2] = v.z, words[i][3] = v.w;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const u32 v[4] = {__byte_perm(words[0][i], words[1][i], 0x5410), __byte_perm(words[0][i], words[1][i], 0x7632),
                                  __byte_perm(words[2][i], words[3][i], 0x5410), __byte_perm(words[2][i], words[3][i], 0x7632)};
                mmaK16(T(), sums[h][i], v, b0, b1);
            }
        }
    }

    __device__ __forceinline__ void add(const NibbleAttentionArguments &a, const StepSplits &splits, const StepRule (&rules)[2],
                                        const StepHeads<T, D> &heads, int headCount, const StepTile<T, D, isPadded> &tile,
                                        int tileKey, int position) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
        float scores[4] = {},
              others[4] = {};  // two sums, to wait less; (key g, head 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
#pragma unroll
        for (int s = 0; s < D / 32; ++s) {
            const uint4 q = heads.at(min(g, headCount - 1), 32 * s + 8 * t), k0 = tile.keys[0][s], k1 = tile.keys[1][s];
            const u32 first[4] = {k0.x, k1.x, k0.y, k1.y}, second[4] = {k0.z, k1.z, k0.w, k1.w};
            mmaK16(T(), scores, first, q.x, q.y);
            mmaK16(T(), others, second, q.z, q.w);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) scores[j] += others[j];
        float weights[4], corrections[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float low = scoreOf(a, splits, rules[j], scores[j], position, tileKey + g),
                        high = scoreOf(a, splits, rules[j], scores[2 + j], position, tileKey + g + 8);
            float larger = fmaxf(maxima[j], fmaxf(low, high));
#pragma unroll
            for (int step = 4; step < 32; step <<= 1) larger = fmaxf(larger, __shfl_xor_sync(~0u, larger, step));
            const float base = larger == -NIBBLE_INFINITY ? 0.f : larger;
            corrections[j] = powerOfTwo(maxima[j] - base);
            weights[j] = powerOfTwo(low - base);
            weights[2 + j] = powerOfTwo(high - base);
            maxima[j] = larger;
            denominators[j] = denominators[j] * corrections[j] + weights[j] + weights[2 + j];
        }
#pragma unroll
        for (int h = 0; h < D / 64; ++h)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[h][i][j] *= corrections[j & 1];
        const u32 low = packPair<T>(weights[0], weights[1]), high = packPair<T>(weights[2], weights[3]);
        multiplyValues(tile, transposed(low), transposed(high));
        if constexpr (!IsHalf<T>::value) {  // bfloat16 has too few digits for weights: add what it rounded off
            auto rest = [](u32 packed, float x, float y) {
                return packPair<T>(x - toFloat(T{(u16)packed}), y - toFloat(T{(u16)(packed >> 16)}));
            };
            multiplyValues(tile, transposed(rest(low, weights[0], weights[1])), transposed(rest(high, weights[2], weights[3])));
        }
    }

    // sums: [groups, headCount, size]
    __device__ __forceinline__ void store(StepShared &shared, float *all, int group, int headCount, int size) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            float denominator = denominators[j];
#pragma unroll
            for (int step = 4; step < 32; step <<= 1) denominator += __shfl_xor_sync(~0u, denominator, step);
            const int head = 2 * t + j;
            if (head >= headCount) continue;
            if (g == 0) {
                shared.maxima[group][head] = maxima[j];
                shared.denominators[group][head] = denominator;
            }
#pragma unroll
            for (int h = 0; h < D / 64; ++h) {
                const int d = 64 * h + 8 * g;
                if (d >= size) continue;
                float4 *place = (float4 *)(all + (group * headCount + head) * size + d);
                place[0] = make_float4(sums[h][0][j], sums[h][0][2 + j], sums[h][1][j], sums[h][1][2 + j]);
                place[1] = make_float4(sums[h][2][j], sums[h][2][2 + j], sums[h][3][j], sums[h][3][2 + j]);
            }
        }
    }
};

// Partial results of split `split` of a head: size sums, maximum, denominator, two unused.
__device__ __forceinline__ float *stepPartial(const NibbleAttentionArguments &a, int t, int head, int split) {
    return a.partials + (((long long)t * a.heads + head) * a.splits + split) * (a.valueSize + 4);
}

// Joins the groups' sums into the output, or into the split's partial result.
template <typename T, int D>
__device__ __forceinline__ void mergeGroups(const NibbleAttentionArguments &a, const StepShared &shared, const float *sums, int t,
                                            int head, int headCount, int groups, bool takesSink, float *partials) {
    const int size = a.keySize, quads = size / 4;
#pragma unroll 1
    for (int i = threadIdx.x; i < headCount * quads; i += blockDim.x) {
        const int h = size == D ? i / (D / 4) : i / quads, d = 4 * (i - h * quads);
        const float sink = takesSink ? sinkOf(a, head + h) * LOG2_E : -NIBBLE_INFINITY;  // a score without a value
        float largest = sink, total = 0.f;
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 1
        for (int w = 0; w < groups; ++w) largest = fmaxf(largest, shared.maxima[w][h]);
        if (largest != -NIBBLE_INFINITY) {
            total = powerOfTwo(sink - largest);
#pragma unroll 1
            for (int w = 0; w < groups; ++w) {
                const float factor = powerOfTwo(shared.maxima[w][h] - largest);
                const float4 x = *(const float4 *)(sums + (w * headCount + h) * size + d);
                sum.x = fmaf(factor, x.x, sum.x), sum.y = fmaf(factor, x.y, sum.y);
                sum.z = fmaf(factor, x.z, sum.z), sum.w = fmaf(factor, x.w, sum.w);
                total = fmaf(factor, shared.denominators[w][h], total);
            }
        }
        if (!partials) {
            storeQuotients((T *)a.output + ((long long)t * a.heads + head + h) * size + d, sum, total);
        } else {
            float *partial = partials + (long long)h * a.splits * (size + 4);
            *(float4 *)(partial + d) = sum;
            if (d == 0) *(float2 *)(partial + size) = make_float2(largest, total);
        }
    }
}

// The block that arrives last combines the splits of its heads. The result does not depend on which block that is.
template <typename T, int D>
__device__ __forceinline__ void combineStep(const NibbleAttentionArguments &a, float4 *scratch, int t, int head, int headCount,
                                            const StepSplits &splits) {
    __shared__ float factors[STEP_HEADS][NIBBLE_STEP_MAX_SPLITS], totals[STEP_HEADS];
    __shared__ int isLast;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        int *arrivals = a.arrivals + (long long)t * gridDim.y + blockIdx.y;
        isLast = atomicAdd(arrivals, 1) == splits.count - 1;
        if (isLast) *arrivals = 0;
    }
    __syncthreads();
    if (!isLast) return;
    __threadfence();
    const int lane = threadIdx.x & 31, size = a.valueSize, warps = blockDim.x / 32;
#pragma unroll 1
    for (int h = threadIdx.x >> 5; h < headCount; h += warps) {
        float largest = -NIBBLE_INFINITY, total = 0.f;
#pragma unroll 1
        for (int s = lane; s < splits.count; s += 32)
            largest = fmaxf(largest, loadFresh(stepPartial(a, t, head + h, splits.first + s) + size));
        largest = warpMax(largest);
#pragma unroll 1
        for (int s = lane; s < splits.count; s += 32) {
            const float *partial = stepPartial(a, t, head + h, splits.first + s) + size;
            const float factor = largest == -NIBBLE_INFINITY ? 0.f : powerOfTwo(loadFresh(partial) - largest);
            factors[h][s] = factor;
            total = fmaf(factor, loadFresh(partial + 1), total);
        }
        total = warpSum(total);
        if (lane == 0) totals[h] = total;
    }
    __syncthreads();
    // Four elements at a time. Where these are few, splits are shared by `parts` sums, whatever the number of threads.
    const int items = headCount * size / 4, parts = max(STEP_GROUPS * 32 / items, 1);
#pragma unroll 1
    for (int v = threadIdx.x; v < items * parts; v += blockDim.x) {
        const int i = v % items, h = i / (size / 4), d = i % (size / 4) * 4;
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
        for (int s = v / items; s < splits.count; s += parts) {
            const float4 x = loadFresh4(stepPartial(a, t, head + h, splits.first + s) + d);
            const float factor = factors[h][s];
            sum.x = fmaf(factor, x.x, sum.x), sum.y = fmaf(factor, x.y, sum.y);
            sum.z = fmaf(factor, x.z, sum.z), sum.w = fmaf(factor, x.w, sum.w);
        }
        scratch[v] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < items; i += blockDim.x) {
        const int h = i / (size / 4), d = i % (size / 4) * 4;
        float4 sum = scratch[i];
#pragma unroll 1
        for (int p = 1; p < parts; ++p) {
            const float4 x = scratch[p * items + i];
            sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
        }
        storeQuotients((T *)a.output + ((long long)t * a.heads + head + h) * size + d, sum, totals[h]);
    }
}

// grid (T, G * tiles of heads, splits)
template <typename T, int D, bool isPadded>
__device__ __forceinline__ void attendStepBody(const NibbleAttentionArguments &a, const NibbleRotateArguments &rotate,
                                               bool stores) {
    extern __shared__ float4 dynamicShared[];
    float *sums = (float *)dynamicShared;
    __shared__ StepShared shared;
    __shared__ __align__(16) StepHeads<T, D> heads;
    releaseDependents();
    const int t = blockIdx.x, tilesOfHeads = (a.headGroup + STEP_HEADS - 1) / STEP_HEADS;
    const int g = smallQuotient(blockIdx.y, tilesOfHeads);
    const int firstHead = (blockIdx.y - g * tilesOfHeads) * STEP_HEADS, head = g * a.headGroup + firstHead;
    const int headCount = min(STEP_HEADS, a.headGroup - firstHead);
    // The host writes these, not a kernel.
    const int row = a.batch.rows[t], position = a.batch.positions[t], length = a.batch.lengths[row];
    const StepSplits splits(a, position, length);
    const int split = blockIdx.z - splits.first;
    if (split < 0 || split >= splits.count) return;
    const int begin = max((int)blockIdx.z * splits.keys, splits.firstKey / STEP_TILE * STEP_TILE);
    const int end = min(((int)blockIdx.z + 1) * splits.keys, splits.lastKey);
    const int tiles = end > begin ? (end - begin + STEP_TILE - 1) / STEP_TILE : 0, groups = min(tiles, STEP_GROUPS);
    const bool hasKey = stores && position >= begin && position < end;
    const int written = stores ? min(splits.lastKey, position) : splits.lastKey;  // keys that the cache has

    const int warp = threadIdx.x >> 5, warps = blockDim.x >> 5, lane = threadIdx.x & 31;
    int groupIndex = warp, tileIndex = warp;
    StepTile<T, D, isPadded> tile;
    auto panelOf = [&](int index) { return index < tiles ? panelIndex(a, row, begin + index * STEP_TILE, g) : 0; };
    auto load = [&](long long panel) { tile.load(a, panel, begin + tileIndex * STEP_TILE, splits.firstKey, written); };
    long long panel = panelOf(tileIndex);
    if (stores && groupIndex < groups) load(panel);
    const bool isMyTurn = warp * 32 < (headCount + (hasKey ? 2 : 0)) * StepItem<T, D>::perHead;
    StepItem<T, D> item(rotate);
    if (isMyTurn) {
        const long long slot =
            hasKey && firstHead == 0 ? panelIndex(a, row, position, g) * NIBBLE_CACHE_BLOCK + position % NIBBLE_CACHE_BLOCK : -1;
        item.prepare(t, position, g, head, headCount, hasKey, slot);
    }
    waitForPredecessors();
    if (isMyTurn) item.finish(heads);
    if (!stores && groupIndex < groups) load(panel);
    __syncthreads();

    const StepRule rules[2] = {StepRule(a, head + min(2 * (lane & 3), headCount - 1)),
                               StepRule(a, head + min(2 * (lane & 3) + 1, headCount - 1))};
    StepGroup<T, D, isPadded> sum;
    sum.clear();
    while (groupIndex < groups) {
        const int tileKey = begin + tileIndex * STEP_TILE;
        const bool endsGroup = tileIndex + STEP_GROUPS >= tiles;
        const int next = endsGroup ? groupIndex + warps : tileIndex + STEP_GROUPS;
        panel = panelOf(next);
        if (stores && position - tileKey >= 0 && position - tileKey < STEP_TILE) tile.insert(heads, position - tileKey);
        sum.add(a, splits, rules, heads, headCount, tile, tileKey, position);
        tileIndex = next;
        if (endsGroup) {
            sum.store(shared, sums, groupIndex, headCount, a.keySize);
            groupIndex += warps;
            if (groupIndex >= groups) break;
            sum.clear();
        }
        load(panel);
    }
    __syncthreads();
    float *partials = splits.count > 1 ? stepPartial(a, t, head, blockIdx.z) : nullptr;
    mergeGroups<T, D>(a, shared, sums, t, head, headCount, groups, split == 0, partials);
    if (partials) combineStep<T, D>(a, dynamicShared, t, head, headCount, splits);
}

// There is none for float32, nor for bfloat16 before compute capability 8.0. Padded: for sizes up to D.
#define STEP_KERNEL(NAME, T, D, IS_PADDED)                                                                         \
    extern "C" __global__ void __launch_bounds__(STEP_GROUPS * 32, D > 128 ? 1 : 2)                                \
        NAME##_##T(const __grid_constant__ NibbleAttendStepArguments a) {                                          \
        if constexpr (IS_WANTED(NAME##_##T)) attendStepBody<T, D, IS_PADDED>(a.attention, a.rotate, a.storesKeys); \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T)                               \
    STEP_KERNEL(attend_step_64, T, 64, false)         \
    STEP_KERNEL(attend_step_128, T, 128, false)       \
    STEP_KERNEL(attend_step_256, T, 256, false)       \
    STEP_KERNEL(attend_step_padded_128, T, 128, true) \
    STEP_KERNEL(attend_step_padded_256, T, 256, true)
#if __CUDA_ARCH__ >= 800
#define INSTANCE_bf16(T) INSTANCE_f16(T)
#else
#define INSTANCE_bf16(T)
#endif
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
