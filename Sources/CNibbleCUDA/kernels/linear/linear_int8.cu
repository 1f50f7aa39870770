// LLM.int8() (arXiv 2208.07339): quantizes rows of activations, lists their outlier columns, and multiplies with int8 weights.
#include "outliers.cuh"
#include "row_input.cuh"
#include "tile_product.cuh"

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

// Eight elements from k0 on; zeros past K.
template <typename T>
__device__ __forceinline__ void loadRun(const T *row, int k0, int K, int roundsToHalf, float (&x)[8]) {
    if constexpr (sizeof(T) == 2) {
        if (K % 8 == 0 && k0 < K) {
            unpack(*(const uint4 *)(row + k0), x, T());
            if (roundsToHalf)
#pragma unroll
                for (int i = 0; i < 8; ++i) x[i] = toFloat(fromFloat<f16>(x[i]));
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = k0 + i < K ? measured(row[k0 + i], roundsToHalf) : 0.f;
}

// A row to be quantized: read as it is, or through a prologue whose result is kept.
template <typename T>
struct QuantizedRow {
    const NibbleRowQuantizeArguments &a;
    const T *row;
    RowInput<T> input;
    long long row0;
    bool hasPrologue;

    __device__ __forceinline__ QuantizedRow(const NibbleRowQuantizeArguments &a, long long m)
        : a(a),
          row((const T *)a.input + m * a.inFeatures),
          input((const float *)a.input + m * a.inFeatures, a.prologue, a.inFeatures),
          row0(m * a.inFeatures),
          hasPrologue(sizeof(T) == 2 && input.isPrepared()) {}

    __device__ __forceinline__ void prefetch() const {
        if constexpr (sizeof(T) == 2) input.prefetchWeights();
    }
    __device__ __forceinline__ void measure() {
        if constexpr (sizeof(T) == 2) input.measure();
    }

    // Element k as products see it, once `load` has stored it.
    __device__ __forceinline__ float stored(int k) const {
        return toFloat(hasPrologue ? ((const T *)a.prepared)[row0 + k] : row[k]);
    }

    // Eight elements from k0 on; zeros past K. The prologue's result is stored in `kept` if that is given.
    __device__ __forceinline__ void load(int k0, float (&x)[8], T *kept = nullptr) const {
        if constexpr (sizeof(T) == 2) {
            if (hasPrologue) {
                input.finish(input.fetch(k0 / 8), k0 / 8, x);
                if (kept && k0 < a.inFeatures)
                    *(uint4 *)(kept + k0) = make_uint4(packPair<T>(x[0], x[1]), packPair<T>(x[2], x[3]), packPair<T>(x[4], x[5]),
                                                       packPair<T>(x[6], x[7]));
                if (a.roundsToHalf)
#pragma unroll
                    for (int i = 0; i < 8; ++i) x[i] = toFloat(fromFloat<f16>(x[i]));
                return;
            }
        }
        loadRun(row, k0, a.inFeatures, a.roundsToHalf, x);
    }
};

// A block takes one row, a thread eight columns at a time.
template <typename T>
__device__ __forceinline__ void quantizeRowsBody(const NibbleRowQuantizeArguments &a) {
    __shared__ int warpCounts[8];
    const int K = a.inFeatures, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const long long m = blockIdx.x;
    QuantizedRow<T> row(a, m);
    releaseDependents();
    row.prefetch();
    waitForPredecessors();
    row.measure();
    i8 *quantized = a.quantized + m * a.quantizedStride;
    const bool hasThreshold = a.outlierThreshold > 0.f;
    const float threshold = hasThreshold ? measuredThreshold(a.outlierThreshold, a.roundsToHalf) : NIBBLE_INFINITY;
    float absmax = 0.f;
    for (int k0 = threadIdx.x * 8; k0 < K; k0 += 2048) {
        float x[8];
        row.load(k0, x);
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (!hasThreshold || !(fabsf(x[i]) >= threshold)) absmax = fmaxf(absmax, fabsf(x[i]));
    }
    absmax = blockMax(absmax);
    const float scale = absmax > 0.f ? __fdividef(127.f, absmax) : 0.f;
    int found = 0;
    for (int base = 0; base < a.quantizedStride; base += 2048) {
        const int k0 = base + threadIdx.x * 8;
        float x[8];
        row.load(k0, x, (T *)a.prepared + m * K);
        u32 outliers = 0, packed[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            bool isOutlier = hasThreshold && k0 + i < K && fabsf(x[i]) >= threshold;
            if (hasThreshold && a.columnFlags && k0 + i < K) isOutlier = isOutlier || a.columnFlags[k0 + i];
            if (isOutlier)
                outliers |= 1u << i;
            else
                packed[i >> 2] |= ((u32)__float2int_rn(__fmul_rn(x[i], scale)) & 255) << (8 * (i & 3));
        }
        if (k0 < a.quantizedStride) *(uint2 *)(quantized + k0) = make_uint2(packed[0], packed[1]);
        if (!hasThreshold) continue;
        // Each warp has a chunk of NIBBLE_OUTLIER_CHUNK columns.
        const int chunk = base / NIBBLE_OUTLIER_CHUNK + warp;
        const bool startsChunk = lane == 0 && chunk * NIBBLE_OUTLIER_CHUNK < K;
        int *starts = a.outlierStarts + m * a.outlierStartsStride;
        if (!__syncthreads_or(outliers)) {
            if (startsChunk) starts[chunk] = found;
            continue;
        }
        // Exclusive prefix sum over the block, so that columns are listed in ascending order.
        int inclusive = __popc(outliers);
#pragma unroll
        for (int d = 1; d < 32; d <<= 1) {
            const int other = __shfl_up_sync(~0u, inclusive, d);
            if (lane >= d) inclusive += other;
        }
        if (lane == 31) warpCounts[warp] = inclusive;
        __syncthreads();
        int place = found + inclusive - __popc(outliers);
        for (int w = 0; w < 8; ++w) {
            if (w < warp) place += warpCounts[w];
            found += warpCounts[w];
        }
        if (startsChunk) starts[chunk] = place;
        for (int i = 0; i < 8; ++i)
            if (outliers >> i & 1) {
                if (place < a.outlierCapacity) {
                    a.outlierColumns[m * a.outlierCapacity + place] = k0 + i;
                    a.outlierValues[m * a.outlierCapacity + place] = row.stored(k0 + i);
                }
                ++place;
            }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        a.rowScales[m] = absmax;
        a.outlierCounts[m] = found;
        if (hasThreshold)
            a.outlierStarts[m * a.outlierStartsStride + (K + NIBBLE_OUTLIER_CHUNK - 1) / NIBBLE_OUTLIER_CHUNK] = found;
    }
}

#define PRODUCT_SCALE __uint_as_float(0x38820610u)  // 1 / 127^2

// The integer product with its scales and the bias. In compatibility mode activations and result are rounded to float16:
// bitsandbytes stores the product as float16 and adds a bias of another type to that, whatever the activations' type is.
template <typename T>
__device__ __forceinline__ float int8Result(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m,
                                            long long n, int sum) {
    const float scaled = __fmul_rn(__fmul_rn((float)sum, a.rowScales[m]), part.scales[n]), bias = part.bias ? part.bias[n] : 0.f;
    if (!a.roundsToHalf) return fmaf(scaled, PRODUCT_SCALE, bias);
    if constexpr (IsHalf<T>::value) return toFloat(fromFloat<f16>(fmaf(scaled, PRODUCT_SCALE, bias)));
    float y = toFloat(fromFloat<f16>(__fmul_rn(scaled, PRODUCT_SCALE)));
    if (part.bias) y = toFloat(fromFloat<f16>(__fadd_rn(y, bias)));
    return toFloat(fromFloat<T>(y));
}

__device__ __forceinline__ int dot16(uint4 w, uint4 x, int sum) {
    sum = __dp4a((int)w.x, (int)x.x, sum);
    sum = __dp4a((int)w.y, (int)x.y, sum);
    sum = __dp4a((int)w.z, (int)x.z, sum);
    return __dp4a((int)w.w, (int)x.w, sum);
}

// One token's first 64 outlier columns, two per lane, for two rows: loaded while the rows' other elements are in flight.
template <typename T>
struct FirstOutliers {
    int count = 0;
    float x[2] = {0.f, 0.f};              // of column lane, lane + 32
    i8 weights[2][2] = {{0, 0}, {0, 0}};  // [column][row]
    bool isFetched = false;

    __device__ __forceinline__ void fetch(const NibbleLinearArguments &a, const i8 *row0, const i8 *row1) {
        if (isFetched || !(a.outlierThreshold > 0.f)) return;
        isFetched = true;
        const int lane = threadIdx.x & 31;
        count = a.outlierCounts[0];
        u32 columns[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const u32 listed = lane + 32 * h < a.outlierCapacity ? a.outlierColumns[lane + 32 * h] : 0;
            columns[h] = listed < (u32)a.inFeatures ? listed : 0;  // past the list's end there may be anything
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            x[h] = lane + 32 * h < a.outlierCapacity ? a.outlierValues[lane + 32 * h] : 0.f;
            weights[h][0] = row0[columns[h]];
            weights[h][1] = row1[columns[h]];
        }
    }

    // Row n0 in even lanes, n0 + 1 in odd ones.
    __device__ __forceinline__ float sum(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int n0) const {
        const int n1 = min(n0 + 1, part.outFeatures - 1);
        float first = 0.f, second = 0.f;
        if (count <= min(a.outlierCapacity, 64)) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float p0 = __fmul_rn(x[h], outlierWeight<T>(part, n0, weights[h][0])),
                            p1 = __fmul_rn(x[h], outlierWeight<T>(part, n1, weights[h][1]));
#pragma unroll 8
                for (int i = 0; i < min(count - 32 * h, 32); ++i) {
                    first = __fadd_rn(first, __shfl_sync(~0u, p0, i));
                    second = __fadd_rn(second, __shfl_sync(~0u, p1, i));
                }
            }
        } else {
            first = outlierSumOfWarp<T>(a, part, 0, n0);
            second = outlierSumOfWarp<T>(a, part, 0, n1);
        }
        return threadIdx.x & 1 ? second : first;
    }
};

