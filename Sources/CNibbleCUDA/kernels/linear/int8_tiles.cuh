// Tiles of int8 weights on the warpgroup products of compute capability 9.0: what the kernels for one token and for several
// share. A block computes 128 outputs over a range of column tiles, with two warpgroups; the blocks of a cluster divide K.
#pragma once
#include "warpgroup_int8.cuh"
#include "outliers.cuh"

#define ROWS NIBBLE_WIDE_INT8_ROWS
#define COLUMNS 128
#define CONSUMERS 256
#define WEIGHT_BYTES (ROWS * COLUMNS)

#if NIBBLE_HAS_WARPGROUPS
// What a block works on.
struct Int8Block {
    int tile, first, end;  // of outputs, within the layer; column tiles
    u32 rank, size;        // of its cluster
    int layer, m0;         // first token

    __device__ __forceinline__ Int8Block(const NibbleLinearArguments &a, int tokens)
        : tile(blockIdx.x), rank(clusterRank()), size(clusterSize()), m0(blockIdx.y * tokens) {
        if (size == 1) {
            // Neighbouring blocks share weights: they are read once, whatever the number of tokens.
            const u32 index = blockIdx.y * gridDim.x + blockIdx.x;
            tile = index / gridDim.y;
            m0 = index % gridDim.y * tokens;
        } else {
            tile /= size;
        }
        layer = layerOfTile(a, tile, ROWS);
        const int tiles = (a.inFeatures + COLUMNS - 1) / COLUMNS;
        first = tiles * rank / size;
        end = tiles * (rank + 1) / size;
    }
};

// Tokens of a column tile in shared memory: quantized, and their 16-bit outliers in two halves of 64 columns.
struct TileTokens {
    u64 quantized, outliers;  // descriptions
    u32 secondHalf;           // from the first half's description to the second's
};

// Adds a tile's products of a warpgroup's 64 outputs: integer ones, and the 16-bit products of outliers. `weights`: shared
// address of 64 swizzled rows.
template <typename T, int Tokens>
__device__ __forceinline__ void multiplyTile(u32 weights, const TileTokens &tokens, bool hasOutliers, int (&sums)[Tokens / 2],
                                             float (&outlierSums)[Tokens / 2]) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
    fenceSums(sums);
    beginProducts();
#pragma unroll
    for (int s = 0; s < 4; ++s) multiplyWarpgroup(sums, describeSwizzled(weights) + 2 * s, tokens.quantized + 2 * s);
    commitProducts();
    if (hasOutliers) {
        constexpr int pieces = Tokens > 64 ? 4 : 1;  // of the columns: registers are short
        const u32 row = warp * 16 + (lane & 15);
#pragma unroll
        for (int piece = 0; piece < pieces; ++piece) {
            u32 w[8 / pieces][4];
#pragma unroll
            for (int s = 0; s < 4 / pieces; ++s) {
                u32 words[4];
                const u32 chunk = 2 * (piece * (4 / pieces) + s) + (lane >> 4);
                loadMatrices(words, weights + row * COLUMNS + ((chunk ^ (row & 7)) << 4));
#pragma unroll
                for (int half = 0; half < 2; ++half)
#pragma unroll
                    for (int r = 0; r < 2; ++r) toPairs(T(), words[2 * half + r], w[2 * s + half][r], w[2 * s + half][2 + r]);
            }
            fenceSums(outlierSums);
            beginProducts();
#pragma unroll
            for (int i = 0; i < 8 / pieces; ++i) {
                const int c = piece * (8 / pieces) + i;
                addProducts(T(), outlierSums, w[i], tokens.outliers + (c >> 2) * tokens.secondHalf + 2 * (c & 3));
            }
            commitProducts();
            waitProducts();
            fenceSums(outlierSums);
        }
    } else {
        waitProducts();
    }
    fenceSums(sums);
}

