// LLM.int8() products of one to some hundred tokens on the warpgroup products of compute capability 9.0. Elsewhere these kernels
// are empty.
//
// A block computes 128 outputs for up to `Tokens` tokens over a range of K, in tiles of 128 columns. One warp copies tiles of the
// weight and of the quantized tokens to a ring in shared memory; two warpgroups multiply them. Where a token of the block has an
// outlier in a tile, its 16-bit outliers, with zeros between them, come too, and meet the same weights as 16-bit integers: their
// sums are floats. Adding zeros changes nothing, so a token's result does not depend on the others'. The blocks of a cluster
// divide K; they add their sums in the order of their ranks.
#include "int8_tiles.cuh"

#if NIBBLE_HAS_WARPGROUPS
// Shared memory: the stages of the ring, then this.
struct RingState {
    u64 full[NIBBLE_WIDE_INT8_MAX_STAGES], empty[NIBBLE_WIDE_INT8_MAX_STAGES];
    u32 outlierTiles[NIBBLE_WIDE_INT8_TILE_WORDS];  // a bit for each column tile in which a token of the block has outliers
};

template <int Tokens>
struct Int8Ring {
    static constexpr u32 quantizedAt = WEIGHT_BYTES, outliersAt = quantizedAt + Tokens * COLUMNS;
    u32 memory, state, stageBytes;  // shared addresses, and bytes of a stage
    int stages;
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ Int8Ring(const NibbleWideInt8Arguments &a, u32 memory)
        : memory(memory),
          stageBytes(outliersAt + (a.linear.outlierThreshold > 0.f ? Tokens * COLUMNS * 2 : 0)),
          stages(a.stages) {
        state = memory + stages * stageBytes;
    }
    __device__ __forceinline__ u32 at(int s) const { return memory + s * stageBytes; }
    __device__ __forceinline__ u32 full(int s) const { return state + 8 * s; }
    __device__ __forceinline__ u32 empty(int s) const { return state + 8 * (NIBBLE_WIDE_INT8_MAX_STAGES + s); }
    __device__ __forceinline__ void advance() {
        if (++stage < stages) return;
        stage = 0;
        parity ^= 1;
    }
    __device__ __forceinline__ void initialize() const {
        for (int s = 0; s < stages; ++s) {
            initBarrier(full(s), 1);
            initBarrier(empty(s), CONSUMERS / 32);
        }
        fenceBarriers();
    }
};

// Copies the quantized tokens of a column tile to a stage.
template <int Tokens>
__device__ __forceinline__ void copyTokens(const NibbleWideInt8Arguments &a, const Int8Block &block, const Int8Ring<Tokens> &ring,
                                           int tile, int stage) {
    expectBytes(ring.full(stage), Tokens * COLUMNS);
    copyBox(ring.at(stage) + ring.quantizedAt, a.quantized, tile * COLUMNS, block.m0, ring.full(stage));
}

// By one warp: which column tiles have outliers of the block's tokens.
__device__ __forceinline__ void findOutlierTiles(const NibbleWideInt8Arguments &a, const Int8Block &block, int tokens,
                                                 RingState &state) {
    const int lane = threadIdx.x & 31, count = min(tokens, a.linear.tokens - block.m0);
    const bool exist = a.linear.outlierThreshold > 0.f;
    for (int w0 = 0; w0 < a.tileWords; w0 += 4) {
        u32 bits[4] = {0, 0, 0, 0};
        for (int t = lane; exist && t < count; t += 32)
#pragma unroll
            for (int w = 0; w < 4; ++w)
                if (w0 + w < a.tileWords) bits[w] |= a.outlierTiles[(long long)(block.m0 + t) * a.tileWords + w0 + w];
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            bits[w] = __reduce_or_sync(~0u, bits[w]);
            if (lane == 0 && w0 + w < a.tileWords) state.outlierTiles[w0 + w] = bits[w];
        }
    }
    __syncwarp();
}

__device__ __forceinline__ bool hasOutliers(const RingState &state, int tile) {
    return state.outlierTiles[tile >> 5] >> (tile & 31) & 1;
}

// Weights that no other block reads need not stay in the second-level cache.
__device__ __forceinline__ void copyWeights(u32 to, const NibbleTensorMap &map, int x, int y, u32 barrier) {
    if (gridDim.y == 1)
        copyBoxOnce(to, map, x, y, barrier);
    else
        copyBox(to, map, x, y, barrier);
}