// A warp computes two rows for MM tokens. Lane 2 m + r returns row r for token m.
template <typename T, int MM>
__device__ __forceinline__ int gemvInt8Rows(const NibbleLinearArguments &a, const NibbleLinearLayer &part, int n0,
                                            FirstOutliers<T> &outliers) {
    constexpr int unroll = MM <= 2 ? 4 : 2;
    const int lane = threadIdx.x & 31, N = part.outFeatures, M = a.tokens;
    const long long K = a.inFeatures;
    const i8 *weight = (const i8 *)part.weight;
    const i8 *rows[2] = {weight + n0 * K, weight + (long long)min(n0 + 1, N - 1) * K};
    int sums[MM][2] = {};
    if (K % 16 == 0) {
        uint4 q[unroll][2];
        for (long long k0 = lane * 16; k0 < K; k0 += 512 * unroll) {
#pragma unroll
            for (int u = 0; u < unroll; ++u)
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    q[u][r] = k0 + u * 512 < K ? loadStreaming(rows[r] + k0 + u * 512) : make_uint4(0, 0, 0, 0);
            if (k0 < 512) {
                waitForPredecessors();
                if (MM == 1) outliers.fetch(a, rows[0], rows[1]);
            }
#pragma unroll
            for (int u = 0; u < unroll; ++u) {
                const long long k = k0 + u * 512;
                if (k >= K) break;
#pragma unroll
                for (int m = 0; m < MM; ++m) {
                    const uint4 x = *(const uint4 *)(a.quantized + min(m, M - 1) * a.quantizedStride + k);
                    sums[m][0] = dot16(q[u][0], x, sums[m][0]);
                    sums[m][1] = dot16(q[u][1], x, sums[m][1]);
                }
            }
        }
    }
    waitForPredecessors();
    if (MM == 1) outliers.fetch(a, rows[0], rows[1]);
    if (K % 16 != 0) {
        for (long long k = lane; k < K; k += 32)
#pragma unroll
            for (int m = 0; m < MM; ++m) {
                const int x = a.quantized[min(m, M - 1) * a.quantizedStride + k];
                sums[m][0] += rows[0][k] * x;
                sums[m][1] += rows[1][k] * x;
            }
    }
    return sumOfLane(sums);
}

