// Attention of many queries a row on tensor cores (FlashAttention-2, arXiv 2307.08691), keys and values from the block table.
//
// A block takes 64 queries of one head, a warp 16 of them; keys and values come in tiles through two buffers of shared memory.
// Rows of shared memory are padded by 16 bytes, which keeps matrix loads free of bank conflicts.
#include "attention.cuh"
#include "mma.cuh"

#define LOG2_E 1.4426950408889634f

// D: head size rounded up to what the tiles hold.
template <typename T, int D> struct PrefillTiles {
    static constexpr int keys = D > 128 ? 32 : 64;
    static constexpr int stride = D * 2 + 16;  // bytes of a row
    static constexpr int queryBytes = 64 * stride, tileBytes = keys * stride;
};

// Copies the row starting at `source` (or zeros) for thread i of rows x (D / 8) chunks.
template <int D> __device__ __forceinline__ void copyChunk(u8 *tile, int row, int chunk, const void *source, bool valid, const void *fallback) {
    copyAsync16(sharedAddress(tile + row * (D * 2 + 16) + chunk * 16), valid ? source : fallback, valid);
}

template <typename T, int D>
__device__ __forceinline__ void copyKeys(const NibbleAttentionArguments &a, u8 *tile, const void *cache, int row, int g, int first, int length) {
    constexpr int chunks = D / 8;
    for (int i = threadIdx.x; i < PrefillTiles<T, D>::keys * chunks; i += NIBBLE_PREFILL_THREADS) {
        const int j = i / chunks, chunk = i % chunks, key = first + j;
        const bool valid = key < length && chunk * 8 < a.keySize;
        const T *source = (const T *)cache;
        if (valid) source += cacheOffset(a, row, key, g, a.keySize) + (long long)(key % NIBBLE_CACHE_BLOCK) * a.keySize + chunk * 8;
        copyChunk<D>(tile, j, chunk, source, valid, cache);
    }
}

// biases[distance + reach]; distances beyond `reach` share the last bucket of their direction.
__device__ __forceinline__ void fillBias(float *biases, const NibbleAttentionArguments &a, int head, int reach) {
    for (int i = threadIdx.x; i <= 2 * reach; i += NIBBLE_PREFILL_THREADS)
        biases[i] = a.biasTable[relativeBucket(i - reach, a.buckets, a.isBidirectional, a.maximumDistance) * a.heads + head];
}

__device__ __forceinline__ float tanhOf(float x) {
    const float y = 1.f - 2.f / (1.f + __expf(2.f * fabsf(x)));
    return x < 0.f ? -y : y;
}