// A block's sums in shared memory: [Tokens][ROWS + 4], integers then floats.
template <int Tokens>
struct BlockSums {
    static constexpr int stride = ROWS + 4;
    int products[Tokens * stride];
    float outliers[Tokens * stride];
};

template <int Tokens>
__device__ __forceinline__ void keepSums(BlockSums<Tokens> &all, const int (&sums)[Tokens / 2],
                                         const float (&outlierSums)[Tokens / 2], bool hasOutliers) {
    const int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 + (lane >> 2), token = 2 * (lane & 3);
#pragma unroll
    for (int i = 0; i < Tokens / 2; ++i) {
        const int at = (token + 2 * (i & ~3) + (i & 1)) * all.stride + row + 4 * (i & 2);
        all.products[at] = sums[i];
        if (hasOutliers) all.outliers[at] = outlierSums[i];
    }
}

// Four neighbouring words of shared memory, in the block of that rank.
__device__ __forceinline__ uint4 loadFourFromCluster(u32 address, u32 rank) {
    u32 there;
    uint4 v;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    asm volatile("ld.shared::cluster.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(there)
                 : "memory");
    return v;
}

// Four neighbouring outputs of a lane; a warp has those of a token.
template <typename T>
struct LaneOutputs {
    const NibbleLinearArguments &a;
    const NibbleLinearLayer &part;
    int n, count;  // the first, within the layer; how many exist
    bool isPlain;  // they are stored as they are, but for a residual, by aligned accesses
    float scales[4], biases[4];

    __device__ __forceinline__ LaneOutputs(const NibbleLinearArguments &a, const Int8Block &block)
        : a(a), part(a.parts[block.layer]), n(block.tile * ROWS + (threadIdx.x & 31) * 4), count(part.outFeatures - n) {
        const NibbleEpilogue &e = a.epilogue;
        const long long places = (long long)e.output | (long long)e.residual, strides = e.outputStride | e.residualStride;
        isPlain = __all_sync(~0u, count >= 4 && e.activation == NIBBLE_IDENTITY && !e.rowScale && (places & 15) == 0 &&
                                      ((strides | part.firstColumn) & 3) == 0);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            scales[i] = i < count ? part.scales[n + i] : 0.f;
            biases[i] = i < count && part.bias ? part.bias[n + i] : 0.f;
        }
    }

    // The sums of the cluster's blocks with their scales, for token m; `at`: shared address of the lane's integer sums.
    template <int Tokens>
    __device__ __forceinline__ void add(float (&x)[4], const Int8Block &block, u32 at, bool hasOutliers, int m,
                                        float rowScale) const {
        int sums[4] = {};
        float outliers[4] = {};
#pragma unroll 4
        for (u32 r = 0; r < block.size; ++r) {
            const uint4 v = loadFourFromCluster(at, r);
            sums[0] += (int)v.x, sums[1] += (int)v.y, sums[2] += (int)v.z, sums[3] += (int)v.w;
            if (!hasOutliers) continue;
            const uint4 o = loadFourFromCluster(at + sizeof BlockSums<Tokens>::products, r);
            outliers[0] += __uint_as_float(o.x), outliers[1] += __uint_as_float(o.y);
            outliers[2] += __uint_as_float(o.z), outliers[3] += __uint_as_float(o.w);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float product = int8Result<T>(sums[i], rowScale, scales[i], biases[i], part.bias != nullptr, a.roundsToHalf);
            x[i] = fmaf(outliers[i], __fmul_rn(scales[i], WEIGHT_SCALE), product);
#ifdef NIBBLE_ADAPTERS
            if (i < count) x[i] = Delta(part.lowRank, m, n + i).addedTo(x[i]);
#endif
        }
    }

    __device__ __forceinline__ float4 residual(int m) const {
        const NibbleEpilogue &e = a.epilogue;
        const long long at = m * e.residualStride + part.firstColumn + n;
        if (!e.residual) return make_float4(0.f, 0.f, 0.f, 0.f);
        if (e.residualType == NIBBLE_F32) return *(const float4 *)((const float *)e.residual + at);
        const uint2 v = *(const uint2 *)((const u16 *)e.residual + at);
        if (e.residualType == NIBBLE_F16)
            return make_float4(toFloat(f16{(u16)v.x}), toFloat(f16{(u16)(v.x >> 16)}), toFloat(f16{(u16)v.y}),
                               toFloat(f16{(u16)(v.y >> 16)}));
        return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
                           __uint_as_float(v.y & 0xffff0000u));
    }

    __device__ __forceinline__ void store(int m, const float (&x)[4], const float4 &residual) const {
        const NibbleEpilogue &e = a.epilogue;
        const long long at = m * e.outputStride + part.firstColumn + n;
        const float y[4] = {x[0] * e.scale + residual.x, x[1] * e.scale + residual.y, x[2] * e.scale + residual.z,
                            x[3] * e.scale + residual.w};
        if (e.outputType == NIBBLE_F32)
            *(float4 *)((float *)e.output + at) = make_float4(y[0], y[1], y[2], y[3]);
        else if (e.outputType == NIBBLE_F16)
            *(uint2 *)((u16 *)e.output + at) = make_uint2(packPair<f16>(y[0], y[1]), packPair<f16>(y[2], y[3]));
        else
            *(uint2 *)((u16 *)e.output + at) = make_uint2(packPair<bf16>(y[0], y[1]), packPair<bf16>(y[2], y[3]));
    }

    // Any epilogue, by a warp, in a loop of little code; `products`: room for the block's outputs.
    __device__ __forceinline__ void storeInTurn(const Int8Block &block, int m, const float (&x)[4], float *products) const {
        const int lane = threadIdx.x & 31, first = block.tile * ROWS;
        *(float4 *)(products + 4 * lane) = make_float4(x[0], x[1], x[2], x[3]);
        __syncwarp();
#pragma unroll 1
        for (int i = lane; i < ROWS && first + i < part.outFeatures; i += 32)
            finish(a.epilogue, m, part.firstColumn + first + i, products[i]);
        __syncwarp();
    }
};

