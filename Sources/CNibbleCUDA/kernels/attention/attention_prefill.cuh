// Attention of many queries per row on tensor cores (FlashAttention-2, arXiv 2307.08691), keys and values from the block table.
//
// A block takes 64 queries of one head, a warp 16 of them; keys and values come in tiles through two buffers of shared memory.
// Rows of shared memory are padded by 16 bytes, which keeps matrix loads free of bank conflicts.
#pragma once
#include "attention.cuh"
#include "cache_codes.cuh"
#include "mma.cuh"

// D: head size rounded up to what the tiles hold.
template <typename T, int D>
struct PrefillTiles {
    static constexpr int keys = NIBBLE_PREFILL_KEYS;
    static constexpr int stride = D * 2 + 16;  // bytes of a row
    static constexpr int queryBytes = 64 * stride, tileBytes = keys * stride;
};

// Panel indices of the cache blocks of a tile of keys; 0 past the end of the row.
template <int keys>
struct TileBlocks {
    long long first[keys / NIBBLE_CACHE_BLOCK];
};

template <int keys>
__device__ __forceinline__ TileBlocks<keys> findBlocks(const NibbleAttentionArguments &a, int row, int g, int first, int length) {
    TileBlocks<keys> blocks;
#pragma unroll
    for (int i = 0; i < keys / NIBBLE_CACHE_BLOCK; ++i) {
        const int key = first + i * NIBBLE_CACHE_BLOCK;
        blocks.first[i] = key < length ? panelIndex(a, row, key, g) : 0;
    }
    return blocks;
}

// Copies keys (or values) first ..< first + keys into rows of shared memory, zeros past the row's end and the head's size.
template <typename T, int D>
__device__ __forceinline__ void copyTile(const NibbleAttentionArguments &a, u8 *tile, const void *cache,
                                         const TileBlocks<PrefillTiles<T, D>::keys> &blocks, int count) {
    constexpr int chunks = D / 8, keys = PrefillTiles<T, D>::keys;
#pragma unroll
    for (int i0 = 0; i0 < keys * chunks; i0 += NIBBLE_PREFILL_THREADS) {
        const int i = i0 + threadIdx.x, j = i / chunks, chunk = i % chunks;
        if (keys * chunks % NIBBLE_PREFILL_THREADS != 0 && i >= keys * chunks) break;
        const bool valid = j < count && chunk * 8 < a.keySize;
        const long long block =
            keys > NIBBLE_CACHE_BLOCK && j >= NIBBLE_CACHE_BLOCK ? blocks.first[keys / NIBBLE_CACHE_BLOCK - 1] : blocks.first[0];
        const T *source =
            (const T *)cache + (valid ? (block * NIBBLE_CACHE_BLOCK + j % NIBBLE_CACHE_BLOCK) * a.keySize + chunk * 8 : 0);
        copyAsync16(sharedAddress(tile + j * PrefillTiles<T, D>::stride + chunk * 16), source, valid);
    }
}

// Like copyTile, from a quantized cache. Each chunk of eight elements has one scale and whole bytes.
template <typename T, int D>
__device__ __forceinline__ void expandTile(const NibbleAttentionArguments &a, u8 *tile, const void *cache,
                                           const TileBlocks<PrefillTiles<T, D>::keys> &blocks, int count) {
    constexpr int chunks = D / 8, keys = PrefillTiles<T, D>::keys;
    static_assert(keys == NIBBLE_CACHE_BLOCK, "a tile is a block");
    const CodeLayout layout{a.keySize, a.cacheGroup, a.cacheBits};
    const u8 *panel = (const u8 *)cache + blocks.first[0] * layout.panelBytes();
    for (int i = threadIdx.x; i < keys * chunks; i += NIBBLE_PREFILL_THREADS) {
        const int j = i / chunks, d = i % chunks * 8;
        uint4 packed = make_uint4(0, 0, 0, 0);
        if (j < count && d < layout.size) {
            const int g = d / layout.group, within = d - g * layout.group,
                      bytes = layout.groupBytes(min(layout.group, layout.size - d + within));
            const float2 s = layout.scale(panel, j, g);
            const u64 codes =
                *(const u64 *)(panel + j * layout.rowBytes() + g * layout.groupBytes(layout.group) + within % bytes);
            const int shift = within / bytes * layout.bits, mask = (1 << layout.bits) - 1;
            float x[8];
#pragma unroll
            for (int e = 0; e < 8; ++e) x[e] = fmaf((float)((int)(codes >> (8 * e + shift)) & mask), s.x, s.y);
            packed =
                make_uint4(packPair<T>(x[0], x[1]), packPair<T>(x[2], x[3]), packPair<T>(x[4], x[5]), packPair<T>(x[6], x[7]));
        }
        *(uint4 *)(tile + j * PrefillTiles<T, D>::stride + d * 2) = packed;
    }
}