template <typename T>
__device__ __forceinline__ void gemvInt8Body(const NibbleLinearArguments &a) {
    releaseDependents();
    if (isUnused(a)) return;
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, NIBBLE_GEMV_INT8_ROWS)];
    const int n0 = tile * NIBBLE_GEMV_INT8_ROWS + 2 * (threadIdx.x >> 5);
    if (n0 >= part.outFeatures) return waitForPredecessors();
    FirstOutliers<T> listed;
    int sum;
    if (a.tokens == 1)
        sum = gemvInt8Rows<T, 1>(a, part, n0, listed);
    else if (a.tokens == 2)
        sum = gemvInt8Rows<T, 2>(a, part, n0, listed);
    else if (a.tokens <= 4)
        sum = gemvInt8Rows<T, 4>(a, part, n0, listed);
    else
        sum = gemvInt8Rows<T, 8>(a, part, n0, listed);
    const int lane = threadIdx.x & 31, m = lane >> 1, n = n0 + (lane & 1);
    const bool isMine = m < a.tokens && n < part.outFeatures;
    float outliers = 0.f;
    if (a.outlierThreshold > 0.f) {
        if (a.tokens == 1)
            outliers = listed.sum(a, part, n0);
        else if (isMine)
            outliers = outlierSum<T>(a, part, m, n);
    }
    if (isMine) finishOutput(a.epilogue, part, m, n, int8Result<T>(a, part, m, n, sum) + outliers);
}

// Stores an output, given its integer product.
template <typename T>
__device__ __forceinline__ void finishInt8(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m, int n,
                                           int product) {
    finishOutput(a.epilogue, part, m, n, int8Result<T>(a, part, m, n, product) + storedOutlierSum(a, part, m, n));
}