// Adds the sums of the cluster's blocks and stores the outputs: the cluster's warps take tokens in turn.
template <typename T, int Tokens>
__device__ __forceinline__ void storeOutputs(const LaneOutputs<T> &outputs, const float *rowScales, const Int8Block &block,
                                             BlockSums<Tokens> &all, bool hasOutliers) {
    constexpr int atOnce = Tokens < 32 ? Tokens / 8 : 4;
    const int step = CONSUMERS / 32 * block.size, tokens = min(Tokens, outputs.a.tokens - block.m0);
#pragma unroll 1
    for (int t0 = (threadIdx.x >> 5) * block.size + block.rank; t0 < tokens; t0 += atOnce * step) {
        float scales[atOnce];
        float4 residuals[atOnce];
#pragma unroll
        for (int u = 0; u < atOnce; ++u) {
            const bool exists = t0 + u * step < tokens;
            scales[u] = exists ? rowScales[block.m0 + t0 + u * step] : 0.f;
            if (exists && outputs.isPlain) residuals[u] = outputs.residual(block.m0 + t0 + u * step);
        }
#pragma unroll
        for (int u = 0; u < atOnce; ++u) {
            const int t = t0 + u * step, m = block.m0 + t, at = t * all.stride;
            if (t >= tokens) break;
            float x[4];
            outputs.template add<Tokens>(x, block, sharedAddress(all.products + at + 4 * (threadIdx.x & 31)), hasOutliers, m,
                                         scales[u]);
            if (outputs.isPlain)
                outputs.store(m, x, residuals[u]);
            else
                outputs.storeInTurn(block, m, x, all.outliers + at);
        }
    }
}
#endif