template <typename T, int D, bool isCodes>
__device__ __forceinline__ void loadTile(const NibbleAttentionArguments &a, u8 *tile, const void *cache,
                                         const TileBlocks<PrefillTiles<T, D>::keys> &blocks, int count) {
    if constexpr (isCodes)
        expandTile<T, D>(a, tile, cache, blocks, count);
    else
        copyTile<T, D>(a, tile, cache, blocks, count);
}

// Copies the block's queries, with zeros past the last query of the row. Queries need not be aligned to 16 bytes.
template <typename T, int D>
__device__ __forceinline__ void copyQueries(const NibbleAttentionArguments &a, u8 *tile, long long t, int h, int count) {
    constexpr int chunks = D / 8, stride = PrefillTiles<T, D>::stride;
    const T *first = (const T *)a.queries + queryOffset(a, t, h);
    if (((unsigned long long)first | (unsigned long long)(a.queryStride * sizeof(T))) % 16 == 0) {
        for (int i = threadIdx.x; i < 64 * chunks; i += NIBBLE_PREFILL_THREADS) {
            const int j = i / chunks, chunk = i % chunks;
            const bool valid = j < count && chunk * 8 < a.keySize;
            copyAsync16(sharedAddress(tile + j * stride + chunk * 16), first + (valid ? j * a.queryStride + chunk * 8 : 0),
                        valid);
        }
    } else {
        for (int i = threadIdx.x; i < 64 * D; i += NIBBLE_PREFILL_THREADS) {
            const int j = i / D, d = i % D;
            T x{};
            if (j < count && d < a.keySize) x = first[j * a.queryStride + d];
            *(T *)(tile + j * stride + d * 2) = x;
        }
    }
}

// Raises a row's running maximum to the largest of new scores in its four lanes. `correction` is what sums so far are to be
// multiplied by; returns what is subtracted from exponents. `unit` times a score is an exponent of two.
__device__ __forceinline__ float raiseMaximum(float larger, float unit, float &maximum, float &denominator, float &correction) {
    larger = fmaxf(larger, __shfl_xor_sync(~0u, larger, 1));
    larger = fmaxf(larger, __shfl_xor_sync(~0u, larger, 2));
    const float base = larger == -NIBBLE_INFINITY ? 0.f : larger * unit;
    correction = powerOfTwo(fmaf(maximum, unit, -base));
    maximum = larger;
    denominator *= correction;
    return base;
}

// Adds a head's sink, a score without a value, to a row's denominator. Returns the factor of the row's sums.
__device__ __forceinline__ float joinSink(const NibbleAttentionArguments &a, int h, float maximum, float unit,
                                          float &denominator) {
    float factor = 1.f;
    if (a.sinks) {
        const float own = maximum * unit, sink = sinkOf(a, h) * LOG2_E, largest = fmaxf(own, sink);
        if (largest != -NIBBLE_INFINITY) {
            factor = powerOfTwo(own - largest);
            denominator = fmaf(denominator, factor, powerOfTwo(sink - largest));
        }
    }
    return factor;
}

// biases[distance + reach]; distances beyond `reach` share the last bucket of their direction.
__device__ __forceinline__ void fillBias(float *biases, const NibbleAttentionArguments &a, int head, int reach) {
    for (int i = threadIdx.x; i <= 2 * reach; i += NIBBLE_PREFILL_THREADS)
        biases[i] = a.biasTable[relativeBucket(i - reach, a.buckets, a.isBidirectional, a.maximumDistance) * a.heads + head];
}

