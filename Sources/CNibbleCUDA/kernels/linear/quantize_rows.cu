// LLM.int8() (arXiv 2208.07339): quantizes rows of activations and finds their outlier columns.
#include "quantized_row.cuh"

#define THREADS NIBBLE_QUANTIZE_ROWS_THREADS
#define WARPS (THREADS / 32)
#define HELD 3  // runs of a thread that stay in registers
#define MAX_PASSES NIBBLE_QUANTIZE_ROWS_PASSES

template <typename T>
__device__ __forceinline__ void markBody(const NibbleRowQuantizeArguments &a) {
    releaseDependents();
    waitForPredecessors();
    const int k = blockIdx.x * 256 + threadIdx.x;
    if (k >= a.inFeatures || !(a.outlierThreshold > 0.f)) return;
    const float threshold = measuredThreshold(a.outlierThreshold, a.roundsToHalf);
    bool isOutlier = false;
    for (long long m = blockIdx.y; m < a.tokens; m += gridDim.y)
        isOutlier |= fabsf(measured(((const T *)a.input)[m * a.inFeatures + k], a.roundsToHalf)) >= threshold;
    if (isOutlier) a.columnFlags[k] = 1;
}

// The outliers of a row: how many each warp found in each pass, which is a chunk of NIBBLE_OUTLIER_CHUNK columns, and the tiles
// of 128 columns that have any.
struct FoundOutliers {
    int counts[WARPS * MAX_PASSES];
    u32 tiles[(2 * WARPS * MAX_PASSES + 31) / 32];
};

// By all lanes of a warp.
__device__ __forceinline__ void noteOutliers(FoundOutliers &found, const ColumnRun &run, int pass) {
    const int chunk = pass * WARPS + (threadIdx.x >> 5);
    const u32 lanes = __ballot_sync(~0u, run.outliers != 0);
    const int count = lanes ? warpSum(__popc(run.outliers)) : 0;
    if ((threadIdx.x & 31) == 0) found.counts[chunk] = count;
    noteOutlierTiles(found.tiles, lanes, chunk * NIBBLE_OUTLIER_CHUNK);
}

// Lists a warp's outliers of a pass behind those of the columns before.
template <typename T>
__device__ __forceinline__ void listOutliers(const NibbleRowQuantizeArguments &a, const FoundOutliers &found, long long m,
                                             const ColumnRun &run, int pass) {
    const int lane = threadIdx.x & 31, chunk = pass * WARPS + (threadIdx.x >> 5);
    int before = 0;
    for (int c = lane; c < chunk; c += 32) before += found.counts[c];
    before = warpSum(before);
    if (lane == 0 && chunk * NIBBLE_OUTLIER_CHUNK < a.inFeatures) a.outlierStarts[m * a.outlierStartsStride + chunk] = before;
    if (found.counts[chunk] == 0) return;
    int inclusive = __popc(run.outliers);
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
        const int other = __shfl_up_sync(~0u, inclusive, d);
        if (lane >= d) inclusive += other;
    }
    int place = before + inclusive - __popc(run.outliers);
    const int k0 = (pass * THREADS + threadIdx.x) * 8;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (run.outliers >> i & 1) {
            if (place < a.outlierCapacity) {
                a.outlierColumns[m * a.outlierCapacity + place] = k0 + i;
                a.outlierValues[m * a.outlierCapacity + place] = run.x[i];
            }
            ++place;
        }
}

template <typename T>
__device__ __forceinline__ void storeRun(const NibbleRowQuantizeArguments &a, const QuantizedRow<T> &row, long long m,
                                         const ColumnRun &run, int k0, float scale) {
    if (k0 >= a.quantizedStride) return;
    *(uint2 *)(a.quantized + m * a.quantizedStride + k0) = row.quantized(run, scale);
    if constexpr (sizeof(T) == 2)
        if (a.outliers) row.storeOutliers(run, k0, (T *)a.outliers + m * a.quantizedStride);
}

// A block takes one row. Runs that do not fit the registers are read twice.
template <typename T>
__device__ __forceinline__ void quantizeRowsBody(const NibbleRowQuantizeArguments &a) {
    __shared__ FoundOutliers found;
    const long long m = blockIdx.x;
    const int K = a.inFeatures, passes = (K + 8 * THREADS - 1) / (8 * THREADS), column = threadIdx.x * 8, step = THREADS * 8;
    const bool hasThreshold = a.outlierThreshold > 0.f;
    QuantizedRow<T> row((const u8 *)a.input + m * QuantizedRow<T>::rowBytes(a.prologue, K), a.prologue, K, a.outlierThreshold,
                        a.roundsToHalf, a.columnFlags);
    T *const kept = a.prepared ? (T *)a.prepared + m * K : nullptr;
    releaseDependents();
    HeldWeights<T, HELD> weights;
    weights.load(a.prologue, K, column, step);
    for (int i = threadIdx.x; i < (int)(sizeof found.tiles / 4); i += THREADS) found.tiles[i] = 0;
    waitForPredecessors();
    if constexpr (sizeof(T) == 2) row.input.measure();

    ColumnRun held[HELD];
    float absmax = 0.f;
#pragma unroll
    for (int p = 0; p < HELD; ++p) held[p] = row.load(column + p * step, kept, weights.w[p], weights.exist);
#pragma unroll
    for (int p = 0; p < HELD; ++p) absmax = fmaxf(absmax, row.largest(held[p]));
    for (int p = HELD; p < passes; ++p) absmax = fmaxf(absmax, row.largest(row.load(column + p * step, kept)));
    absmax = blockMax(absmax);

    const float scale = row.scaleOf(absmax);
#pragma unroll
    for (int p = 0; p < HELD; ++p) {
        if (p >= passes) break;
        storeRun(a, row, m, held[p], column + p * step, scale);
        if (hasThreshold) noteOutliers(found, held[p], p);
    }
    for (int p = HELD; p < passes; ++p) {
        const ColumnRun run = row.load(column + p * step, nullptr);
        storeRun(a, row, m, run, column + p * step, scale);
        if (hasThreshold) noteOutliers(found, run, p);
    }
    if (threadIdx.x == 0) a.rowScales[m] = absmax;
    if (!hasThreshold) return;
    __syncthreads();
    for (int i = threadIdx.x; i < a.outlierTileWords; i += THREADS) a.outlierTiles[m * a.outlierTileWords + i] = found.tiles[i];
    if (!a.outlierColumns) return;

    int all = 0;
    for (int c = threadIdx.x & 31; c < passes * WARPS; c += 32) all += found.counts[c];
    all = warpSum(all);
    if (threadIdx.x == 0) {
        a.outlierCounts[m] = all;
        a.outlierStarts[m * a.outlierStartsStride + (K + NIBBLE_OUTLIER_CHUNK - 1) / NIBBLE_OUTLIER_CHUNK] = all;
    }
    if (all == 0) return;
#pragma unroll
    for (int p = 0; p < HELD; ++p)
        if (p < passes) listOutliers<T>(a, found, m, held[p], p);
    for (int p = HELD; p < passes; ++p) listOutliers<T>(a, found, m, row.load(column + p * step, nullptr), p);
}

#define INSTANCE(T)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(256) mark_outliers_##T(const __grid_constant__ NibbleRowQuantizeArguments a) { \
        markBody<T>(a);                                                                                                         \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                       \
        quantize_rows_##T(const __grid_constant__ NibbleRowQuantizeArguments a) {                                               \
        quantizeRowsBody<T>(a);                                                                                                 \
    }
NIBBLE_FOR_TYPES(INSTANCE)