template <typename T, int D> __device__ __forceinline__ void prefill(const NibbleAttentionArguments &a, u8 *shared) {
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

    // Queries need not be aligned to 16 bytes.
    for (int i = threadIdx.x; i < 64 * D; i += NIBBLE_PREFILL_THREADS) {
        const int j = i / D, d = i % D;
        T x{};
        if (q0 + j < count && d < a.keySize) x = ((const T *)a.queries)[queryOffset(a, begin + q0 + j, h) + d];
        *(T *)(queries + j * Tiles::stride + d * 2) = x;
    }
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
    const int reach = a.bias == NIBBLE_BIAS_RELATIVE ? min(a.maximumDistance, NIBBLE_PREFILL_MAX_DISTANCE) : 0;
    if (reach > 0) fillBias(biases, a, h, reach);

    float output[ND][4] = {}, maximum[2] = {-NIBBLE_INFINITY, -NIBBLE_INFINITY}, denominator[2] = {0.f, 0.f};
    const int myPositions[2] = {positions[warp * 16 + (lane >> 2)], positions[warp * 16 + (lane >> 2) + 8]};
    if (firstTile < lastTile) {
        copyKeys<T, D>(a, keys, a.keys, row, g, firstTile * Tiles::keys, length);
        copyKeys<T, D>(a, values, a.values, row, g, firstTile * Tiles::keys, length);
    }
    commitCopies();
    for (int tile = firstTile; tile < lastTile; ++tile) {
        const int buffer = (tile - firstTile) & 1, first = tile * Tiles::keys;
        if (tile + 1 < lastTile) {
            copyKeys<T, D>(a, keys + (buffer ^ 1) * Tiles::tileBytes, a.keys, row, g, first + Tiles::keys, length);
            copyKeys<T, D>(a, values + (buffer ^ 1) * Tiles::tileBytes, a.values, row, g, first + Tiles::keys, length);
        }
        commitCopies();
        waitCopies<1>();
        __syncthreads();

        float scores[NK][4] = {};
        const u32 queryBase = sharedAddress(queries) + (warp * 16 + (lane & 15)) * Tiles::stride + (lane >> 4) * 16;
        const u32 keyBase = sharedAddress(keys + buffer * Tiles::tileBytes) + ((lane & 7) + (lane >> 4) * 8) * Tiles::stride + ((lane >> 3) & 1) * 16;
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
        const bool isOpen = isPlain && first + Tiles::keys <= length && (!a.isCausal || first + Tiles::keys - 1 <= lowest)
            && (a.window <= 0 || highest - first < a.window);
#pragma unroll
        for (int j = 0; j < NK; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                const int key = first + 8 * j + 2 * (lane & 3) + (l & 1);
                float s = scores[j][l];
                if (isOpen) s *= a.scale;
                else if (isPlain) s = rule.sees(myPositions[l >> 1], key, length) ? s * a.scale : -NIBBLE_INFINITY;
                else {
                    s *= a.scale;
                    if (a.softCap > 0.f) s = a.softCap * tanhOf(s / a.softCap);
                    const int distance = key - myPositions[l >> 1];
                    if (a.bias == NIBBLE_BIAS_ALIBI) s += rule.slope * (float)distance;
                    else if (a.bias == NIBBLE_BIAS_RELATIVE) s += biases[min(max(distance, -reach), reach) + reach];
                    if (!rule.sees(myPositions[l >> 1], key, length)) s = -NIBBLE_INFINITY;
                }
                scores[j][l] = s * LOG2_E;
                larger[l >> 1] = fmaxf(larger[l >> 1], scores[j][l]);
            }
        float correction[2], base[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            larger[i] = fmaxf(larger[i], __shfl_xor_sync(~0u, larger[i], 1));
            larger[i] = fmaxf(larger[i], __shfl_xor_sync(~0u, larger[i], 2));
            base[i] = larger[i] == -NIBBLE_INFINITY ? 0.f : larger[i];
            correction[i] = exp2f(maximum[i] - base[i]);
            maximum[i] = larger[i];
            denominator[i] *= correction[i];
        }
#pragma unroll
        for (int j = 0; j < NK; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) {
                scores[j][l] = exp2f(scores[j][l] - base[l >> 1]);
                denominator[l >> 1] += scores[j][l];
            }
#pragma unroll
        for (int j = 0; j < ND; ++j)
#pragma unroll
            for (int l = 0; l < 4; ++l) output[j][l] *= correction[l >> 1];

        const u32 valueBase = sharedAddress(values + buffer * Tiles::tileBytes) + (lane & 15) * Tiles::stride + (lane >> 4) * 16;
#pragma unroll
        for (int k = 0; k < NK / 2; ++k) {
            const u32 p[4] = {
                packPair<T>(scores[2 * k][0], scores[2 * k][1]), packPair<T>(scores[2 * k][2], scores[2 * k][3]),
                packPair<T>(scores[2 * k + 1][0], scores[2 * k + 1][1]), packPair<T>(scores[2 * k + 1][2], scores[2 * k + 1][3])};
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
        T *row = (T *)a.output + ((long long)(begin + q) * a.heads + h) * a.valueSize;
#pragma unroll
        for (int j = 0; j < ND; ++j) {
            const int d = 8 * j + 2 * (lane & 3);
            if (d < a.valueSize)
                *(u32 *)(row + d) = packPair<T>(dividedOrZero(output[j][2 * i], denominator[i]), dividedOrZero(output[j][2 * i + 1], denominator[i]));
        }
    }
}

#define WIDTH(T, D)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(NIBBLE_PREFILL_THREADS) attend_prefill_##D##_##T(const __grid_constant__ NibbleAttentionArguments a) { \
        extern __shared__ __align__(16) u8 shared[];                                                                   \
        releaseDependents();                                                                                           \
        waitForPredecessors();                                                                                         \
        prefill<T, D>(a, shared);                                                                                      \
    }
#define INSTANCE(T) WIDTH(T, 64) WIDTH(T, 96) WIDTH(T, 128) WIDTH(T, 256)
// float32, and bfloat16 before compute capability 8.0, have no tensor cores here: `attend` serves them.
#define INSTANCE_f32
#define INSTANCE_f16 INSTANCE(f16)
#if __CUDA_ARCH__ >= 800
#define INSTANCE_bf16 INSTANCE(bf16)
#else
#define INSTANCE_bf16
#endif
#define CHOOSE(T) INSTANCE_##T
NIBBLE_FOR_TYPES(CHOOSE)
