// LLM.int8() (arXiv 2208.07339): products of quantized activations and int8 weights.
#include "outliers.cuh"
#include "tile_product.cuh"

template <typename T>
__device__ __forceinline__ float int8Result(const NibbleLinearArguments &a, const NibbleLinearLayer &part, long long m,
                                            long long n, int sum) {
    return int8Result<T>(sum, a.rowScales[m], part.scales[n], part.bias ? part.bias[n] : 0.f, part.bias != nullptr,
                         a.roundsToHalf);
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
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMV_INT8_THREADS)                                                       \
        gemv_int8_##T(const __grid_constant__ NibbleLinearArguments a) {                                                         \
        if constexpr (IS_WANTED(gemv_int8_##T)) gemvInt8Body<T>(a);                                                              \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_GEMM_INT8_THREADS)                                                       \
        gemm_int8_##T(const __grid_constant__ NibbleLinearArguments a) {                                                         \
        if constexpr (IS_WANTED(gemm_int8_##T)) gemmInt8Body<T>(a);                                                              \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(NIBBLE_FINISH_INT8_THREADS)                                                     \
        finish_int8_##T(const __grid_constant__ NibbleLinearArguments a) {                                                       \
        if constexpr (IS_WANTED(finish_int8_##T)) finishInt8Body<T>(a);                                                          \
    }                                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) dequantize_int8_##T(const __grid_constant__ NibbleDequantizeArguments a) { \
        if constexpr (IS_WANTED(dequantize_int8_##T)) dequantize8Body<T>(a);                                                     \
    }
NIBBLE_FOR_TYPES(INSTANCE)
#endif