template <typename T, int D, bool isCodes>
__device__ __forceinline__ void prefill(const NibbleAttentionArguments &a, u8 *shared) {
    using Tiles = PrefillTiles<T, D>;
    constexpr int NK = Tiles::keys / 8, ND = D / 8;
    __shared__ int positions[64];
    __shared__ float biases[2 * NIBBLE_PREFILL_MAX_DISTANCE + 1];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = blockIdx.z, h = blockIdx.y;
    const int begin = a.batch.queryOffsets[row], count = a.batch.queryOffsets[row + 1] - begin;
    const int q0 = (gridDim.x - 1 - blockIdx.x) * 64;  // long rows of causal scores first
    if (q0 >= count) return;
    const int length = a.batch.lengths[row], g = h / (a.heads / a.keyValueHeads);
    if (threadIdx.x < 64) positions[threadIdx.x] = a.batch.positions[begin + min(q0 + (int)threadIdx.x, count - 1)];
    u8 *queries = shared, *keys = shared + Tiles::queryBytes, *values = keys + 2 * Tiles::tileBytes;

    copyQueries<T, D>(a, queries, begin + q0, h, count - q0);
    __syncthreads();
    int lowest = min(positions[lane], positions[lane + 32]), highest = max(positions[lane], positions[lane + 32]);
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) {
        lowest = min(lowest, __shfl_xor_sync(~0u, lowest, d));
        highest = max(highest, __shfl_xor_sync(~0u, highest, d));
    }
    const ScoreRule rule(a, h);
    const int firstTile = rule.first(lowest) / Tiles::keys;
    const int lastTile = (rule.last(highest, length) + Tiles::keys - 1) / Tiles::keys;
    const bool isPlain = a.bias == NIBBLE_BIAS_NONE && !(a.softCap > 0.f);
    const float unit = isPlain ? a.scale * LOG2_E : LOG2_E;  // scores times this are exponents of two
    const int reach = a.bias == NIBBLE_BIAS_RELATIVE ? min(a.maximumDistance, NIBBLE_PREFILL_MAX_DISTANCE) : 0;
    if (reach > 0) fillBias(biases, a, h, reach);

    float output[ND][4] = {}, maximum[2] = {-NIBBLE_INFINITY, -NIBBLE_INFINITY}, denominator[2] = {0.f, 0.f};
    const int myPositions[2] = {positions[warp * 16 + (lane >> 2)], positions[warp * 16 + (lane >> 2) + 8]};
    TileBlocks<Tiles::keys> blocks = findBlocks<Tiles::keys>(a, row, g, firstTile * Tiles::keys, length);
    if (firstTile < lastTile) {
        loadTile<T, D, isCodes>(a, keys, a.keys, blocks, length - firstTile * Tiles::keys);
        loadTile<T, D, isCodes>(a, values, a.values, blocks, length - firstTile * Tiles::keys);
        blocks = findBlocks<Tiles::keys>(a, row, g, (firstTile + 1) * Tiles::keys, length);
    }
    commitCopies();
    for (int tile = firstTile; tile < lastTile; ++tile) {
        const int buffer = (tile - firstTile) & 1, first = tile * Tiles::keys;
        if (tile + 1 < lastTile) {
            loadTile<T, D, isCodes>(a, keys + (buffer ^ 1) * Tiles::tileBytes, a.keys, blocks, length - first - Tiles::keys);
            loadTile<T, D, isCodes>(a, values + (buffer ^ 1) * Tiles::tileBytes, a.values, blocks, length - first - Tiles::keys);
            blocks = findBlocks<Tiles::keys>(a, row, g, first + 2 * Tiles::keys, length);
        }
        commitCopies();
        waitCopies<1>();
        __syncthreads();

        float scores[NK][4] = {};
        const u32 queryBase = sharedAddress(queries) + (warp * 16 + (lane & 15)) * Tiles::stride + (lane >> 4) * 16;
        const u32 keyBase = sharedAddress(keys + buffer * Tiles::tileBytes) + ((lane & 7) + (lane >> 4) * 8) * Tiles::stride +
                            ((lane >> 3) & 1) * 16;
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            u32 q[4];
            loadMatrices(q, queryBase + k * 32);
#pragma unroll
            for (int j = 0; j < NK / 2; ++j) {
                u32 b[4];
                loadMatrices(b, keyBase + j * 16 * Tiles::stride + k * 32);
                mmaK16(T(), scores[2 * j], q, b[0], b[1]);
                mmaK16(T(), scores[2 * j + 1], q, b[2], b[3]);
            }
        }

        float larger[2] = {maximum[0], maximum[1]};
        if (!isPlain)
#pragma unroll
            for (int j = 0; j < NK; ++j)