// The copying warp. Weights are asked for before the kernel before this one has ended.
template <int Tokens>
__device__ __forceinline__ void fillRing(const NibbleWideInt8Arguments &a, const Int8Block &block, Int8Ring<Tokens> ring,
                                         RingState &state) {
    const NibbleTensorMap &weight = a.weights[block.layer];
    const int row = block.tile * ROWS, ahead = min(block.first + ring.stages, block.end);
    const bool isMine = elected();
    if (isMine) {
        for (int i = block.first; i < ahead; ++i) {
            const u32 full = ring.full(i - block.first);
            expectBytes(full, WEIGHT_BYTES);
            copyWeights(ring.at(i - block.first), weight, i * COLUMNS, row, full);
        }
    }
    __syncwarp();
    waitForPredecessors();
    if (isMine)
        for (int i = block.first; i < ahead; ++i) copyTokens(a, block, ring, i, i - block.first);
    __syncwarp();
    findOutlierTiles(a, block, Tokens, state);
    if (!isMine) return;
    for (int i = block.first; i < block.end; ++i) {
        const u32 to = ring.at(ring.stage), full = ring.full(ring.stage);
        if (i >= ahead) {
            waitBarrier(ring.empty(ring.stage), ring.parity ^ 1);
            expectBytes(full, WEIGHT_BYTES);
            copyWeights(to, weight, i * COLUMNS, row, full);
            copyTokens(a, block, ring, i, ring.stage);
        }
        if (hasOutliers(state, i)) {
            arriveExpecting(full, Tokens * COLUMNS * 2);
            for (int half = 0; half < 2; ++half)
                copyBox(to + ring.outliersAt + half * Tokens * COLUMNS, a.outliers, i * COLUMNS + 64 * half, block.m0, full);
        } else {
            arrive(full);
        }
        ring.advance();
    }
}

template <typename T, int Tokens>
__device__ __forceinline__ void wideInt8Body(const NibbleWideInt8Arguments &a) {
    extern __shared__ __align__(1024) u8 wideInt8Shared[];
    const int warp = __shfl_sync(~0u, threadIdx.x >> 5, 0);
    releaseDependents();
    const Int8Block block(a.linear, Tokens);
    Int8Ring<Tokens> ring(a, sharedAddress(wideInt8Shared));
    RingState &state = *(RingState *)(wideInt8Shared + ring.stages * ring.stageBytes);
    BlockSums<Tokens> &all = *(BlockSums<Tokens> *)wideInt8Shared;
    if (threadIdx.x == 0) ring.initialize();
    __syncthreads();
    if (warp == CONSUMERS / 32) {
        fillRing<Tokens>(a, block, ring, state);
        __syncwarp();
        syncCluster();
        meetCluster();
        return;
    }
    waitForPredecessors();
    int sums[Tokens / 2] = {};
    float outlierSums[Tokens / 2] = {};
    const u32 mine = (warp >> 2) * (64 * COLUMNS);
#pragma unroll 1
    for (int i = block.first; i < block.end; ++i) {
        waitBarrier(ring.full(ring.stage), ring.parity);
        const u32 at = ring.at(ring.stage);
        const TileTokens tokens = {describeSwizzled(at + ring.quantizedAt), describeSwizzled(at + ring.outliersAt), Tokens * 8};
        multiplyTile<T, Tokens>(at + mine, tokens, hasOutliers(state, i), sums, outlierSums);
        if ((threadIdx.x & 31) == 0) arrive(ring.empty(ring.stage));
        ring.advance();
    }
    bool anyOutliers = false;
    for (int w = 0; w < a.tileWords; ++w) anyOutliers = anyOutliers || state.outlierTiles[w];
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory");
    keepSums(all, sums, outlierSums, anyOutliers);
    const LaneOutputs<T> outputs(a.linear, block);
    syncCluster();
    storeOutputs<T, Tokens>(outputs, a.linear.rowScales, block, all, anyOutliers);
    meetCluster();
}
#endif

#define WIDE_INT8(T, TOKENS, RESIDENT)                                                     \
    extern "C" __global__ void __launch_bounds__(NIBBLE_WIDE_INT8_THREADS, RESIDENT)       \
        gemm_int8_wide_##TOKENS##_##T(const __grid_constant__ NibbleWideInt8Arguments a) { \
        if constexpr (IS_WANTED(gemm_int8_wide_##TOKENS##_##T)) {                          \
            WIDE_INT8_BODY(T, TOKENS)                                                      \
        }                                                                                  \
    }
#if NIBBLE_HAS_WARPGROUPS
#define WIDE_INT8_BODY(T, TOKENS) wideInt8Body<T, TOKENS>(a);
#else
#define WIDE_INT8_BODY(T, TOKENS)
#endif
#define WIDE_INT8_SIZES(T) WIDE_INT8(T, 8, 2) WIDE_INT8(T, 16, 2) WIDE_INT8(T, 32, 2) WIDE_INT8(T, 64, 1) WIDE_INT8(T, 128, 1)
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) WIDE_INT8_SIZES(T)
#define INSTANCE_bf16(T) WIDE_INT8_SIZES(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
