// The LLM.int8() product of one token on the warpgroup products of compute capability 9.0. Elsewhere the kernel is empty.
//
// Every block normalizes and quantizes the whole token, while its first weights are on their way: that costs less than a kernel
// of its own. The token then lies in shared memory as it is, a row of which products take 16 bytes at a time: where they want
// seven more tokens they find the columns that follow, and nothing uses those sums.
#include "int8_tiles.cuh"
#include "quantized_row.cuh"

#define THREADS NIBBLE_SINGLE_INT8_THREADS  // one warp copies weights once the token is quantized
#define HELD NIBBLE_SINGLE_INT8_RUNS

#if NIBBLE_HAS_WARPGROUPS
// Shared memory: the ring of weights, then this, then the token: bytes, and its outliers as 16-bit floats.
struct SingleState {
    u64 full[NIBBLE_WIDE_INT8_MAX_STAGES], empty[NIBBLE_WIDE_INT8_MAX_STAGES];
    u32 outlierTiles[NIBBLE_WIDE_INT8_TILE_WORDS - 1];
    float absmax;
};

// A ring of weight tiles.
struct WeightTiles {
    const NibbleTensorMap &map;
    u32 memory, state;  // shared addresses
    int stages, row, first, end;
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ u32 full(int s) const { return state + 8 * s; }
    __device__ __forceinline__ u32 empty(int s) const { return state + 8 * (NIBBLE_WIDE_INT8_MAX_STAGES + s); }
    __device__ __forceinline__ void advance() {
        if (++stage < stages) return;
        stage = 0;
        parity ^= 1;
    }
    __device__ __forceinline__ void copy(int stage, int tile) const {
        arriveExpecting(full(stage), WEIGHT_BYTES);
        copyBoxOnce(memory + stage * WEIGHT_BYTES, map, tile * COLUMNS, row, full(stage));
    }
    // By one thread: initializes the barriers and fills all stages.
    __device__ __forceinline__ void start() const {
        for (int s = 0; s < stages; ++s) {
            initBarrier(full(s), 1);
            initBarrier(empty(s), CONSUMERS / 32);
        }
        fenceBarriers();
        for (int s = 0; s < stages && first + s < end; ++s) copy(s, first + s);
    }
    // By one lane: fills stages again, once all warps have let go of them.
    __device__ __forceinline__ void refill() {
        for (int i = first + stages; i < end; ++i) {
            waitBarrier(empty(stage), parity);
            copy(stage, i);
            advance();
        }
    }
};

// Quantizes the token into shared memory. Returns whether it has outliers.
template <typename T>
__device__ __forceinline__ bool quantizeToken(const NibbleLinearArguments &a, SingleState &state, i8 *quantized, T *outliers) {
    const int padded = (a.inFeatures + COLUMNS - 1) / COLUMNS * COLUMNS, column = threadIdx.x * 8, step = THREADS * 8;
    const bool hasThreshold = a.outlierThreshold > 0.f;
    QuantizedRow<T> row(a.input, a.prologue, a.inFeatures, a.outlierThreshold, a.roundsToHalf, nullptr);
    HeldWeights<T, 2> weights;
    weights.load(a.prologue, a.inFeatures, column, step);
    waitForPredecessors();
    row.input.measure();
    ColumnRun held[HELD];
    float absmax = 0.f;
#pragma unroll
    for (int p = 0; p < HELD; ++p) held[p] = row.load(column + p * step, nullptr, weights.w[p & 1], weights.exist && p < 2);
#pragma unroll
    for (int p = 0; p < HELD; ++p) absmax = fmaxf(absmax, row.largest(held[p]));
    absmax = blockMax(absmax);
    const float scale = row.scaleOf(absmax);
    u32 found = 0;
#pragma unroll
    for (int p = 0; p < HELD; ++p) {
        const int k0 = column + p * step;
        if (p * step >= padded) break;
        const u32 lanes = __ballot_sync(~0u, held[p].outliers != 0);
        found |= lanes;
        if (hasThreshold) noteOutlierTiles(state.outlierTiles, lanes, k0 & ~255);
        if (k0 >= padded) continue;
        *(uint2 *)(quantized + k0) = row.quantized(held[p], scale);
        if (hasThreshold) row.storeOutliers(held[p], k0, outliers);
    }
    if (threadIdx.x == 0) state.absmax = absmax;
    fenceForProducts();
    return __syncthreads_or(found);
}