#pragma unroll
                for (int l = 0; l < 4; ++l) {
                    const int distance = first + 8 * j + 2 * (lane & 3) + (l & 1) - myPositions[l >> 1];
                    float s = scores[j][l] * a.scale;
                    if (a.softCap > 0.f) s = a.softCap * tanhOf(s / a.softCap);
                    if (a.bias == NIBBLE_BIAS_RELATIVE) s += biases[min(max(distance, -reach), reach) + reach];
                    scores[j][l] = fmaf(rule.slope, (float)distance, s);
                }
        const bool isOpen = first + Tiles::keys <= length && (!a.isCausal || first + Tiles::keys - 1 <= lowest) &&
                            (a.window <= 0 || highest - first < a.window);
        if (!isOpen)
#pragma unroll
            for (int j = 0; j < NK; ++j)
#pragma unroll
                for (int l = 0; l < 4; ++l)
                    if (!rule.sees(myPositions[l >> 1], first + 8 * j + 2 * (lane & 3) + (l & 1), length))
                        scores[j][l] = -NIBBLE_INFINITY;
#pragma unroll
        for (int j = 0; j < NK; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) larger[l >> 1] = fmaxf(larger[l >> 1], scores[j][l]);
        float correction[2], base[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            base[i] = raiseMaximum(larger[i], unit, maximum[i], denominator[i], correction[i]);
        }
#pragma unroll
        for (int j = 0; j < NK; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                scores[j][l] = powerOfTwo(fmaf(scores[j][l], unit, -base[l >> 1]));
                denominator[l >> 1] += scores[j][l];
            }
#pragma unroll
        for (int j = 0; j < ND; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) output[j][l] *= correction[l >> 1];

        const u32 valueBase = sharedAddress(values + buffer * Tiles::tileBytes) + (lane & 15) * Tiles::stride + (lane >> 4) * 16;
#pragma unroll
        for (int k = 0; k < NK / 2; ++k) {
            const u32 p[4] = {packPair<T>(scores[2 * k][0], scores[2 * k][1]), packPair<T>(scores[2 * k][2], scores[2 * k][3]),
                              packPair<T>(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                              packPair<T>(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
            for (int j = 0; j < ND / 2; ++j) {
                u32 b[4];
                loadMatricesTransposed(b, valueBase + k * 16 * Tiles::stride + j * 32);
                mmaK16(T(), output[2 * j], p, b[0], b[1]);
                mmaK16(T(), output[2 * j + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();
    }
    waitCopies<0>();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        denominator[i] += __shfl_xor_sync(~0u, denominator[i], 1);
        denominator[i] += __shfl_xor_sync(~0u, denominator[i], 2);
        const int q = q0 + warp * 16 + (lane >> 2) + 8 * i;
        if (q >= count) continue;
        const float factor = joinSink(a, h, maximum[i], unit, denominator[i]);
        T *row = (T *)a.output + ((long long)(begin + q) * a.heads + h) * a.valueSize;
#pragma unroll
        for (int j = 0; j < ND; ++j) {
            const int d = 8 * j + 2 * (lane & 3);
            if (d < a.valueSize)
                *(u32 *)(row + d) = packPair<T>(dividedOrZero(output[j][2 * i] * factor, denominator[i]),
                                                dividedOrZero(output[j][2 * i + 1] * factor, denominator[i]));
        }
    }
}

// One kernel per head width. There is none for float32, nor for bfloat16 before compute capability 8.0: `attend` handles those.
#define WIDTH(NAME, IS_CODES, T, D, RESIDENT)                                          \
    extern "C" __global__ void __launch_bounds__(NIBBLE_PREFILL_THREADS, RESIDENT)     \
        NAME##_##D##_##T(const __grid_constant__ NibbleAttentionArguments a) {         \
        extern __shared__ __align__(16) u8 shared[];                                   \
        releaseDependents();                                                           \
        waitForPredecessors();                                                         \
        if constexpr (IS_WANTED(NAME##_##D##_##T)) prefill<T, D, IS_CODES>(a, shared); \
    }
#define WIDTHS(NAME, IS_CODES, T)   \
    WIDTH(NAME, IS_CODES, T, 64, 4) \
    WIDTH(NAME, IS_CODES, T, 96, 4) WIDTH(NAME, IS_CODES, T, 128, 3) WIDTH(NAME, IS_CODES, T, 256, 2)
#define INSTANCE_f32
#define INSTANCE_f16 INSTANCE(f16)
#if __CUDA_ARCH__ >= 800
#define INSTANCE_bf16 INSTANCE(bf16)
#else
#define INSTANCE_bf16
#endif
#define CHOOSE(T) INSTANCE_##T