template <typename T>
__device__ __forceinline__ void gemmInt8Body(const NibbleLinearArguments &a) {
    __shared__ __align__(128) u8 shared[TILE_STAGES * 16384];
    releaseDependents();
    if (isUnused(a)) return;
    waitForPredecessors();
    int tile = blockIdx.x;
    const NibbleLinearLayer &part = a.parts[layerOfTile(a, tile, NIBBLE_GEMM_INT8_TILE_N)];
    const int m0 = blockIdx.y * NIBBLE_GEMM_INT8_TILE_M, n0 = tile * NIBBLE_GEMM_INT8_TILE_N;
    const long long K = a.inFeatures;
    const TileOperand input = {(const u8 *)a.quantized, a.quantizedStride, a.quantizedStride, a.tokens, true};
    const TileOperand weight = {(const u8 *)part.weight, K, K, part.outFeatures, K % 16 == 0};
    int c[2][4][4];
    tileProduct<i8>(shared, input, weight, m0, n0, c);
    forEachProduct(shared, c, m0, n0, a.tokens, part.outFeatures,
                   [&](int m, int n, int product) { finishInt8<T>(a, part, m, n, product); });
}

// Finishes cuBLASLt's integer products [M, sum of the layers' N]: a thread takes eight outputs of a token.
template <typename T>
__device__ __forceinline__ void finishInt8Body(const NibbleLinearArguments &a) {
    beginKernel();
    if (isUnused(a)) return;
    const int total = (int)columnOfCall(a, a.parts[a.layerCount - 1]) + a.parts[a.layerCount - 1].outFeatures;
    const int column = 8 * (blockIdx.y * NIBBLE_FINISH_INT8_THREADS + threadIdx.x);
    if (column >= total) return;
    const long long m = blockIdx.x;
    const int *products = a.accumulated + m * total + column;
    int p = 0;
    while (p + 1 < a.layerCount && column >= columnOfCall(a, a.parts[p + 1])) ++p;
    const int n = column - (int)columnOfCall(a, a.parts[p]);
    if (total % 8 != 0 || n + 8 > a.parts[p].outFeatures) {
        for (int i = 0; i < 8 && column + i < total; ++i) {
            while (p + 1 < a.layerCount && column + i >= columnOfCall(a, a.parts[p + 1])) ++p;
            finishInt8<T>(a, a.parts[p], m, column + i - (int)columnOfCall(a, a.parts[p]), products[i]);
        }
        return;
    }
    const NibbleLinearLayer &part = a.parts[p];
    const int4 low = ((const int4 *)products)[0], high = ((const int4 *)products)[1];
    const int values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
        x[i] = Delta(part.lowRank, m, n + i)
                   .addedTo(int8Result<T>(a, part, m, n + i, values[i]) + storedOutlierSum(a, part, m, n + i));
    finishEight(a.epilogue, m, part.firstColumn + n, x, 8);
}

template <typename T>
__device__ __forceinline__ void dequantize8Body(const NibbleDequantizeArguments &a) {
    const long long count = (long long)a.part.outFeatures * a.inFeatures,
                    start = (long long)blockIdx.x * NIBBLE_DEQUANTIZE_ELEMENTS;
    const long long end = min(start + NIBBLE_DEQUANTIZE_ELEMENTS, count);
    for (long long i = start + threadIdx.x; i < end; i += 256)
        ((T *)a.output)[i] = fromFloat<T>(
            __fmul_rn(__fmul_rn((float)((const i8 *)a.part.weight)[i], a.part.scales[i / a.inFeatures]), WEIGHT_SCALE));
}

#ifndef NIBBLE_EXPERTS
#define INSTANCE(T)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) mark_outliers_##T(const __grid_constant__ NibbleRowQuantizeArguments a) {  \
        markBody<T>(a);                                                                                                          \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) quantize_rows_##T(const __grid_constant__ NibbleRowQuantizeArguments a) {  \
        quantizeRowsBody<T>(a);                                                                                                  \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_INT8_THREADS)                                                       \
        gemv_int8_##T(const __grid_constant__ NibbleLinearArguments a) {                                                         \
        gemvInt8Body<T>(a);                                                                                                      \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_INT8_THREADS)                                                       \
        gemm_int8_##T(const __grid_constant__ NibbleLinearArguments a) {                                                         \
        gemmInt8Body<T>(a);                                                                                                      \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_FINISH_INT8_THREADS)                                                     \
        finish_int8_##T(const __grid_constant__ NibbleLinearArguments a) {                                                       \
        finishInt8Body<T>(a);                                                                                                    \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) dequantize_int8_##T(const __grid_constant__ NibbleDequantizeArguments a) { \
        dequantize8Body<T>(a);                                                                                                   \
    }
NIBBLE_FOR_TYPES(INSTANCE)
#endif