template <typename T>
__device__ __forceinline__ void singleInt8Body(const NibbleWideInt8Arguments &a) {
    extern __shared__ __align__(1024) u8 singleInt8Shared[];
    const int warp = __shfl_sync(~0u, threadIdx.x >> 5, 0);
    releaseDependents();
    const Int8Block block(a.linear, 1);
    const u32 memory = sharedAddress(singleInt8Shared);
    SingleState &state = *(SingleState *)(singleInt8Shared + a.stages * WEIGHT_BYTES);
    WeightTiles weights = {
        a.weights[block.layer], memory, sharedAddress(&state), a.stages, block.tile * ROWS, block.first, block.end};
    if (threadIdx.x == 0) weights.start();
    if (threadIdx.x < NIBBLE_WIDE_INT8_TILE_WORDS - 1) state.outlierTiles[threadIdx.x] = 0;
    __syncthreads();
    i8 *const quantized = (i8 *)(&state + 1);
    const int padded = (a.linear.inFeatures + COLUMNS - 1) / COLUMNS * COLUMNS;
    T *const outliers = (T *)(quantized + padded + 128);
    const bool anyOutliers = quantizeToken<T>(a.linear, state, quantized, outliers);

    int sums[4] = {};
    float outlierSums[4] = {};
    if (warp == CONSUMERS / 32) {
        if (elected()) weights.refill();
        __syncwarp();
    } else {
        const u64 bytes = describeMatrices(sharedAddress(quantized), 16, 128),
                  halves = describeMatrices(sharedAddress(outliers), 16, 128);
        const u32 mine = memory + (warp >> 2) * (64 * COLUMNS);
#pragma unroll 1
        for (int i = block.first; i < block.end; ++i) {
            waitBarrier(weights.full(weights.stage), weights.parity);
            const TileTokens token = {bytes + i * (COLUMNS / 16), halves + i * (COLUMNS / 8), 8};
            const bool hasOutliers = anyOutliers && (state.outlierTiles[i >> 5] >> (i & 31) & 1);
            multiplyTile<T, 8>(mine + weights.stage * WEIGHT_BYTES, token, hasOutliers, sums, outlierSums);
            if ((threadIdx.x & 31) == 0) arrive(weights.empty(weights.stage));
            weights.advance();
        }
    }
    __syncthreads();
    BlockSums<8> &all = *(BlockSums<8> *)singleInt8Shared;
    const LaneOutputs<T> outputs(a.linear, block);
    if (threadIdx.x < CONSUMERS) keepSums<8>(all, sums, outlierSums, anyOutliers);
    syncCluster();
    if (threadIdx.x < CONSUMERS) storeOutputs<T, 8>(outputs, &state.absmax, block, all, anyOutliers);
    meetCluster();
}
#define SINGLE_INT8_BODY(T) singleInt8Body<T>(a);
#else
#define SINGLE_INT8_BODY(T)
#endif

#define SINGLE_INT8(T)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                      \
        gemv_int8_single_##T(const __grid_constant__ NibbleWideInt8Arguments a) { \
        SINGLE_INT8_BODY(T)                                                       \
    }
#define INSTANCE_f32(T)
#define INSTANCE_f16(T) SINGLE_INT8(T)
#define INSTANCE_bf16(T) SINGLE_INT8(T)
#define INSTANCE(T) INSTANCE_##T(T)
NIBBLE_FOR_TYPES(INSTANCE)
